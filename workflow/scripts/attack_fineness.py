"""Run the fingerprint on one victim's puzzles of every block size."""

from pathlib import Path

from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.runner import attack
from scatterproof.attacks.store import save_found
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.fineness import ATTACK
from scatterproof.judging.fineness import in_folder
from scatterproof.puzzle import Puzzle
from scatterproof.running.job import compute_job

params, wildcards = snakemake.params, snakemake.wildcards
with compute_job(snakemake, "fineness", params.device, True, [ATTACK]) as job:
    config = AttackSettings.model_validate_json(params.config)
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    output = Path(snakemake.output[0])
    by_size = {}
    for size, path in in_folder(Path(snakemake.input[0])).items():
        key = (params.seed, wildcards.victim, int(wildcards.seed), "fineness", size)
        name = path.parent.name
        work = output.parent / "runs" / name
        reached = attack(config, [ATTACK], Puzzle.load(path), Run(machine, key, work), job.meter.attacks)
        by_size[name] = reached[ATTACK][-1:]
    save_found(output, by_size)
