"""Measure the plateau on one victim."""

from pathlib import Path

from scatterproof.analysis.tables import cell_table
from scatterproof.config.puzzles import file_of
from scatterproof.config.search import PlateauConfig
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.judging.plateau import plateau
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "plateau", params.device) as job:
    grid, seed = PlateauConfig.model_validate_json(params.grid), int(wildcards.seed)
    file = file_of(params.block_size, params.threat)
    puzzle, answer = Puzzle.load(Path(inputs.puzzles) / file), Answer.load(Path(inputs.answers) / file)
    evaluator = PlacementEvaluator(puzzle, puzzle.images, puzzle.labels, job.device, memory_mb=params.memory_mb)
    key = (params.seed, wildcards.victim, seed)
    rows = plateau(evaluator, answer, grid.correct, grid.images, grid.draws, key)
    about = {
        "study": params.study,
        "victim_seed": seed,
        "layer": "+".join(puzzle.layout.grids),
        "block_size": puzzle.layout.block_shape[0],
        "keep": puzzle.threat.share,
        "victim": wildcards.victim,
    }
    cost = job.cost_columns(job.meter.minutes_so_far() / len(rows))
    write_csv(snakemake.output[0], cell_table("plateau", rows, about, cost))
