"""Measure every victim with all blocks in place, and write down how it was trained and which grids it is cut into."""

import json
from pathlib import Path

from scatterproof.judging.victim_metrics import grids_of, victim_metrics
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import write_json
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset

params, inputs = snakemake.params, snakemake.input
with compute_job(snakemake, "blocks", params.device) as job:
    dataset = load_dataset(inputs.dataset)
    parts = (inputs.puzzles, inputs.answers, inputs.training, snakemake.output)
    for puzzles, answers, training, metrics in zip(*parts, strict=True):
        cut = [Answer.load(Path(answers) / file) for file in params.files]
        puzzle = Puzzle.load(Path(puzzles) / params.files[0])
        measured = victim_metrics(puzzle, cut[0], dataset, job.device, params.images_per_chunk)
        write_json(metrics, measured | json.loads(Path(training).read_text()) | {"grids": grids_of(cut)})
