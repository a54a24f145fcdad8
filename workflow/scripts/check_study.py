"""Check, before anything is trained, that models, checkpoints, layers, block sizes and disk fit."""

from pathlib import Path

from scatterproof.check import check_study
from scatterproof.config.study import parse_study
from scatterproof.running.files import check_writable, write_json
from scatterproof.running.job import light_job
from scatterproof.victims.data import load_dataset

with light_job(snakemake, "data"):
    study = parse_study(snakemake.config, "config")
    checked = check_study(study, load_dataset(snakemake.input[0]))
    check_writable(Path(snakemake.output[0]).parent, checked["disk_bytes"])
    write_json(snakemake.output[0], checked)
