"""The kept share at half of the victim's accuracy."""

from scatterproof.analysis.statistics import threshold
from scatterproof.running.files import read_table, write_csv
from scatterproof.running.job import light_job

with light_job(snakemake, "report"):
    thresholds = threshold(read_table(snakemake.input.prune), read_table(snakemake.input.victim))
    write_csv(snakemake.output[0], thresholds)
