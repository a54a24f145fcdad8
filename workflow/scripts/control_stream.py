"""The controls of the hijacks on one victim by pirates who hold blocks."""

import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.attacks.base import Machine
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.config.stream import cells_of_json
from scatterproof.config.threat import ThreatModel
from scatterproof.config.victim import VictimConfig
from scatterproof.judging.traffic.hijack_controls import StreamControls
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "stream", params.device, True, ["hijack"]) as job:
    dataset, about = load_dataset(inputs.dataset), VictimConfig.model_validate_json(params.victim)
    victim = load_model(about, dataset.classes, inputs.model)
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    machine = Machine(job.device, snakemake.threads)
    fingerprint = Fingerprint(FingerprintSettings.model_validate_json(params.fingerprint))
    controls = StreamControls(victim, about, dataset, params.block_size, params.shuffles, key, machine, fingerprint)
    threats = {threat.share: threat for threat in map(ThreatModel.model_validate_json, params.threats)}
    rows = [row for cell in cells_of_json(params.services) for row in controls.rows(cell, threats[cell.held])]
    head = {"study": params.study, "victim": wildcards.victim, "victim_seed": int(wildcards.seed)}
    table = pd.DataFrame(rows).assign(**head, block_size=params.block_size)
    write_csv(snakemake.output[0], table[COLUMNS["controls"]])
