"""Check, before anything is trained, that models, checkpoints, layers and block sizes fit."""

from pathlib import Path

from scatterproof.check import check_study
from scatterproof.data import load_dataset
from scatterproof.files import check_writable, write_json
from scatterproof.job import light_job
from scatterproof.study import VictimConfig

with light_job(snakemake, "data"):
    victims = [VictimConfig.model_validate_json(text) for text in snakemake.params.victims]
    dataset = load_dataset(snakemake.input[0])
    found = check_study(
        victims, dataset, snakemake.params.block_sizes, snakemake.params.scatter, snakemake.params.images
    )
    check_writable(Path(snakemake.output[0]).parent, found["disk_bytes"])
    write_json(snakemake.output[0], found)
