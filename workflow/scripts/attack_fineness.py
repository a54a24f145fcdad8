"""Run the fingerprint on one victim's puzzles of every block size."""

from pathlib import Path

from scatterproof.attack_grid import AttacksConfig
from scatterproof.attacks.attacking import attack
from scatterproof.attacks.base import Machine
from scatterproof.attacks.found import save_found
from scatterproof.fineness import in_folder
from scatterproof.fineness_grid import ATTACK
from scatterproof.job import compute_job
from scatterproof.puzzle import Puzzle

params, wildcards = snakemake.params, snakemake.wildcards
with compute_job(snakemake, "fineness", params.device, True, [ATTACK]) as job:
    config = AttacksConfig.model_validate_json(params.config)
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    output = Path(snakemake.output[0])
    found = {}
    for size, path in in_folder(Path(snakemake.input[0])).items():
        key = (params.seed, wildcards.victim, int(wildcards.seed), "fineness", size)
        work = output.parent / "runs" / path.stem
        reached = attack(config, [ATTACK], Puzzle.load(path), key, machine, work, job.meter.attacks)
        found[path.stem] = reached[ATTACK][-1:]
    save_found(output, found)
