"""Synthetic tables of a realistic study: 5 victim seeds, 2 victims, 3 block sizes; accuracies are fractions."""

from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.statistics import threshold
from scatterproof.config.cost import CostConfig
from scatterproof.cost.energy import reckon
from scatterproof.cost.ledger import build_ledger
from scatterproof.cost.sums import cost_groups, cost_summary, waste_table
from scatterproof.report.sections.controls import marked_tables
from scatterproof.theory import theory_table

SEEDS, BLOCK_SIZES = range(5), (16, 8, 32)
KEEPS = (0.1, 0.25, 0.5, 0.75, 1.0)
CHANCE = 0.1
STEEPNESS = {"none": 2.0, "scale": 6.0, "mean": 5.0}
TOP = {"victim": 0.95, "copy_free": 0.91}
DEVICE = "cpu: AMD EPYC 9654"


def words_of(svg: Path) -> str:
    """A figure's text as one line: a title may be broken into several."""
    return " ".join(" ".join(ElementTree.parse(svg).getroot().itertext()).split())


def marked(name: str, table: pd.DataFrame, controls: pd.DataFrame | None = None) -> pd.DataFrame:
    """A table as the report reads it, with what the controls say of each attack in it."""
    return marked_tables({name: table} | ({} if controls is None else {"controls": controls}))[name]


def _head(victim: str, seed: int, block: int, keep: float) -> dict[str, object]:
    return {
        "study": "made-up",
        "victim_seed": seed,
        "layer": "classifier.0",
        "block_size": block,
        "keep": keep,
        "victim": victim,
    }


def victim_table() -> pd.DataFrame:
    rows = [
        _head(victim, seed, BLOCK_SIZES[0], 1.0)
        | {"model": "vgg16_bn", "width": 0.0625, "input_size": 32 if victim == "victim" else 28}
        | {"parameters": 527_018, "classes": 10, "chance": CHANCE, "accuracy": TOP[victim] + 0.004 * seed}
        | {"loss": 0.2, "epochs": 12, "device": DEVICE, "device_minutes": 0.6 + 0.02 * seed, "gpu_minutes": np.nan}
        for victim, seed in product(TOP, SEEDS)
    ]
    return pd.DataFrame(rows)


def curve_table() -> pd.DataFrame:
    rows = [
        _head(victim, seed, BLOCK_SIZES[0], 1.0)
        | {"epoch": epoch, "minutes": 0.05 * epoch, "train_loss": 2 / epoch}
        | {"accuracy": CHANCE + (TOP[victim] + 0.004 * seed - CHANCE) * (1 - np.exp(-epoch / 3))}
        for victim, seed, epoch in product(TOP, SEEDS, range(1, 13))
    ]
    return pd.DataFrame(rows)


def _timed(accuracy: float) -> dict[str, object]:
    return {"accuracy": accuracy, "loss": 1.0, "device": DEVICE, "device_minutes": 0.001, "gpu_minutes": np.nan}


def prune_table() -> pd.DataFrame:
    rng, rows = np.random.default_rng(1), []
    for victim, seed, block, keep, correction in product(TOP, SEEDS, BLOCK_SIZES, KEEPS, STEEPNESS):
        top = TOP[victim] + 0.004 * seed
        rate = STEEPNESS[correction] * (1.0 if victim == "victim" else 0.7) * (1 + 0.1 * np.log2(block / 16))
        share = (1 - np.exp(-rate * keep)) / (1 - np.exp(-rate))
        for repeat in range(3):
            noise = 0 if keep == 1 else 0.02 * rng.standard_normal() * (1 - keep)
            accuracy = round(CHANCE + (top - CHANCE) * share + noise, 4)
            row = {"scatter": "layer", "correction": correction, "repeat": repeat}
            rows.append(_head(victim, seed, block, keep) | row | _timed(accuracy))
    return pd.DataFrame(rows)


def shuffle_table() -> pd.DataFrame:
    rng, rows = np.random.default_rng(2), []
    for victim, seed, block, keep, moved in product(TOP, SEEDS, BLOCK_SIZES, KEEPS, (0.25, 0.5, 1.0)):
        bias = 0.05 * seed if victim == "victim" else 0.0
        for repeat in range(3):
            right = (1 - moved) * (1 - np.exp(-3 * keep)) * (TOP[victim] - CHANCE)
            accuracy = round(CHANCE + right + moved * 0.2 * bias + 0.01 * rng.standard_normal(), 4)
            row = {"scatter": "layer", "moved": moved, "repeat": repeat}
            rows.append(_head(victim, seed, block, keep) | row | _timed(accuracy))
    return pd.DataFrame(rows)


def records() -> list[dict[str, Any]]:
    """Attempts as `cost.records.read_records` gives them: one FAILED, one LOST."""
    jobs = [("victim", "train_victim", f"{victim}/seed{seed}", 45.0 + seed) for victim, seed in product(TOP, SEEDS)]
    jobs += [(stage, f"evaluate_{stage}", str(part), 9.0) for stage in ("prune", "shuffle") for part in range(4)]
    jobs += [("blocks", "cut_blocks", "victim/seed0", 3.0), ("theory", "write_theory", "all", 6.0)]
    rows = [record(*job) for job in jobs]
    rows[0] |= {"state": "FAILED"}
    rows[1] |= {"state": "LOST", **dict.fromkeys(ENDED)}
    return [*rows, record(*jobs[0], attempt=2), record(*jobs[1], attempt=2)]


ENDED = ("elapsed_s", "useful_s", "startup_s", "cpu_s", "mem_mb", "device_minutes")


def record(stage: str, rule: str, job: str, useful: float, attempt: int = 1, **more: Any) -> dict[str, Any]:
    """One record of a job that ended well after so many useful seconds."""
    found = {
        "state": "COMPLETED",
        "stage": stage,
        "rule": rule,
        "job": job,
        "node": "laptop",
        "started": f"2026-01-01T00:00:0{attempt}.000+00:00",
        "began": 1767225600.0 + attempt,
        "device": DEVICE,
        "attempt": attempt,
        "pid": 7,
        "gpus": 0,
        "process_started": 1.0,
        "elapsed_s": useful + 4,
        "useful_s": useful,
        "startup_s": 4.0,
        "cpu_s": 2 * useful,
        "mem_mb": 512.0,
        "device_minutes": useful / 60,
        **dict.fromkeys(("job_id", "job_name", "partition", "restart", "wildcards", "attacks")),
        **dict.fromkeys(("gpu_utilisation", "gpu_energy_j", "gpu_measured_s")),
    }
    return found | more


def costs(rows: list[dict[str, Any]] | None = None, assumed: CostConfig | None = None) -> list[dict[str, Any]]:
    """The ledger of these records."""
    return reckon(build_ledger(records() if rows is None else rows), assumed or CostConfig())


def cost_tables(retraining: float, rows: list[dict[str, Any]] | None = None) -> dict[str, pd.DataFrame]:
    """The tables that tabulate_costs writes."""
    ledger = costs() if rows is None else rows
    return {
        "cost": pd.DataFrame(ledger, columns=COLUMNS["cost"]),
        "cost_summary": pd.DataFrame(cost_summary(ledger, retraining), columns=COLUMNS["cost_summary"]),
        "cost_groups": pd.DataFrame(cost_groups(ledger, retraining), columns=COLUMNS["cost_groups"]),
        "cost_waste": pd.DataFrame(waste_table(ledger), columns=COLUMNS["cost_waste"]),
    }


def theory() -> pd.DataFrame:
    return theory_table("made-up", [("classifier.0", 16, 16, 98)], [0.1], [10, 20, 50, 100], seed=0)


def basic_tables() -> dict[str, pd.DataFrame]:
    """Those that every study has: victims, P1, S1, theory and costs."""
    victims, prune = victim_table(), prune_table()
    return {
        "victim": victims,
        "curve": curve_table(),
        "prune": prune,
        "shuffle": shuffle_table(),
        "threshold": threshold(prune, victims),
        "theory": theory(),
        **cost_tables(0.64),
    }
