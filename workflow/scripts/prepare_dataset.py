"""Read, split and store the dataset."""

from scatterproof.data import read_dataset, save_dataset
from scatterproof.job import light_job
from scatterproof.study import DatasetConfig

with light_job(snakemake, "data"):
    dataset = read_dataset(DatasetConfig.model_validate_json(snakemake.params.config))
    save_dataset(dataset, snakemake.output[0])
