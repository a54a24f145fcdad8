"""The full audit: the verdict on each layer in a process of its own, as many at a time as there are cores."""

import os
import pickle
import selectors
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from safetensors.torch import save_file
from tqdm import tqdm

from scatterproof.attacks.base import Machine
from scatterproof.auditing.audited import Victim
from scatterproof.auditing.layer_verdict import DATASET, JOB, WEIGHTS, result_of, study_of
from scatterproof.running.files import write_json
from scatterproof.victims.checkpoints import unshared
from scatterproof.victims.data import save_dataset

LIBRARIES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")  # each has threads of its own
READ = 2**16  # bytes of a layer's lines at once


def full_verdicts(
    victim: Victim,
    layers: Sequence[str],
    size: int,
    inputs: int,
    machine: Machine,
    folder: Path,
    shown: Callable[[str], None],
) -> dict[str, pd.DataFrame | str]:
    """Of each layer `tables/verdict.csv`, or the line that says why it has none.

    folder: for the files that the processes read, which are removed again.
    """
    if not layers:
        return {}
    at_once = 1 if machine.device.type == "cuda" else max(1, min(len(layers), machine.threads))
    job = {"victim": victim.config.model_dump(mode="json"), "layers": list(layers), "blocks": size, "inputs": inputs}
    job |= {"device": str(machine.device), "threads": max(1, machine.threads // at_once)}
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix="verdicts-") as temporary:
        save_dataset(victim.dataset, Path(temporary) / DATASET)
        save_file(unshared(victim.model.state_dict()), Path(temporary) / WEIGHTS)
        write_json(Path(temporary) / JOB, job)
        steps = study_of(layers[0], victim.config, victim.dataset, victim.model, job, print).steps
        return Processes(Path(temporary), job, steps, shown).run(at_once)


class Processes:
    """One for each layer; none of them outlives `run`."""

    program: tuple[str, ...] = ("-m", "scatterproof.auditing.layer_verdict")

    def __init__(self, folder: Path, job: dict[str, Any], steps: int, shown: Callable[[str], None]) -> None:
        self.folder, self.layers, self.steps, self.shown = folder, job["layers"], steps, shown
        self.environment = {**os.environ, **dict.fromkeys(LIBRARIES, str(job["threads"]))}
        importable = [path or str(Path.cwd()) for path in sys.path]  # as here, a user's MODULE:FUNCTION too
        self.environment["PYTHONPATH"] = os.pathsep.join(importable)
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.done = dict.fromkeys(range(len(self.layers)), 0)

    def run(self, at_once: int) -> dict[str, pd.DataFrame | str]:
        """All of them, so many at a time."""
        waiting, results = list(range(len(self.layers))), {}
        total = len(self.layers) * self.steps
        with selectors.DefaultSelector() as selector, tqdm(total=total, unit="step", mininterval=5) as progress:
            try:
                while waiting or self.running:
                    while waiting and len(self.running) < at_once:
                        self._start(waiting.pop(0), selector)
                    for key, _ in selector.select():
                        number: int = key.data
                        lines = os.read(key.fd, READ).decode(errors="replace").splitlines()
                        if lines:
                            progress.set_postfix_str(f"{self.layers[number]}: {lines[-1]}", refresh=False)
                        else:
                            selector.unregister(key.fileobj)
                            results[number] = self._ended(number)
                        self._count(number, len(lines) if lines else self.steps - self.done[number], progress)
            finally:
                self._kill()
        return {layer: results[number] for number, layer in enumerate(self.layers)}

    def _start(self, number: int, selector: selectors.BaseSelector) -> None:
        """In a session of its own: Ctrl-C comes to this process alone, which ends the others."""
        command = [sys.executable, *self.program, str(self.folder), str(number)]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=self.environment,
            start_new_session=True,
        )  # fmt: skip
        self.running[number] = process
        assert process.stdout is not None
        selector.register(process.stdout, selectors.EVENT_READ, number)

    def _count(self, number: int, steps: int, progress: "tqdm[Any]") -> None:
        self.done[number] += steps
        progress.update(steps)

    def _ended(self, number: int) -> pd.DataFrame | str:
        """What a layer's process left behind, said in a line too."""
        with self.running[number] as process:
            status = process.wait()
        del self.running[number]
        result: pd.DataFrame | str = (
            pickle.loads(result_of(self.folder, number).read_bytes()) if status == 0 else _why(status)
        )
        said = f"no verdict: {result}" if isinstance(result, str) else result["verdict"].iloc[0]
        self.shown(f"{self.layers[number]}: {said}")
        return result

    def _kill(self) -> None:
        for process in self.running.values():
            with process:
                process.kill()


def _why(status: int) -> str:
    if status < 0:
        return f"its process was ended by signal {-status}" + (", perhaps for want of memory" if status == -9 else "")
    return f"its process ended with status {status}; the error stands above"
