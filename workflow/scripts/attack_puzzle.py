"""Run every attack of one threat on one puzzle."""

from pathlib import Path

from scatterproof.attacks import DIRECT
from scatterproof.attacks.base import Machine
from scatterproof.attacks.scoring import save_found
from scatterproof.job import compute_job
from scatterproof.puzzle import Puzzle

params = snakemake.params
with compute_job(snakemake, "attacks", params.device, True, params.attacks) as job:
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    puzzle = Puzzle.load(Path(snakemake.input[0]))
    found = {name: DIRECT[name]().run(puzzle, machine) for name in params.attacks}
    job.meter.attacks |= {name: steps[-1].minutes for name, steps in found.items()}
    save_found(Path(snakemake.output[0]), found)
