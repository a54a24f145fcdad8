"""Run the attacks of one job, each on the puzzle of its threat."""

import json
from pathlib import Path

from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.runner import attack
from scatterproof.attacks.store import save_found
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.puzzles import file_of
from scatterproof.puzzle import Puzzle
from scatterproof.running.job import compute_job

params, wildcards = snakemake.params, snakemake.wildcards
names = json.loads(params.attacks)
distinct = sorted({name for each in names.values() for name in each})
with compute_job(snakemake, "attacks", params.device, True, distinct) as job:
    config = AttackSettings.model_validate_json(params.config)
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    output = Path(snakemake.output[0])
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    reached = {}
    for threat, attacks in names.items():
        puzzle = Puzzle.load(Path(snakemake.input[0]) / file_of(params.block_size, threat))
        work = output.parent / "runs" / f"{wildcards.victim}.{wildcards.seed}.{threat}"
        each = attack(config, attacks, puzzle, Run(machine, (*key, threat), work), job.meter.attacks)
        reached |= {f"{threat}/{name}": steps for name, steps in each.items()}
    save_found(output, reached)
