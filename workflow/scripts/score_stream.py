"""Score what the hijacks of one victim found, by the truth and on test images."""

import json
from pathlib import Path

from scatterproof.analysis.tables import stream_table
from scatterproof.config.puzzles import paths
from scatterproof.config.stream import cells_of_json
from scatterproof.judging.judge import Judge
from scatterproof.judging.traffic.hijacks import hijack_table
from scatterproof.judging.traffic.stream_cells import found_of, load_arrays, score_cells
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs, output = snakemake.params, snakemake.wildcards, snakemake.input, snakemake.output
with compute_job(snakemake, "stream", params.device) as job:
    puzzles = {
        held: Puzzle.load(path) for held, path in zip(params.held, paths(inputs.puzzles, params.files), strict=True)
    }
    answers = {
        held: Answer.load(path) for held, path in zip(params.held, paths(inputs.answers, params.files), strict=True)
    }
    dataset = load_dataset(inputs.dataset)
    victim = load_model(puzzles[0.0].config, dataset.classes, inputs.model)
    judge = Judge(puzzles[0.0], answers[0.0], victim, dataset, job.device)
    judges = {held: judge.of(puzzle, answers[held]) for held, puzzle in puzzles.items() if held}
    cells = cells_of_json(params.cells)
    reached = found_of(load_arrays(Path(inputs.reached)), len(cells))
    rows = score_cells(cells, reached, load_arrays(Path(inputs.truth)), answers, judges)
    about = {
        "study": params.study,
        "victim_seed": int(wildcards.seed),
        "layer": "+".join(puzzles[0.0].layout.grids),
        "block_size": puzzles[0.0].layout.block_shape[0],
        "victim": wildcards.victim,
    }
    write_csv(output.stream, stream_table(rows, about, job.device_name))
    retraining = json.loads(Path(inputs.training).read_text())
    write_csv(output.attacks, hijack_table(cells, reached, judges, about, retraining, job.device_name))
