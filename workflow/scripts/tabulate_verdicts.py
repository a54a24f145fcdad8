"""The verdict on each threat."""

from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.tables import read_table, read_tables
from scatterproof.verdict import verdict_table

with light_job(snakemake, "report"):
    controls = read_tables(snakemake.input.controls)
    write_csv(snakemake.output.controls, controls)
    write_csv(snakemake.output.verdict, verdict_table(read_table(snakemake.input.attacks), controls))
