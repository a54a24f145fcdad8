"""Train one victim, or read the user's own."""

from pathlib import Path

from safetensors.torch import save_file

from scatterproof.config.victim import VictimConfig
from scatterproof.running.files import atomic, write_csv, write_json
from scatterproof.running.job import compute_job
from scatterproof.victims.checkpoints import unshared
from scatterproof.victims.data import load_dataset
from scatterproof.victims.training import curve_table, obtain_victim

params, seed = snakemake.params, int(snakemake.wildcards.seed)
checkpoint = Path(snakemake.output.model).with_name("checkpoint.pt")
with compute_job(snakemake, "victim", params.device, checkpoints=True) as job:
    config = VictimConfig.model_validate_json(params.config)
    dataset = load_dataset(snakemake.input.dataset)
    victim = obtain_victim(config, seed, dataset, job.device, snakemake.threads, checkpoint)
    job.meter.device_minutes = victim.minutes - victim.minutes_before  # an earlier attempt has a record of its own
    write_csv(snakemake.output.curve, curve_table(victim.curve))
    trained = {"epochs": len(victim.curve), "folded": "+".join(victim.folded)}
    write_json(snakemake.output.training, trained | job.cost_columns(victim.minutes))
    with atomic(snakemake.output.model) as temporary:
        save_file(unshared(victim.model.state_dict()), temporary)
    checkpoint.unlink(missing_ok=True)
