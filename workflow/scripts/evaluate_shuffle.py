"""Evaluate one slice of the S1 grid."""

from pathlib import Path

from scatterproof.analysis.tables import cell_table
from scatterproof.config.study import ShuffleConfig
from scatterproof.judging.grid_cells import shuffle_cells
from scatterproof.judging.prune_shuffle import evaluate_slice, shuffle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
victim, seed, first = wildcards.victim, int(wildcards.seed), int(wildcards.slice) * params.cells_per_job
with compute_job(snakemake, "shuffle", params.device) as job:
    grid = ShuffleConfig.model_validate_json(params.grid)
    pairs = [(Path(inputs.puzzles) / file, Path(inputs.answers) / file) for file in params.files]
    files = dict(zip(params.block_sizes, pairs, strict=True))
    cells = shuffle_cells(grid, params.block_sizes)[first : first + params.cells_per_job]
    test, key = load_dataset(inputs.dataset).test, (params.seed, victim, seed)
    rows = evaluate_slice(cells, files, test, job.device, params.images_per_chunk, key, shuffle)
    about = {"study": params.study, "victim_seed": seed, "victim": victim}
    minutes = job.meter.minutes_so_far() / len(rows)
    write_csv(snakemake.output[0], cell_table("shuffle", rows, about, job.cost_columns(minutes)))
