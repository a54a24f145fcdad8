"""One table from its slices."""

from scatterproof.analysis.tables import concatenate
from scatterproof.running.job import light_job

with light_job(snakemake, "report"):
    concatenate(snakemake.input, snakemake.output[0])
