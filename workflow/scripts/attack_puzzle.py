"""Run every attack of one threat on one puzzle."""

from pathlib import Path

from scatterproof.attacks import DIRECT
from scatterproof.attacks.base import Machine
from scatterproof.attacks.scoring import save_found
from scatterproof.job import compute_job
from scatterproof.puzzle import Puzzle

params = snakemake.params
with compute_job(snakemake, "attacks", params.device, checkpoints=True) as job:
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    puzzle = Puzzle.load(Path(snakemake.input[0]))
    found = {name: DIRECT[name]().run(puzzle, machine) for name in params.attacks}
    save_found(Path(snakemake.output[0]), found)
