"""Score what the searches of one job had reached, on test images."""

from pathlib import Path

from scatterproof.analysis.tables import search_table
from scatterproof.attacks.store import load_found
from scatterproof.config.puzzles import file_of
from scatterproof.config.search import runs_from_json
from scatterproof.judging.search_scores import search_rows
from scatterproof.puzzle import Puzzle
from scatterproof.running.files import write_csv
from scatterproof.running.job import compute_job
from scatterproof.victims.data import load_dataset

params, wildcards, inputs = snakemake.params, snakemake.wildcards, snakemake.input
with compute_job(snakemake, "search", params.device) as job:
    puzzle = Puzzle.load(Path(inputs.puzzles) / file_of(params.block_size, wildcards.threat))
    test = load_dataset(inputs.dataset).test
    runs, reached = runs_from_json(params.runs), load_found(Path(inputs.reached))
    rows = search_rows(puzzle, test, job.device, params.memory_mb, runs, reached)
    about = {
        "study": params.study,
        "victim_seed": int(wildcards.seed),
        "layer": "+".join(puzzle.layout.grids),
        "block_size": puzzle.layout.block_shape[0],
        "victim": wildcards.victim,
        "threat": wildcards.threat,
    }
    write_csv(snakemake.output[0], search_table(rows, about, job.device_name, job.device.type == "cuda"))
