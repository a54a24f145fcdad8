"""Evaluate one slice of the S1 grid."""

from pathlib import Path

from scatterproof.cells import shuffle_cells
from scatterproof.data import load_dataset
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.files import write_csv
from scatterproof.grids import shuffle
from scatterproof.job import compute_job
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.study import ShuffleConfig
from scatterproof.tables import cell_table

params, wildcards = snakemake.params, snakemake.wildcards
first = int(wildcards.slice) * params.cells_per_job
with compute_job(snakemake, "shuffle", params.device) as job:
    grid = ShuffleConfig.model_validate_json(params.grid)
    cells = shuffle_cells(grid)[first : first + params.cells_per_job]
    puzzle, test = Puzzle.load(Path(snakemake.input.puzzle)), load_dataset(snakemake.input.dataset).test
    answer = Answer.load(Path(snakemake.input.answer))
    evaluator = PlacementEvaluator(puzzle, test.images, test.labels, job.device, params.images_per_chunk)
    key = (params.seed, wildcards.victim, int(wildcards.seed), int(wildcards.size))
    rows = shuffle(evaluator, answer, cells, key)
    minutes = job.meter.minutes_so_far()
    table = cell_table(rows, params.study, wildcards, puzzle, job.cost_columns(minutes / len(rows)))
    write_csv(snakemake.output[0], table)
