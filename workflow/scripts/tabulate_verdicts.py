"""The verdict on each threat, and of a study with defences the frontier and the recommendation."""

import pandas as pd

from scatterproof.analysis.choice import beside_traffic, with_withheld
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.frontier.points import frontier_table
from scatterproof.analysis.frontier.recommendation import recommended_verdicts
from scatterproof.analysis.tables import read_tables
from scatterproof.analysis.verdict import cheapest_training, verdict_table
from scatterproof.running.files import write_csv
from scatterproof.running.job import light_job

with light_job(snakemake, "report"):
    inputs, output = snakemake.input, snakemake.output
    controls = read_tables(inputs.controls)
    write_csv(output.controls, controls)
    attacks = read_tables(inputs.attacks) if inputs.attacks else pd.DataFrame(columns=COLUMNS["attacks"])
    if inputs.hijacks:
        hijacks = with_withheld(beside_traffic(read_tables(inputs.hijacks), attacks))
        write_csv(output.hijacks, hijacks)
        attacks = pd.concat([attacks, hijacks], ignore_index=True) if len(attacks) else hijacks
    cheapest = cheapest_training(read_tables([inputs.breakeven]))
    if inputs.defences:
        defences = read_tables(inputs.defences)
        verdicts = recommended_verdicts(attacks, controls, defences, cheapest)
        write_csv(output.frontier, frontier_table(verdicts, defences))
    else:
        verdicts = verdict_table(attacks, controls, cheapest)
    write_csv(output.verdict, verdicts)
