"""Cut a victim's layer into blocks of every size, each a puzzle and an answer, and measure it with all in place."""

import json
from pathlib import Path

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.victim_metrics import victim_metrics
from scatterproof.puzzle import make_puzzle
from scatterproof.running.files import write_json
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, output = snakemake.params, snakemake.wildcards, snakemake.output
with compute_job(snakemake, "blocks", params.device) as job:
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(snakemake.input.dataset)
    model = load_model(config, dataset.classes, snakemake.input.model)
    threat = ThreatModel(scatter=params.scatter, images=params.images)
    grids = {}
    for i, size in enumerate(params.block_sizes):
        key = (params.seed, wildcards.victim, int(wildcards.seed), size)
        puzzle, answer = make_puzzle(model, config, dataset, threat, size, key)
        answer.save(Path(output.answers[i]))
        puzzle.save(Path(output.puzzles[i]))
        grids[size] = {name: [grid.rows, grid.columns] for name, grid in puzzle.layout.grids.items()}
        if i == 0:
            metrics = victim_metrics(puzzle, answer, dataset, job.device, params.images_per_chunk)
    training = json.loads(Path(snakemake.input.training).read_text())
    write_json(output.metrics, metrics | training | {"grids": grids})
