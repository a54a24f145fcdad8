"""One table of all attacks, with what the same pirate reaches without the blocks."""

from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.tables import read_tables
from scatterproof.verdict import with_withheld

with light_job(snakemake, "report"):
    write_csv(snakemake.output[0], with_withheld(read_tables(snakemake.input)))
