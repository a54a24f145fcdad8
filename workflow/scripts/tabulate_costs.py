"""The ledger of this study, its sums, and their figure."""

from pathlib import Path

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.config.cost import CostConfig
from scatterproof.cost.account import account
from scatterproof.cost.ledger import retraining_minutes
from scatterproof.cost.sums import cost_groups, cost_summary, waste_table
from scatterproof.report.figures.base import draw_cost
from scatterproof.running.files import read_table, write_csv
from scatterproof.running.job import light_job

SETTLE_S = 20.0  # sacct lags behind the last jobs

params, output = snakemake.params, snakemake.output
with light_job(snakemake, "report"):
    retraining = retraining_minutes(read_table(snakemake.input.victim))
    assumed = CostConfig.model_validate_json(params.assumed)
    ledger = account(Path(params.records).parent, Path(params.journal), assumed, keep=True, settle_s=SETTLE_S)
    for note in ledger.notes:
        print(note)
    summary = pd.DataFrame(cost_summary(ledger.costs, retraining), columns=COLUMNS["cost_summary"])
    draw_cost(summary, retraining, Path(output.svg))
    write_csv(output.groups, pd.DataFrame(cost_groups(ledger.costs, retraining), columns=COLUMNS["cost_groups"]))
    write_csv(output.waste, pd.DataFrame(waste_table(ledger.costs), columns=COLUMNS["cost_waste"]))
    write_csv(output.summary, summary)
    write_csv(output.costs, pd.DataFrame(ledger.costs, columns=COLUMNS["cost"]))
