"""What training from nothing costs, and the minutes that it and every attack take to each level. Imports no torch.

A run *reaches* a level where its accuracy on the test images is, for the first time, that share of its victim's. A
kind's minutes are expected ones: all minutes that its runs spent until they reached the level or ended, over the number
of runs that reached it (expected running time: Auger & Hansen, CEC 2005, pp. 1777-1784). Where every run reaches the
level, that is the mean; where one does not, its whole cost counts, as it would for a pirate that tries again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import safe_open

from scatterproof.analysis.columns import COLUMNS, HEAD
from scatterproof.analysis.statistics import bootstrap_means, kinds, percentile_interval
from scatterproof.config.attacks import NEEDS
from scatterproof.config.retraining import OWN

LEVELS = (0.25, 0.5, 0.75, 0.9, 0.95)
SOURCES = {
    "own": "the victim's own recipe",
    "recipe": "the cheapest recipe tried",
    "pirate": "the pirate's {} alone",  # what a study's inputs are called
}
OVER = {"own": "over_retraining", "recipe": "over_recipe", "pirate": "over_pirate"}

KIND = ["what", "name", "threat", "params", "device"]

_ROUNDING = 1e-9  # three quarters of 0.8 are a little more than 0.6 in floating point


def victim_images(dataset: str) -> int:
    """How many images the victims are trained on, from the dataset's file."""
    with safe_open(dataset, framework="numpy") as file:
        return int(file.get_slice("victim_labels").get_shape()[0])


def retraining_table(
    victims: pd.DataFrame, curves: pd.DataFrame, parts: Sequence[pd.DataFrame], images: int
) -> pd.DataFrame:
    """`tables/retraining.csv`: an epoch a row, of the victims' own training and of every other from nothing.

    `minutes` are of training so far; `device_minutes` those of the epoch alone, so that their sum is what was spent.
    victims, curves: `tables/victim.csv` and `curve.csv`; parts: what the trainings' jobs wrote; images: the victims'.
    """
    about = victims.set_index(["victim", "victim_seed"])[["study", "layer", "block_size", "device"]]
    own = curves.join(about["device"], on=["victim", "victim_seed"]).assign(recipe=OWN, source="own", images=images)
    table = pd.concat([own.drop(columns=["study", "layer", "block_size"]), *parts], ignore_index=True)
    table = table.join(about[["study", "layer", "block_size"]], on=["victim", "victim_seed"])
    run = ["victim", "victim_seed", "source", "recipe", "images"]
    table["device_minutes"] = table["minutes"] - table.groupby(run)["minutes"].shift(fill_value=0.0)
    table["gpu_minutes"] = table["device_minutes"].where(table["device"].astype(str).str.startswith("cuda"))
    return table.assign(keep=0.0)[COLUMNS["retraining"]]


def breakeven_table(retraining: pd.DataFrame, trajectory: pd.DataFrame | None, victims: pd.DataFrame) -> pd.DataFrame:
    """`tables/breakeven.csv`: for each kind of attack and of training, the expected minutes to each level.

    The three `over_` columns are minutes over those of the victim's own recipe, of the cheapest recipe tried (the own
    among them), and of the cheapest training on the pirate's images alone, to the same level on the same device;
    without such a one they are empty, and where no training ran on a row's device at all, `comparable` is false.
    Empty `minutes`: no run reached it. Empty `ci_high`: the interval is open, as resamples reach it in no run.
    Levels that are no more than chance are left out.
    """
    runs = pd.concat([training_runs(retraining), attack_runs(trajectory)], ignore_index=True)
    rows = [row for _, own in runs.groupby("victim", sort=True) for row in _levels(own, victims)]
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS["breakeven"] if c not in OVER.values()])
    return _against(table)[COLUMNS["breakeven"]]


def training_runs(retraining: pd.DataFrame) -> pd.DataFrame:
    """Every point of every training: HEAD, KIND, run, minutes, accuracy (the best so far)."""
    runs = retraining.assign(
        what=retraining["source"],
        name=retraining["recipe"],
        threat="",
        params=[f"images={images}" for images in retraining["images"]],
        run=0,
    )
    return _best_so_far(runs, "epoch")


def attack_runs(trajectory: pd.DataFrame | None) -> pd.DataFrame:
    """Every point of every attack on the blocks, likewise; where it evaluates no placements, its steps are counted."""
    withheld = [name for name in NEEDS if NEEDS[name].role == "withheld"]
    if trajectory is None or trajectory["attack"].isin(withheld).all():
        return pd.DataFrame(columns=[*HEAD, *KIND, "run", "step", "minutes", "accuracy"])
    runs = kinds(trajectory[~trajectory["attack"].isin(withheld)])
    runs["fitness"] = runs["fitness"].fillna("")
    apart = runs["budget"].isna().rename("apart")  # of a search's rows those of `attacks` are another run's
    steps = runs.groupby([*HEAD, "attack", "threat", "seed", "device", apart]).cumcount()
    runs["evaluations"] = runs["evaluations"].where(runs["budget"].notna(), steps)
    keys = ["fitness", "population", "images", "budget"]
    params = [
        " ".join(
            f"{key}={value}" for key, value in zip(keys, values, strict=True) if not pd.isna(value) and value != ""
        )
        for values in runs[keys].itertuples(index=False)
    ]
    runs = runs.assign(what="attack", name=runs["attack"], params=params, run=runs["seed"])
    return _best_so_far(runs, "evaluations")


def _best_so_far(points: pd.DataFrame, step: str) -> pd.DataFrame:
    """A run's accuracy becomes the best that it has had: what it has reached, it has reached."""
    points = points.rename(columns={step: "step"}).sort_values([*HEAD, *KIND, "run", "step"], kind="stable")
    points["accuracy"] = points.groupby([*HEAD, *KIND, "run"])["accuracy"].cummax()
    return points[[*HEAD, *KIND, "run", "step", "minutes", "accuracy"]]


def _levels(runs: pd.DataFrame, victims: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The rows of one victim, without the ratios."""
    victim = runs["victim"].iloc[0]
    own = victims[victims["victim"] == victim].groupby("victim_seed")[["accuracy", "chance"]].first()
    keep = ["study", "layer", "block_size", "keep", "victim"]
    for level in LEVELS:
        if level * own["accuracy"].mean() <= own["chance"].mean():
            continue
        for key, kind in runs.groupby([*keep, *KIND], sort=True):
            passed = passages(kind, (level * own["accuracy"]).to_dict())
            minutes, low, high = expected_minutes(passed)
            yield {
                **dict(zip([*keep, *KIND], key, strict=True)),
                "level": level,
                "accuracy": level * float(own["accuracy"].mean()),
                "runs": len(passed),
                "reached": int(passed["reached"].sum()),
                "minutes": minutes,
                "ci_low": low,
                "ci_high": high,
            }


def passages(kind: pd.DataFrame, levels: Mapping[Any, float]) -> pd.DataFrame:
    """For each run of a kind: whether it reached its victim seed's level, and the minutes until it did or ended."""
    rows = []
    for (seed, _), run in kind.groupby(["victim_seed", "run"], sort=True):
        reached = run["accuracy"] >= levels[seed] - _ROUNDING
        end = run["minutes"].max()
        rows.append((seed, bool(reached.any()), run["minutes"][reached].min() if reached.any() else end))
    return pd.DataFrame(rows, columns=["victim_seed", "reached", "spent"])


def expected_minutes(passed: pd.DataFrame) -> tuple[float, float, float]:
    """Expected minutes and their 95 % interval: minutes spent over runs that reached the level; NaN where none did.

    By hierarchical bootstrap over victim seeds and runs; infinite ends are NaN, a single run has no interval.
    """
    if not passed["reached"].any():
        return np.nan, np.nan, np.nan
    by_seed = [rows for _, rows in passed.groupby("victim_seed", sort=True)]
    values = np.full((2, len(by_seed), max(len(rows) for rows in by_seed)), np.nan)
    for seed, rows in enumerate(by_seed):
        values[:, seed, : len(rows)] = rows[["spent", "reached"]].to_numpy(dtype=np.float64).T
    spent, share = np.nanmean(values, axis=2).mean(axis=1)
    if len(passed) == 1:
        return float(spent / share), np.nan, np.nan
    low, high = percentile_interval(_ratios(bootstrap_means(values)))
    return float(spent / share), low, high if np.isfinite(high) else np.nan


def _ratios(drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    spent, share = drawn.T
    return np.where(share > 0, spent / np.where(share > 0, share, 1.0), np.inf)


def _against(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the ratios, which training of each curve is the cheapest, and whether there is one to compare."""
    table = table.assign(cheapest=False, comparable=False, **dict.fromkeys(OVER.values(), np.nan))
    for _, rows in table.groupby(["victim", "device"], sort=False):  # a training knows nothing of layers and blocks
        table.loc[rows.index, "comparable"] = bool((rows["what"] != "attack").any())
        for _, at in rows.groupby("level"):
            for curve, column in OVER.items():
                least = candidates(at, curve)["minutes"].min()
                table.loc[at.index, column] = at["minutes"] / least
                if curve != "own" and not np.isnan(least):
                    table.loc[candidates(at, curve)["minutes"].idxmin(), "cheapest"] = True
    return table


def candidates(rows: pd.DataFrame, curve: str) -> pd.DataFrame:
    """The trainings that make a curve: the own recipe; it and all others; those on the pirate's images."""
    return rows[rows["what"].isin(["own", "recipe"] if curve == "recipe" else [curve])]
