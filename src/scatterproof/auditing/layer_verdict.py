"""The verdict on one layer, in a process of its own: `python -m scatterproof.auditing.layer_verdict FOLDER NUMBER`."""

import json
import math
import os
import pickle
import sys
import threading
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scatterproof.attacks.base import Machine
from scatterproof.auditing.in_process import InProcess, Progress, Victims
from scatterproof.config.attacks import AttacksConfig
from scatterproof.config.settings.ceilings import AS_IS
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.running.device import set_up
from scatterproof.running.files import write_bytes
from scatterproof.victims.data import Dataset, load_dataset
from scatterproof.victims.models import load_model

DATASET, WEIGHTS, JOB = "dataset.safetensors", "model.safetensors", "job.json"
DRAWS = 10
SHUFFLES = 10


def study_of(
    layer: str, config: VictimConfig, data: Dataset, model: nn.Module, job: dict[str, Any], done: Progress
) -> InProcess:
    """Ten draws of this layer, controls and told ceiling. job: `blocks`, `inputs`, `device` and `threads`."""
    grid = {"attacks": ["fingerprint"], "images": [job["inputs"]], "knows": ["none"], "ceilings": [AS_IS]}
    attacks = AttacksConfig.model_validate(
        {"grids": [grid], "draws": DRAWS, "control_shuffles": SHUFFLES, "block_size": job["blocks"]}
    )
    alone = config.model_copy(update={"layer": layer, "layers": None})
    victims = Victims(alone, data, [model], [math.nan], layer)
    return InProcess(victims, job["blocks"], attacks, Machine(torch.device(job["device"]), job["threads"]), done)


def result_of(folder: Path, number: int) -> Path:
    """Where a layer's table of verdicts, or the line that says why there is none, is written as a pickle."""
    return folder / f"{number}.pickle"


def main(folder: Path, number: int) -> None:
    """Judge a layer; a line on stdout after each step says what it was.

    The attacks' own lines are not shown: those of several layers would mix.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    steps = sys.stdout
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
        job = json.loads((folder / JOB).read_text())
        device = torch.device(job["device"])
        set_up(device, job["threads"])
        try:
            config, data = VictimConfig.model_validate(job["victim"]), load_dataset(folder / DATASET)
            model = load_model(config, data.classes, folder / WEIGHTS).to(device)

            def done(what: str) -> None:
                steps.write(f"{what}\n")  # a line at once, also where streams have no buffer
                steps.flush()

            result: object = study_of(job["layers"][number], config, data, model, job, done).verdicts()
        except UserError as error:
            result = str(error)
    write_bytes(result_of(folder, number), pickle.dumps(result))


def _end_with_parent() -> None:
    """The parent holds the other end of stdin and never writes: it ends when the parent does, however that ends."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
