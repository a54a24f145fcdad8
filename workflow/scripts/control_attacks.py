"""The controls of the attacks on one victim."""

import shutil
from pathlib import Path

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.attacks.base import Machine
from scatterproof.config.attacks import AttacksConfig, attacks_on, ceilings_on
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.ceilings.told_controls import CeilingControls
from scatterproof.judging.controls import Controls, controlled
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
config = AttacksConfig.model_validate_json(params.config)
threats = controlled(config, params.scatter)
with compute_job(snakemake, "attacks", params.device, True, sorted({name for name, _ in threats})) as job:
    dataset, about = load_dataset(inputs.dataset), VictimConfig.model_validate_json(params.victim)
    victim = load_model(about, dataset.classes, inputs.model)
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    machine = Machine(job.device, snakemake.threads, memory_mb=params.memory_mb)
    output = Path(snakemake.output[0])
    work = output.parent / "runs" / output.stem
    controls = Controls(config, victim, about, dataset, params.block_size, key, machine, work)
    rows = [row for name, threat in threats for row in controls.rows(name, threat)]
    told = CeilingControls(controls)
    for threat, forms in ceilings_on(config, params.scatter).items():
        rows += told.rows(attacks_on(config, params.scatter)[threat][0], forms)
    head = {"study": params.study, "victim": wildcards.victim, "victim_seed": int(wildcards.seed)}
    table = pd.DataFrame(rows).assign(**head, block_size=params.block_size)
    write_csv(output, table[COLUMNS["controls"]])
    shutil.rmtree(work, ignore_errors=True)
