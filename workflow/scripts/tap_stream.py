"""Serve a victim's layer by simulated devices, and write down what the pirate sees of it."""

from pathlib import Path

from scatterproof.config.puzzles import paths
from scatterproof.config.stream import cells_of_json
from scatterproof.judging.traffic.stream_cells import save_arrays, tap_cells
from scatterproof.puzzle import Answer
from scatterproof.running.job import compute_job

params, wildcards = snakemake.params, snakemake.wildcards
with compute_job(snakemake, "stream", "cpu"):
    answers = {
        held: Answer.load(path)
        for held, path in zip(params.held, paths(snakemake.input.answers, params.files), strict=True)
    }
    key = (params.seed, wildcards.victim, int(wildcards.seed))
    traffic, truth = tap_cells(cells_of_json(params.cells), answers, key)
    save_arrays(Path(snakemake.output.truth), truth)
    save_arrays(Path(snakemake.output.traffic), traffic)
