"""The ledger of this study, its sums by stage, and their figure."""

from pathlib import Path

from scatterproof.cost.ledger import cost_summary, cost_table, read_records, retraining_minutes
from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.report.figures import draw_cost
from scatterproof.tables import read_table

with light_job(snakemake, "report"):
    retraining = retraining_minutes(read_table(snakemake.input.victim))
    costs = cost_table(read_records(Path(snakemake.params.records)))
    summary = cost_summary(costs, retraining)
    draw_cost(summary, retraining, Path(snakemake.output.svg))
    write_csv(snakemake.output.summary, summary)
    write_csv(snakemake.output.costs, costs)
