"""Evaluate one slice of the P1 grid."""

from pathlib import Path

from scatterproof.cells import prune_cells
from scatterproof.data import load_dataset
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.files import write_csv
from scatterproof.grids import prune
from scatterproof.job import compute_job
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.study import PruneConfig
from scatterproof.tables import cell_table

params, wildcards = snakemake.params, snakemake.wildcards
first = int(wildcards.slice) * params.cells_per_job
with compute_job(snakemake, "prune", params.device) as job:
    grid = PruneConfig.model_validate_json(params.grid)
    cells = prune_cells(grid)[first : first + params.cells_per_job]
    puzzle, test = Puzzle.load(Path(snakemake.input.puzzle)), load_dataset(snakemake.input.dataset).test
    answer = Answer.load(Path(snakemake.input.answer))
    evaluator = PlacementEvaluator(puzzle, test.images, test.labels, job.device, params.images_per_chunk)
    key = (params.seed, wildcards.victim, int(wildcards.seed), int(wildcards.size))
    rows = prune(evaluator, answer, cells, grid.corrections, key)
    minutes = job.meter.minutes_so_far()
    table = cell_table(rows, params.study, wildcards, puzzle, job.cost_columns(minutes / len(rows)))
    write_csv(snakemake.output[0], table)
