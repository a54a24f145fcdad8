"""Cut one victim's layer into blocks of every size of F, each a puzzle and an answer."""

from pathlib import Path

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.fineness import file_of, grant
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs, output = snakemake.params, snakemake.wildcards, snakemake.input, snakemake.output
with compute_job(snakemake, "blocks", params.device):
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(inputs.dataset)
    model = load_model(config, dataset.classes, inputs.model)
    threat = ThreatModel.model_validate_json(params.threat)
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    for folder in (output.puzzles, output.answers):
        Path(folder).mkdir(parents=True)
    for size, puzzle, answer in grant(model, config, dataset, threat, params.block_sizes, key):
        answer.save(Path(output.answers) / file_of(size))
        puzzle.save(Path(output.puzzles) / file_of(size))
