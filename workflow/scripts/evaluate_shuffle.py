"""Evaluate one slice of the S1 grid."""

from itertools import groupby
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
victim, seed, first = wildcards.victim, int(wildcards.seed), int(wildcards.slice) * params.cells_per_job
with compute_job(snakemake, "shuffle", params.device) as job:
    grid = ShuffleConfig.model_validate_json(params.grid)
    test = load_dataset(snakemake.input.dataset).test
    rows = []
    mine = shuffle_cells(grid, params.block_sizes)[first : first + params.cells_per_job]
    for size, group in groupby(mine, key=lambda cell: cell.block_size):
        which = params.block_sizes.index(size)
        puzzle = Puzzle.load(Path(snakemake.input.puzzles[which]))
        answer = Answer.load(Path(snakemake.input.answers[which]))
        evaluator = PlacementEvaluator(puzzle, test.images, test.labels, job.device, params.images_per_chunk)
        cells, key = list(group), (params.seed, victim, seed, size)
        rows += shuffle(evaluator, answer, cells, key)
    about = {
        "study": params.study,
        "victim_seed": seed,
        "layer": "+".join(puzzle.layout.grids),
        "victim": victim,
        "scatter": puzzle.threat.scatter,
    }
    minutes = job.meter.minutes_so_far() / len(rows)
    write_csv(snakemake.output[0], cell_table(rows, about, job.cost_columns(minutes)))
