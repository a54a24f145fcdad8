"""Run the workflow as a user does, in a folder of its own, on a study small enough for a test."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path("results/tiny")
TABLES = ["victim", "curve", "prune", "shuffle", "theory", "threshold", "search", "trajectory", "plateau"]
TABLES += [
    "attacks",
    "verdict",
    "controls",
    "defences",
    "frontier",
    "fineness",
    "fineness_threshold",
    "stream",
    "hijacks",
    "retraining",
]
TIMED = ["breakeven", "crossing", "cost", "cost_summary", "cost_groups", "cost_waste"]  # of little but times
FIGURES = ["curve", "prune", "threshold", "shuffle", "theory", "search", "trajectory", "plateau", "attacks", "verdict"]
FIGURES += ["frontier", "retrain", "fineness", "stream", "retraining", "cost"]
TIMES = ["device_minutes", "gpu_minutes", "minutes", "cost_over_retraining", "setup_seconds", "trusted_seconds_share",
         "latency_ms", "undefended_latency_ms"]  # fmt: skip


@dataclass(frozen=True)
class Finished:
    """An uninterrupted run: its folder, what it printed, and how long it took."""

    folder: Path
    output: str
    seconds: float


# Layers of 64 x 392 and, copy-free, 128 x 784: 60 divides none of them
TINY: dict[str, Any] = {
    "study": "tiny",
    "dataset": {"kind": "digits"},
    "victim": {
        "model": "vgg16_bn",
        "width": 1 / 64,
        "dropout": 0.0,
        "seeds": [0, 1],
        "train": {"lr": 0.05, "epochs": 2, "schedule": "onecycle", "augment": "none"},
    },
    "further_victims": {"copy_free": {"input_size": 28, "seeds": [0], "train": {"epochs": 1}}},
    "block_sizes": [16, 60],
    "prune": {"keep": [0.0, 0.3, 1.0], "repeats": 2, "corrections": ["none", "mean"], "images": 8},
    "shuffle": {"keep": [0.5, 1.0], "moved": [1.0], "repeats": 1},
    "theory": {"keep": [0.1], "populations": [10]},
    "search": {
        "victim_seeds": 1,
        "grids": [
            {"attacks": ["genetic", "hill_climbing"], "keep": [0.3, 1.0]},
            {"attacks": ["reinforce"], "fitness": ["loss"]},
        ],
        "reinforce": {"steps": 32, "walks": 4, "minibatch": 16, "epochs": 1},
    },
    "plateau": {"correct": [0.5, 0.9], "images": [4, 8], "draws": 12},
    "retraining": {
        "recipes": {"short": {"epochs": 1}},
        "pirate_images": [8],
        "pirate_recipes": {"longer": {"epochs": 3}},
        "victim_seeds": 1,
        "runs_per_job": 2,
    },
    "attacks": {
        "victim_seeds": 1,
        "control_shuffles": 10,
        "threats_per_job": 2,
        "grids": [
            {"keep": [0.5, 1.0], "images": [0, 8]},
            {"images": [8], "knows": ["labels"], "ceilings": ["told", "told+train", "told+core"]},
            {"images": [8], "defences": ["rescale", {"name": "home", "share": 0.3}]},
        ],
    },
    "fineness": {"block_sizes": [16, 20, 60], "images": 8, "victim_seeds": 1},
    "stream": {
        "victim_seeds": 1,
        "layouts": 2,
        "control_shuffles": 10,
        "images": 8,
        "grids": [
            {"obfuscations": [{}, {"relays": 2, "batch": 8}], "hijacks": ["adaptive"]},
            {"observed": [0.0], "held": [1.0], "hijacks": ["adaptive"]},
        ],
    },
    "run": {"device": "cpu", "cells_per_job": 6},
}
for grid in TINY["search"]["grids"]:
    grid |= {"populations": [8], "images": [8], "seeds": 1, "evaluations": 60}


def command(folder: Path, study: dict[str, Any] | str, *args: str) -> list[str]:
    """The command line for a study, which is written to `tiny.yaml` in the folder; the repository's profile is found
    by its place beside the Snakefile."""
    config = folder / "tiny.yaml"
    config.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False))
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
        *("--configfile", str(config), "--cores", "2", *args),
    ]


def environment(path: Path | None = None) -> dict[str, str]:
    """This environment without a Snakemake profile of the user's, one thread a process, `path` first on PYTHONPATH."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SNAKEMAKE_")}
    found = [str(path)] if path else []
    found += [kept["PYTHONPATH"]] if kept.get("PYTHONPATH") else []
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(found)}


def snakemake(
    folder: Path,
    study: dict[str, Any] | str,
    *args: str,
    path: Path | None = None,
    prefix: Sequence[str] = (),
    **options: Any,
) -> tuple[int, str]:
    """Run to the end: exit status, and everything that the user sees. `prefix` stands before the command."""
    done = subprocess.run(
        [*prefix, *command(folder, study, *args)],
        cwd=folder,
        env=environment(path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        check=False,
        **options,
    )
    return done.returncode, done.stdout


def finish(folder: Path) -> Finished:
    """The tiny study's run in a folder, which is made unless it is there."""
    note = folder / "finished.json"
    if not note.exists():
        started = time.monotonic()
        status, output = snakemake(folder, TINY)
        assert status == 0, output
        note.write_text(json.dumps({"output": output, "seconds": time.monotonic() - started}))
    return Finished(folder, **json.loads(note.read_text()))


def start(folder: Path, study: dict[str, Any], *args: str) -> subprocess.Popen[bytes]:
    """Start in a session of its own; what it prints goes to `out.txt`."""
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            command(folder, study, *args),
            cwd=folder,
            env=environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def scripts(process: subprocess.Popen[bytes]) -> set[str]:
    """The names of the scripts that a running Snakemake has at work."""
    known = {path.stem[:15]: path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}  # as the kernel cuts them
    found = set()
    for child in _family(process):
        with suppress(psutil.Error):
            found.add(known.get(child.name(), ""))
    return found - {""}


def kill(process: subprocess.Popen[bytes], folder: Path) -> set[str]:
    """`kill -9` of a Snakemake's whole group and of all that it started; the scripts that were at work."""
    at_work = scripts(process)
    family = _family(process)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    psutil.wait_procs(family, timeout=30)
    deadline = time.monotonic() + 30
    while left := [other.pid for other in psutil.process_iter() if _works_in(other, folder)]:
        assert time.monotonic() < deadline, f"processes {left} outlived the kill"
        time.sleep(0.05)
    return at_work


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
    except psutil.Error:
        return False


def copy(finished: Path, folder: Path) -> Path:
    """A finished run to change: its results, and what Snakemake knows of them."""
    shutil.copytree(finished / "results", folder / "results")
    shutil.copytree(finished / ".snakemake", folder / ".snakemake")
    return folder


def table(folder: Path, name: str) -> pd.DataFrame:
    """A table as text, so that equal means equal to the last digit."""
    return pd.read_csv(folder / RESULTS / "tables" / f"{name}.csv", dtype=str, keep_default_na=False)


def without_times(folder: Path, name: str) -> pd.DataFrame:
    return table(folder, name).drop(columns=TIMES, errors="ignore")


def jobs(output: str) -> dict[str, int]:
    """Rule -> jobs, from the list that Snakemake prints before it runs; empty if there is nothing to do."""
    _, found, rest = output.partition("Job stats:\n")
    lines = rest.partition("\n\n")[0].splitlines()[2:] if found else []
    return {rule: int(count) for rule, count in (line.split() for line in lines) if rule != "total"}
