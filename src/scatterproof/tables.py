"""The study's tables from what its jobs wrote; tidy, one row an observation. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scatterproof.files import write_csv

HEAD = ["study", "victim_seed", "layer", "block_size", "keep", "victim"]
COST_COLUMNS = ["device", "device_minutes", "gpu_minutes"]


def read_table(path: str) -> pd.DataFrame:
    """A table as it was written, floats to the last bit (pandas reads them so by default from 3.1 on)."""
    return pd.read_csv(path)


def read_tables(paths: Iterable[str]) -> pd.DataFrame:
    """Several tables as one, in the order given."""
    return pd.concat([read_table(path) for path in paths], ignore_index=True)


def concatenate(parts: Iterable[str], output: str) -> None:
    """One table from the slices of a grid, in the order given."""
    write_csv(output, read_tables(parts))


def cell_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], cost: dict[str, Any]) -> pd.DataFrame:
    """The rows of one slice of a grid.

    about: study, victim_seed and victim; cost: device, device_minutes and gpu_minutes of each row.
    """
    table = pd.DataFrame(rows).assign(**about, **cost)
    return table[HEAD + [column for column in table if column not in HEAD + COST_COLUMNS] + COST_COLUMNS]


def search_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], device: str, cuda: bool) -> pd.DataFrame:
    """The rows of one job's searches; device_minutes are those that the search had run when it reached the row."""
    found = pd.DataFrame(rows).assign(**about, device=device)
    found = found.rename(columns={"minutes": "device_minutes"})
    found["gpu_minutes"] = found["device_minutes"] if cuda else None
    found["population"] = found["population"].astype("Int64")
    middle = ["threat", "attack", "fitness", "population", "images", "budget", "seed"]
    middle += ["generation", "evaluations", "best_fitness", "accuracy"]
    return found[HEAD + middle + COST_COLUMNS]


def attack_table(
    rows: Sequence[dict[str, Any]],
    about: dict[str, Any],
    reads: dict[str, str],
    retraining: dict[str, Any],
    device: str,
) -> pd.DataFrame:
    """The rows of one puzzle's attacks.

    reads: what each attack makes use of about its images, whatever the threat grants: none, labels or logits;
    retraining: the victim's training.json; what was trained on another device is no peer, and the ratio stays empty.
    """
    found = pd.DataFrame(rows).assign(**about, device=device, defence="none", params="", evaluations=0)
    used = found["attack"].map(reads)
    for column, read in {"labelled": "labels", "unlabelled": "none", "queries": "logits"}.items():
        found[column] = about["images"] * (used == read)
    found["device_minutes"] = found.pop("minutes")
    found["gpu_minutes"] = found["device_minutes"] if device.startswith("cuda") else None
    trained = retraining["device_minutes"] if retraining["device"] == device else 0
    found["cost_over_retraining"] = found["device_minutes"] / trained if trained else None
    found["seed"] = 0
    columns = [*("attack", "threat", "images", "knows", "params", "defence", "seed", "step", "last")]
    columns += ["accuracy", "withheld_accuracy"]
    columns += ["known_places_accuracy", "relative_accuracy", "fidelity", "position_accuracy", "row_accuracy"]
    columns += ["column_accuracy", "residual_bits", "evaluations", "queries", "labelled", "unlabelled"]
    return found[HEAD + columns + ["cost_over_retraining"] + COST_COLUMNS]


def stream_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], device: str) -> pd.DataFrame:
    """The rows of one victim's tapped services; about: study, victim_seed, layer, block_size and victim."""
    found = pd.DataFrame(rows).assign(**about, device=device)
    found["device_minutes"] = found.pop("minutes")
    found["gpu_minutes"] = found["device_minutes"] if device.startswith("cuda") else None
    return found[HEAD + [column for column in found if column not in HEAD + COST_COLUMNS] + COST_COLUMNS]


def trajectory_table(search: pd.DataFrame) -> pd.DataFrame:
    """What each search had reached at log-spaced costs, the training of nothing but itself included."""
    found = search.rename(columns={"device_minutes": "minutes"})
    columns = [
        "attack",
        "threat",
        "fitness",
        "population",
        "images",
        "budget",
        "seed",
        "minutes",
        "evaluations",
        "accuracy",
    ]
    return found[HEAD + columns + ["device"]]


def victim_table(study: str, names: Sequence[tuple[str, int]], metrics: Sequence[str]) -> pd.DataFrame:
    """tables/victim.csv from the metrics files of these victims."""
    rows = []
    for (name, seed), path in zip(names, metrics, strict=True):
        found = json.loads(Path(path).read_text())
        del found["grids"]
        head = {key: found.pop(key) for key in ("layer", "block_size")}
        rows.append({"study": study, "victim_seed": seed, **head, "keep": 1.0, "victim": name, **found})
    return pd.DataFrame(rows)


def curve_table(victims: pd.DataFrame, curves: Sequence[str]) -> pd.DataFrame:
    """tables/curve.csv: accuracy against minutes of training; no rows for a victim that was read from a checkpoint."""
    columns = ["epoch", "minutes", "train_loss", "accuracy"]
    tables = [
        read_table(path).assign(**{str(key): value for key, value in victim.items()})
        for victim, path in zip(victims[HEAD].to_dict("records"), curves, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[HEAD + columns]


def read_grids(metrics: Iterable[str]) -> list[tuple[str, int, int, int]]:
    """The grids that the victims were cut into: layer, block size, rows and columns, each once."""
    grids = [
        (layer, int(size), rows, columns)
        for path in metrics
        for size, layers in json.loads(Path(path).read_text())["grids"].items()
        for layer, (rows, columns) in layers.items()
    ]
    return list(dict.fromkeys(grids))
