"""Cut a victim's layer into the puzzles that the threats of one job grant, and their answers."""

from pathlib import Path

from scatterproof.data import load_dataset
from scatterproof.job import compute_job
from scatterproof.models import load_model
from scatterproof.puzzle import grant
from scatterproof.threat import ThreatModel
from scatterproof.victim import start_of
from scatterproof.victim_config import VictimConfig

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
