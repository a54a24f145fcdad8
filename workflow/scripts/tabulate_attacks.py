"""One table of all attacks, with what the same pirate reaches without the blocks."""

from scatterproof.analysis.choice import with_withheld
from scatterproof.analysis.tables import read_tables
from scatterproof.running.files import write_csv
from scatterproof.running.job import light_job

with light_job(snakemake, "report"):
    write_csv(snakemake.output[0], with_withheld(read_tables(snakemake.input)))
