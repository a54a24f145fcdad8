"""Protect a victim's layer by one defence, for every block size, and say what that costs."""

from pathlib import Path

from scatterproof.blocks import Layout
from scatterproof.config.puzzles import protected_file
from scatterproof.config.settings.defences import defence_of_json
from scatterproof.config.threat import key_of_draw
from scatterproof.config.victim import VictimConfig
from scatterproof.cutting import scattered_layers
from scatterproof.defences.network import protect_network
from scatterproof.defences.telling import telling_for
from scatterproof.judging.served import TRIED, defence_table, served_row
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset, to_input
from scatterproof.victims.models import dense_layers, load_model

params, wildcards, inputs, output = snakemake.params, snakemake.wildcards, snakemake.input, snakemake.output
with compute_job(snakemake, "defences", "cpu") as job:
    config, settings = VictimConfig.model_validate_json(params.config), defence_of_json(params.settings)
    dataset, rows = load_dataset(inputs.dataset), []
    model = load_model(config, dataset.classes, inputs.model)
    names = scattered_layers(model, config, params.scatter)
    shapes = {name: dense_layers(model)[name].weight.shape for name in names}
    images = to_input(dataset.test.images[:TRIED], config.input_size, dataset.mean, dataset.std)
    for size, draw in params.block_sizes_and_draws:
        key = (params.seed, wildcards.victim, int(wildcards.seed), *key_of_draw(draw))
        layout = Layout.square(shapes, size)
        telling = telling_for(settings, model, config, dataset, layout)
        protected = protect_network(model, layout, settings, images, key, telling)
        rows += [] if draw else [served_row(model, protected, images)]
        protected.save(Path(output.protected) / protected_file(size, draw))
    about = {"study": params.study, "victim_seed": int(wildcards.seed), "victim": wildcards.victim}
    write_csv(output.costs, defence_table(rows, about, job.device_name))
