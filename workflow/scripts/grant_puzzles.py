"""Cut a victim's layer into the puzzles that the threats of one job grant, and their answers."""

from pathlib import Path

from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.puzzle import grant
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model
from scatterproof.victims.training import start_of

params, wildcards, inputs, output = snakemake.params, snakemake.wildcards, snakemake.input, snakemake.output
with compute_job(snakemake, "blocks", params.device):
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(inputs.dataset)
    model = load_model(config, dataset.classes, inputs.model)
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    for folder in (output.puzzles, output.answers):
        Path(folder).mkdir(parents=True)
    for name, granted in params.threats.items():
        threat = ThreatModel.model_validate_json(granted)
        base = start_of(config, int(wildcards.seed), dataset.classes) if threat.base_model else None
        puzzle, answer = grant(model, config, dataset, threat, params.block_size, key, base)
        answer.save(Path(output.answers) / f"{name}.safetensors")
        puzzle.save(Path(output.puzzles) / f"{name}.safetensors")
