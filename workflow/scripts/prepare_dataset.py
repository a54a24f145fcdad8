"""Read, split and store the dataset."""

from scatterproof.config.dataset import DatasetConfig
from scatterproof.running.job import light_job
from scatterproof.victims.data import read_dataset, save_dataset

with light_job(snakemake, "data"):
    dataset = read_dataset(DatasetConfig.model_validate_json(snakemake.params.config))
    save_dataset(dataset, snakemake.output[0])
