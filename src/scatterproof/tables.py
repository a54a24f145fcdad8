"""The study's tables from what its jobs wrote; tidy, one row an observation. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from scatterproof.files import write_csv

if TYPE_CHECKING:
    from scatterproof.puzzle import Puzzle

COST_COLUMNS = ["device", "device_minutes", "gpu_minutes"]


def read_table(path: str) -> pd.DataFrame:
    """A table as it was written, floats to the last bit (pandas 3 reads them so by default)."""
    return pd.read_csv(path)


def concatenate(parts: Iterable[str], output: str) -> None:
    """One table from the slices of a grid, in the order given."""
    write_csv(output, pd.concat([read_table(part) for part in parts], ignore_index=True))


def cell_table(
    rows: Sequence[dict[str, Any]], study: str, wildcards: Any, puzzle: "Puzzle", cost: dict[str, Any]
) -> pd.DataFrame:
    """The rows of one slice of a grid, with what they were measured on."""
    table = pd.DataFrame(rows)
    what = {
        "study": study,
        "victim_seed": int(wildcards.seed),
        "layer": "+".join(puzzle.layout.grids),
        "block_size": int(wildcards.size),
        "keep": table.pop("keep"),
        "victim": wildcards.victim,
        "scatter": puzzle.threat.scatter,
    }
    return pd.DataFrame(what).join(table).assign(**cost)


def victim_table(study: str, names: Sequence[tuple[str, int]], metrics: Sequence[str]) -> pd.DataFrame:
    """tables/victim.csv from the metrics files of these victims."""
    rows = []
    for (name, seed), path in zip(names, metrics, strict=True):
        found = json.loads(Path(path).read_text())
        head = {key: found.pop(key) for key in ("layer", "block_size")}
        rows.append({"study": study, "victim_seed": seed, **head, "keep": 1.0, "victim": name, **found})
    return pd.DataFrame(rows)


def curve_table(victims: pd.DataFrame, curves: Sequence[str]) -> pd.DataFrame:
    """tables/curve.csv: accuracy against minutes of training; no rows for a victim that was read from a checkpoint."""
    head = ["study", "victim_seed", "layer", "block_size", "keep", "victim"]
    columns = ["epoch", "minutes", "train_loss", "accuracy"]
    tables = [
        read_table(path).assign(**victim) for victim, path in zip(victims[head].to_dict("records"), curves, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[head + columns]
