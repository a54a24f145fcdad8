"""Score what the hijacks of one victim found, by the truth and on test images."""

from pathlib import Path

from scatterproof.data import load_dataset
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.files import write_csv
from scatterproof.job import compute_job
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.stream.cells import found_of, load_arrays, score_cells
from scatterproof.stream_grid import cells_of_json
from scatterproof.tables import stream_table

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "stream", params.device) as job:
    puzzles = {held: Puzzle.load(Path(path)) for held, path in zip(params.held, inputs.puzzles, strict=True)}
    answers = {held: Answer.load(Path(path)) for held, path in zip(params.held, inputs.answers, strict=True)}
    test = load_dataset(inputs.dataset).test
    evaluators = {
        held: PlacementEvaluator(puzzle, test.images, test.labels, job.device, params.images_per_chunk)
        for held, puzzle in puzzles.items()
        if held
    }
    cells = cells_of_json(params.cells)
    found = found_of(load_arrays(Path(inputs.found)), len(cells))
    rows = score_cells(cells, found, load_arrays(Path(inputs.truth)), puzzles, answers, evaluators)
    about = {
        "study": params.study,
        "victim_seed": int(wildcards.seed),
        "layer": "+".join(puzzles[0.0].layout.grids),
        "block_size": puzzles[0.0].layout.block_shape[0],
        "victim": wildcards.victim,
    }
    write_csv(snakemake.output[0], stream_table(rows, about, job.device_name))
