"""Cut a victim's layer into the puzzle that one threat grants, and its answer."""

from pathlib import Path

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.puzzle import grant
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
    puzzle, answer = grant(model, config, dataset, threat, params.block_size, key)
    answer.save(Path(output.answer))
    puzzle.save(Path(output.puzzle))
