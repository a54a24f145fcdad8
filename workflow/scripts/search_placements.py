"""Run the searches of one job on one puzzle."""

from pathlib import Path

from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.runner import search
from scatterproof.attacks.store import save_found
from scatterproof.config.puzzles import file_of
from scatterproof.config.search import SearchConfig, runs_from_json
from scatterproof.puzzle import Puzzle
from scatterproof.running.job import compute_job

params, wildcards = snakemake.params, snakemake.wildcards
runs = runs_from_json(params.runs)
with compute_job(snakemake, "search", params.device, True, sorted({run.attack for run in runs})) as job:
    config = SearchConfig.model_validate_json(params.config)
    machine = Machine(job.device, snakemake.threads, config.precision, params.memory_mb)
    output = Path(snakemake.output[0])
    work = output.parent / "runs" / f"{wildcards.victim}.{wildcards.seed}"
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    puzzle = Puzzle.load(Path(snakemake.input[0]) / file_of(params.block_size, wildcards.threat))
    save_found(output, search(config, runs, puzzle, Run(machine, key, work), job.meter.attacks))
