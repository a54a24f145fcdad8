"""Cut a victim's layer into blocks of every size: puzzles and their answers, each in a file of its own."""

from pathlib import Path

from scatterproof.data import load_dataset
from scatterproof.job import compute_job
from scatterproof.models import build_model, load_weights, read_checkpoint
from scatterproof.puzzle import ThreatModel, make_puzzle
from scatterproof.study import VictimConfig

params, wildcards = snakemake.params, snakemake.wildcards
with compute_job(snakemake, "blocks", "cpu"):
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(snakemake.input.dataset)
    model = build_model(config, dataset.classes)
    load_weights(model, read_checkpoint(snakemake.input.model), snakemake.input.model)
    model.eval()
    threat = ThreatModel(scatter=params.scatter, images=params.images)
    for i, size in enumerate(params.block_sizes):
        key = (params.seed, wildcards.victim, int(wildcards.seed), size)
        puzzle, answer = make_puzzle(model, config, dataset, threat, size, key)
        answer.save(Path(snakemake.output.answers[i]))
        puzzle.save(Path(snakemake.output.puzzles[i]))
