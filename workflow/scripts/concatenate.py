"""One table from its slices."""

from scatterproof.job import light_job
from scatterproof.tables import concatenate

with light_job(snakemake, "report"):
    concatenate(snakemake.input, snakemake.output[0])
