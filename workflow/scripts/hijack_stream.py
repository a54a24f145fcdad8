"""Group what the pirate saw of the traffic, and place the blocks that it holds."""

import time
from pathlib import Path

from scatterproof.attacks.base import Machine
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.puzzles import paths
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.config.stream import cells_of_json
from scatterproof.judging.traffic.stream_cells import found_arrays, hijack_cells, load_arrays, save_arrays
from scatterproof.puzzle import Puzzle
from scatterproof.running.job import compute_job

params, inputs = snakemake.params, snakemake.input
with compute_job(snakemake, "stream", params.device, True, ["hijack"]) as job:
    puzzles = {
        held: Puzzle.load(path) for held, path in zip(params.held, paths(inputs.puzzles, params.files), strict=True)
    }
    machine = Machine(job.device, snakemake.threads)
    started = time.monotonic()
    fingerprint = Fingerprint(FingerprintSettings.model_validate_json(params.fingerprint))
    traffic = load_arrays(Path(inputs.traffic))
    hijacked = list(hijack_cells(cells_of_json(params.cells), puzzles, traffic, machine, fingerprint))
    job.meter.attacks["hijack"] = (time.monotonic() - started) / 60
    save_arrays(Path(snakemake.output[0]), found_arrays(hijacked))
