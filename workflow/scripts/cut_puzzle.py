"""Cut a victim's layer into the puzzles of one part, each with its answer."""

from pathlib import Path

from scatterproof.config.puzzles import cuts_of_json
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.judging.fineness import fine_enough
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model
from scatterproof.victims.training import start_of

params, wildcards, inputs, output = snakemake.params, snakemake.wildcards, snakemake.input, snakemake.output
with compute_job(snakemake, "blocks", params.device):
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(inputs.dataset)
    model = load_model(config, dataset.classes, inputs.model)
    cuts = cuts_of_json(params.puzzles)
    for cut in fine_enough(model, config, cuts) if params.fine else cuts:
        base = start_of(config, int(wildcards.seed), dataset.classes) if cut.threat.base_model else None
        key = (params.seed, wildcards.victim, int(wildcards.seed))
        puzzle, answer = make_puzzle(model, config, dataset, cut.threat, cut.block_size, key, base)
        answer.save(Path(output.answers) / cut.file)
        puzzle.save(Path(output.puzzles) / cut.file)
