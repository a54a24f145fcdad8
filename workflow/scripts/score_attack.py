"""Score what the attacks of one job had reached, on test images."""

import json
from pathlib import Path

import pandas as pd

from scatterproof.analysis.tables import attack_table
from scatterproof.attacks.store import SnapshotsByName, load_found, under
from scatterproof.config.puzzles import file_of
from scatterproof.config.threat import draw_of
from scatterproof.judging.judge import Judge, rows_together
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "attacks", params.device) as job:
    dataset, reached = load_dataset(inputs.dataset), load_found(Path(inputs.reached))
    retraining = json.loads(Path(inputs.training).read_text())
    head = {"study": params.study, "victim_seed": int(wildcards.seed), "victim": wildcards.victim}
    judged: list[tuple[Judge, SnapshotsByName]] = []
    for name in params.threats:
        file = file_of(params.block_size, name)
        puzzle, answer = Puzzle.load(Path(inputs.puzzles) / file), Answer.load(Path(inputs.answers) / file)
        if judged:
            judge = judged[-1][0].of(puzzle, answer)
        else:
            victim = load_model(puzzle.config, dataset.classes, inputs.model)
            judge = Judge(puzzle, answer, victim, dataset, job.device)
        judged.append((judge, under(reached, name)))
    tables = []
    for (judge, _), rows, name in zip(judged, rows_together(judged), params.threats, strict=True):
        layout = judge.puzzle.layout
        about = head | {"layer": "+".join(layout.grids), "block_size": layout.block_shape[0]}
        about |= {"frozen": judge.puzzle.config.frozen_among(layout.grids)}
        table = attack_table(rows, about, judge.puzzle.threat, retraining, job.device_name)
        tables.append(table.assign(seed=draw_of(name)))
    write_csv(snakemake.output[0], pd.concat(tables, ignore_index=True))
