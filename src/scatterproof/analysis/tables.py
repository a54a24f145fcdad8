"""The study's tables from what its jobs wrote; tidy, one row an observation. Imports no torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from scatterproof.analysis.columns import COLUMNS, HEAD
from scatterproof.analysis.older_tables import read_study_table
from scatterproof.config.attacks import NOTHING
from scatterproof.config.settings.ceilings import CEILINGS
from scatterproof.config.threat import ThreatModel
from scatterproof.running.files import read_table, write_csv


def read_tables(paths: Iterable[str]) -> pd.DataFrame:
    """Several tables as one, in the order given."""
    return pd.concat([read_study_table(path) for path in paths], ignore_index=True)


def concatenate(parts: Iterable[str], output: str) -> None:
    """One table from the slices of a grid, in the order given."""
    write_csv(output, read_tables(parts))


def cell_table(name: str, rows: Sequence[dict[str, Any]], about: dict[str, Any], cost: dict[str, Any]) -> pd.DataFrame:
    """The rows of one slice of a grid.

    name: the table's; about: study, victim_seed and victim; cost: device, device_minutes and gpu_minutes of each row.
    """
    return pd.DataFrame(rows).assign(**about, **cost)[COLUMNS[name]]


def search_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], device: str, cuda: bool) -> pd.DataFrame:
    """The rows of one job's searches; device_minutes are those that the search had run when it reached the row."""
    table = pd.DataFrame(rows).assign(**about, device=device)
    table = table.rename(columns={"minutes": "device_minutes"})
    table["gpu_minutes"] = table["device_minutes"] if cuda else None
    table["population"] = table["population"].astype("Int64")
    return table[COLUMNS["search"]]


def attack_table(
    rows: Sequence[dict[str, Any]],
    about: dict[str, Any],
    threat: ThreatModel,
    retraining: dict[str, Any],
    device: str,
) -> pd.DataFrame:
    """The rows of one puzzle's attacks; `withheld_accuracy` is filled in when all seeds' are at hand.

    rows: each with `used`, what of its images the attack makes use of; about: also `frozen`, the scattered layers that
    were never trained; retraining: the victim's training.json; what was
    trained on another device is no peer, and the ratio stays empty.
    """
    table = pd.DataFrame(rows).assign(**about, device=device, params="", seed=0)
    table = table.assign(threat=threat.name, keep=threat.share, images=threat.images, knows=threat.granted)
    table = table.assign(activations=threat.activations, requests=threat.requests, obfuscation="none")
    table = table.assign(defence=threat.defence.name, defence_params=threat.defence.words)
    used = table.pop("used")
    for column, read in {"labelled": "labels", "unlabelled": "none", "queries": "logits"}.items():
        table[column] = threat.images * (used == read)
    table["device_minutes"] = table.pop("minutes")
    table["gpu_minutes"] = table["device_minutes"] if device.startswith("cuda") else None
    trained = retraining["device_minutes"] if retraining["device"] == device else 0
    table["cost_over_retraining"] = table["device_minutes"] / trained if trained else None
    table["withheld_accuracy"] = None
    return table[COLUMNS["attacks"]]


def stream_table(rows: Sequence[dict[str, Any]], about: dict[str, Any], device: str) -> pd.DataFrame:
    """The rows of one victim's tapped services; about: study, victim_seed, layer, block_size and victim."""
    table = pd.DataFrame(rows).assign(**about, device=device)
    table["device_minutes"] = table.pop("minutes")
    table["gpu_minutes"] = table["device_minutes"] if device.startswith("cuda") else None
    return table[COLUMNS["stream"]]


def fineness_table(rows: Sequence[dict[str, Any]], study: str, device: str) -> pd.DataFrame:
    """`tables/fineness.csv`: a row for each victim and block size, with the minutes of the attack."""
    table = pd.DataFrame(rows).assign(study=study, device=device)
    table = table.rename(columns={"minutes": "device_minutes"})
    table["gpu_minutes"] = table["device_minutes"] if device.startswith("cuda") else None
    return table[COLUMNS["fineness"]]


def trajectory_table(search: pd.DataFrame | None, attacks: pd.DataFrame | None) -> pd.DataFrame:
    """What each search and each attack had reached at which cost, the training of nothing but itself included.

    Of an attack that computes, the columns of a search stay empty. Left out are the pirate that does nothing, and the
    ceilings, which nobody can run.
    """
    columns = COLUMNS["trajectory"]
    parts = [] if search is None else [search]
    if attacks is not None:
        parts.append(attacks[~attacks["role"].isin(CEILINGS) & (attacks["attack"] != NOTHING)])
    tables = [part.rename(columns={"device_minutes": "minutes"}).reindex(columns=columns) for part in parts]
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat([part.astype({"population": "Int64", "budget": "Int64"}) for part in tables], ignore_index=True)


def victim_table(study: str, names: Sequence[tuple[str, int]], metrics: Sequence[str]) -> pd.DataFrame:
    """tables/victim.csv from the metrics files of these victims."""
    rows = []
    for (name, seed), path in zip(names, metrics, strict=True):
        row = {"folded": ""} | json.loads(Path(path).read_text())  # victims of older versions have no such key
        del row["grids"]
        head = {key: row.pop(key) for key in ("layer", "block_size")}
        rows.append({"study": study, "victim_seed": seed, **head, "keep": 1.0, "victim": name, **row})
    return pd.DataFrame(rows).reindex(columns=COLUMNS["victim"])  # metrics of before a column came lack it


def curve_table(victims: pd.DataFrame, curves: Sequence[str]) -> pd.DataFrame:
    """tables/curve.csv: accuracy against minutes of training; no rows for a victim that was read from a checkpoint."""
    tables = [
        read_table(path).assign(**{str(key): value for key, value in victim.items()})
        for victim, path in zip(victims[HEAD].to_dict("records"), curves, strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[COLUMNS["curve"]]


def read_grids(metrics: Iterable[str]) -> list[tuple[str, int, int, int]]:
    """The grids that the victims were cut into: layer, block size, rows and columns, each once."""
    grids = [
        (layer, int(size), rows, columns)
        for path in metrics
        for size, layers in json.loads(Path(path).read_text())["grids"].items()
        for layer, (rows, columns) in layers.items()
    ]
    return list(dict.fromkeys(grids))
