"""Score what the attacks on one puzzle had reached, on test images."""

import json
from pathlib import Path

from scatterproof.attacks import DIRECT
from scatterproof.attacks.scoring import load_found, score_found
from scatterproof.data import load_dataset
from scatterproof.evaluate import PlacementEvaluator
from scatterproof.files import write_csv
from scatterproof.job import compute_job
from scatterproof.models import build_model, load_weights, read_checkpoint
from scatterproof.puzzle import Answer, Puzzle, logits_on
from scatterproof.tables import attack_table

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "attacks", params.device) as job:
    puzzle, answer = Puzzle.load(Path(inputs.puzzle)), Answer.load(Path(inputs.answer))
    dataset = load_dataset(inputs.dataset)
    victim = build_model(puzzle.config, dataset.classes)
    load_weights(victim, read_checkpoint(inputs.model), inputs.model)
    test = dataset.test
    logits = logits_on(victim.to(job.device).eval(), puzzle.config, dataset, test.images)
    evaluator = PlacementEvaluator(puzzle, test.images, test.labels, job.device, logits=logits)
    rows = score_found(evaluator, puzzle, answer, load_found(Path(inputs.found)))
    about = {
        "study": params.study,
        "victim_seed": int(wildcards.seed),
        "layer": "+".join(puzzle.layout.grids),
        "block_size": puzzle.layout.block_shape[0],
        "keep": puzzle.threat.share,
        "victim": wildcards.victim,
        "threat": wildcards.threat,
        "images": puzzle.threat.images,
        "knows": puzzle.threat.knows,
    }
    reads = {name: attack.reads for name, attack in DIRECT.items()}
    retraining = json.loads(Path(inputs.training).read_text())
    write_csv(snakemake.output[0], attack_table(rows, about, reads, retraining, job.device_name))
