"""Train one victim again from nothing: by other recipes, or on the pirate's images alone."""

from pathlib import Path

import pandas as pd

from scatterproof.config.retraining import retraining_from_json
from scatterproof.config.victim import VictimConfig
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.retraining import Trainer

params, wildcards = snakemake.params, snakemake.wildcards
victim, seed = wildcards.victim, int(wildcards.seed)
with compute_job(snakemake, "retraining", params.device, checkpoints=True) as job:
    configs = [VictimConfig.model_validate_json(text) for text in params.configs]
    work = Path(params.work) / f"{victim}.{seed}"
    dataset = load_dataset(snakemake.input.dataset)
    trainer = Trainer(dataset, job.device, job.device_name, snakemake.threads, work)
    curves = [
        trainer.train(run, config, (params.seed, victim, seed))
        for run, config in zip(retraining_from_json(params.runs), configs, strict=True)
    ]
    about = {"victim": victim, "victim_seed": seed, "device": job.device_name}
    write_csv(snakemake.output[0], pd.concat(curves, ignore_index=True).assign(**about))
