"""The columns of every table of a study, in order. Needs neither pandas nor torch.

`docs/outputs.md` says what each one means, and `tests/test_outputs_doc.py` keeps the two alike.
"""

HEAD = ["study", "victim_seed", "layer", "block_size", "keep", "victim"]
COST = ["device", "device_minutes", "gpu_minutes"]
ENERGY = ["energy_kwh", "energy_source", "co2_g", "price"]

# What the pirate has and sees, and what it is up against: the threat by its name, and its parts
THREAT = ["threat", "images", "knows", "activations", "requests", "defence", "defence_params", "obfuscation"]

_ATTACKS = [
    *HEAD,
    *("attack", "role", *THREAT, "frozen", "params", "seed", "step", "last"),
    *("test_images", "accuracy", "withheld_accuracy", "known_places_accuracy", "relative_accuracy", "fidelity"),
    *("position_accuracy", "row_accuracy", "column_accuracy", "residual_bits"),
    *("evaluations", "queries", "labelled", "unlabelled", "cost_over_retraining"),
    *COST,
]
_SUMS = [
    *("jobs", "attempts", "allocated_gpu_minutes", "wasted_gpu_minutes", "overhead_minutes", "queue_minutes"),
    *("over_retraining", "cpu_minutes", "device", "device_minutes", "gpu_minutes"),
    *("elapsed_minutes", "wasted_minutes", *ENERGY),
]

COLUMNS: dict[str, list[str]] = {
    "victim": [
        *HEAD,
        *("frozen", "model", "width", "input_size", "copies", "parameters", "classes", "chance", "accuracy", "loss"),
        *("epochs", "folded"),
        *COST,
    ],
    "curve": [*HEAD, "epoch", "minutes", "train_loss", "accuracy"],
    "prune": [*HEAD, "scatter", "correction", "repeat", "accuracy", "loss", *COST],
    "shuffle": [*HEAD, "scatter", "moved", "repeat", "accuracy", "loss", *COST],
    "threshold": [*HEAD, "scatter", "correction", "ci_low", "ci_high", "seeds"],
    "search": [
        *HEAD,
        *("threat", "attack", "fitness", "population", "images", "budget", "seed"),
        *("generation", "evaluations", "best_fitness", "test_images", "accuracy"),
        *COST,
    ],
    "trajectory": [
        *HEAD,
        *("attack", "threat", "fitness", "population", "images", "budget", "seed"),
        *("minutes", "evaluations", "test_images", "accuracy", "device"),
    ],
    "plateau": [
        *HEAD,
        *("images", "correct", "correct_share", "fitness", "draws", "distinct", "signal", "noise"),
        *("snr", "snr_low", "snr_high", "auc", "auc_low", "auc_high", "raising"),
        *COST,
    ],
    "attacks": _ATTACKS,
    "hijacks": _ATTACKS,
    "controls": [
        *HEAD,
        *("attack", "threat", "control", "measure", "shuffles", "value", "ci_low", "ci_high", "bound", "passed"),
    ],
    "verdict": [
        *HEAD,
        *(*THREAT, "verdict", "basis", "attack", "against"),
        *("accuracy", "withheld_accuracy", "victim_accuracy"),
        *("ends_with", "ends_with_low", "ends_with_high", "ends_with_attack"),
        *("headroom", "headroom_low", "headroom_high", "margin", "gain", "ci_low", "ci_high", "gain_most"),
        *("told", "told_accuracy", "told_accuracy_low", "told_accuracy_high", "told_most"),
        *("seeds", "seeds_to_decide", "minutes", "cost_over_retraining", "controls", "device", "recommendation"),
    ],
    "frontier": [
        *HEAD,
        *(*THREAT, "point", "trusted_flops_share", "verdict"),
        *("ends_with", "ends_with_low", "ends_with_high", "gain", "ci_low", "ci_high", "gain_most"),
        *("told_accuracy", "told_accuracy_low", "told_accuracy_high", "told_most"),
        *("withheld_accuracy", "victim_accuracy", "seeds"),
    ],
    "defences": [
        *HEAD,
        *("defence", "defence_params", "trusted_flops_share", "trusted_bytes_share", "trusted_seconds_share"),
        *("device_flops_share", "setup_seconds", "latency_ms", "undefended_latency_ms"),
        *("output_error", "fidelity", "device"),
    ],
    "fineness": [
        *HEAD,
        *("width", "blocks", "whole_blocks", "attack", "threat", "images"),
        *("accuracy", "relative_accuracy", "known_places_accuracy"),
        *("position_accuracy", "row_accuracy", "column_accuracy", "own_evidence", "own_evidence_of_chance"),
        *("residual_bits", "bits_whole"),
        *COST,
    ],
    "fineness_threshold": [
        *HEAD,
        *("width", "attack", "threat", "images", "level", "ci_low", "ci_high", "seeds", "smallest", "largest"),
    ],
    "stream": [
        *HEAD,
        *("obfuscation", "params", "topology", "order", "observed_share", "labelled", "requests", "hijack"),
        *("column_ari", "row_ari", "position_accuracy", "accuracy", "known_places_accuracy"),
        *("bandwidth_overhead", "latency_overhead", "anonymity_bits", "seed"),
        *COST,
    ],
    "retraining": [*HEAD, "recipe", "source", "images", "epoch", "minutes", "train_loss", "accuracy", *COST],
    "breakeven": [
        *HEAD,
        *("level", "accuracy", "what", "name", "threat", "params", "runs", "reached", "minutes", "ci_low", "ci_high"),
        *("over_retraining", "over_recipe", "over_pirate", "cheapest", "comparable", "device"),
    ],
    "crossing": [
        *HEAD,
        *("what", "name", "threat", "params", "against", "ahead", "minutes", "accuracy", "level", "device"),
    ],
    "theory": [
        *("study", "victim_seed", "layer", "block_size", "keep", "quantity", "population"),
        *("value", "exact", "monte_carlo", "ci_low", "ci_high", "reported", "source"),
    ],
    "cost": [
        *("stage", "rule", "job", "attempt", "attempt_name", "state", "partition", "node", "gpus", "submit", "queue_s"),
        *("elapsed_s", "allocated_gpu_minutes", "cpu_minutes", "mem_mb", "wasted", "source", *COST),
        *("useful_minutes", "waste", "victim", "attack", "jobs", "job_id", "job_name", "allocated_mem_mb"),
        *("gpu_utilisation", "gpu_energy_kwh", "gpu_measured_minutes", *ENERGY),
    ],
    "cost_summary": ["stage", *_SUMS],
    "cost_groups": ["by", "name", *_SUMS],
    "cost_waste": ["stage", "waste", "attempts", "minutes", "gpu_minutes"],
}
