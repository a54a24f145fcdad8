"""Measure what a pirate reaches who is told every place and key, under the threats of one job."""

import json
import shutil
from pathlib import Path

import pandas as pd

from scatterproof.analysis.tables import attack_table
from scatterproof.attacks.base import Machine, Run
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.puzzles import file_of
from scatterproof.config.threat import draw_of
from scatterproof.judging.ceilings.forms import ToldPirate
from scatterproof.judging.ceilings.rows import ceiling_rows
from scatterproof.judging.ceilings.told import tell
from scatterproof.judging.judge import Judge
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
forms, attacks = json.loads(params.forms), json.loads(params.attacks)
distinct = sorted({form for each in forms.values() for form in each})
with compute_job(snakemake, "ceilings", params.device, True, distinct) as job:
    dataset, config = load_dataset(inputs.dataset), AttackSettings.model_validate_json(params.config)
    retraining = json.loads(Path(inputs.training).read_text())
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    output, key = Path(snakemake.output[0]), (params.seed, wildcards.victim, int(wildcards.seed))
    work = output.parent / "runs" / output.stem
    head = {"study": params.study, "victim_seed": int(wildcards.seed), "victim": wildcards.victim}
    judge, tables = None, []
    for name, tried in forms.items():
        file = file_of(params.block_size, name)
        puzzle, answer = Puzzle.load(Path(inputs.puzzles) / file), Answer.load(Path(inputs.answers) / file)
        if judge is None:
            victim = load_model(puzzle.config, dataset.classes, inputs.model)
            judge = Judge(puzzle, answer, victim, dataset, job.device)
        judge = judge.of(puzzle, answer)
        pirate = ToldPirate(puzzle, tell(puzzle, answer), config, attacks[name], Run(machine, (*key, name), work))
        rows = ceiling_rows(judge, pirate, tried)
        for row in rows:
            job.meter.attacks[row["attack"]] = (job.meter.attacks[row["attack"]] or 0.0) + row["minutes"]
        about = head | {"layer": "+".join(puzzle.layout.grids), "block_size": puzzle.layout.block_shape[0]}
        about |= {"frozen": puzzle.config.frozen_among(puzzle.layout.grids)}
        table = attack_table(rows, about, puzzle.threat, retraining, job.device_name)
        tables.append(table.assign(params=[row["params"] for row in rows], seed=draw_of(name)))
    write_csv(output, pd.concat(tables, ignore_index=True))
    shutil.rmtree(work, ignore_errors=True)
