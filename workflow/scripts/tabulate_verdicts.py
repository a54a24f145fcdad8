"""The verdict on each threat."""

from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.tables import read_tables
from scatterproof.verdict import verdict_table

with light_job(snakemake, "report"):
    inputs, output = snakemake.input, snakemake.output
    controls = read_tables(inputs.controls)
    write_csv(output.controls, controls)
    write_csv(output.verdict, verdict_table(read_tables([*inputs.attacks, *inputs.hijacks]), controls))
