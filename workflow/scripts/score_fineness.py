"""Score what was recovered of every victim at every block size, on test images, and find the thresholds."""

from pathlib import Path

from scatterproof.analysis.tables import fineness_table
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.store import load_found
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.judging.fineness import in_folder, row
from scatterproof.judging.judge import Judge
from scatterproof.judging.own_evidence import evidence
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.report.sections.fineness import thresholds
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset
from scatterproof.victims.models import load_model

params, inputs = snakemake.params, snakemake.input
with compute_job(snakemake, "fineness", params.device) as job:
    dataset, rows = load_dataset(inputs.dataset), []
    fingerprint = Fingerprint(FingerprintSettings.model_validate_json(params.fingerprint))
    parts = (inputs.models, inputs.puzzles, inputs.answers, inputs.reached)
    for (name, seed), *paths in zip(params.victims, *parts, strict=True):
        model_path, puzzles, answers, reached_path = map(Path, paths)
        reached, judge = load_found(reached_path), None
        for size, path in in_folder(puzzles).items():
            puzzle, answer = Puzzle.load(path), Answer.load(in_folder(answers)[size])
            if judge is None:
                victim = load_model(puzzle.config, dataset.classes, model_path)
                judge = Judge(puzzle, answer, victim, dataset, job.device)
            judge = judge.of(puzzle, answer)
            measured = row(judge, reached[path.parent.name]) | evidence(judge, fingerprint, (params.seed, name, seed))
            rows.append({"victim": name, "victim_seed": seed, **measured})
    table = fineness_table(rows, params.study, job.device_name)
    write_csv(snakemake.output.fineness, table)
    write_csv(snakemake.output.threshold, thresholds(table))
