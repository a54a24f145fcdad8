"""The kept share at half of the victim's accuracy."""

from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.report.statistics import threshold
from scatterproof.tables import read_table

with light_job(snakemake, "report"):
    found = threshold(read_table(snakemake.input.prune), read_table(snakemake.input.victim))
    write_csv(snakemake.output[0], found)
