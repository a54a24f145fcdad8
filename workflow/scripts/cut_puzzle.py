"""Cut a victim's layer into the puzzles of one part, each with its answer."""

from pathlib import Path

from scatterproof.config.puzzles import cuts_of_json
from scatterproof.config.threat import key_of_draw
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import seen_under
from scatterproof.judging.fineness import fine_enough
from scatterproof.puzzle import Protected
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
    folders = {Path(folder).name: Path(folder) for folder in inputs.protected}
    for cut in fine_enough(model, config, cuts) if params.fine else cuts:
        threat, data = cut.threat, dataset.redrawn(cut.draw)
        key = (params.seed, wildcards.victim, int(wildcards.seed), *key_of_draw(cut.draw))
        base = start_of(config, int(wildcards.seed), dataset.classes) if threat.base_model else None
        folder = folders[threat.defence.label] if threat.defended else None
        protected = folder and Protected.load(folder / cut.protected)
        seen = seen_under(threat, model, config, data, protected)
        puzzle, answer = make_puzzle(model, config, data, threat, cut.block_size, key, base, protected, seen)
        answer.save(Path(output.answers) / cut.file)
        puzzle.save(Path(output.puzzles) / cut.file)
