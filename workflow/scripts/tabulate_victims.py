"""The victims' accuracies and their curves as two tables."""

from scatterproof.analysis.tables import curve_table, victim_table
from scatterproof.running.files import write_csv
from scatterproof.running.job import light_job

params = snakemake.params
with light_job(snakemake, "report"):
    victims = victim_table(params.study, params.names, snakemake.input.metrics)
    write_csv(snakemake.output.victims, victims)
    write_csv(snakemake.output.curves, curve_table(victims, snakemake.input.curves))
