"""Where an attack's curve and a retraining's cross: how far the attack is ahead, and when it is overtaken.

Curves are means over runs of the best accuracy so far on the test images, at the mean minutes of that point. A curve
that has ended stays where it was; before its first epoch a training is at chance. Imports no torch.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from scatterproof.analysis.breakeven import KIND, SOURCES, attack_runs, candidates, training_runs
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.statistics import WITHIN, curve

_PLACE = ["study", "layer", "block_size", "keep", "victim"]


class Crossing(NamedTuple):
    """`never` ahead; ahead `until` it is overtaken at these minutes, being at this accuracy; or ahead `throughout`."""

    ahead: str
    minutes: float = np.nan
    accuracy: float = np.nan


def mean_curves(retraining: pd.DataFrame, trajectory: pd.DataFrame | None) -> pd.DataFrame:
    """The curve of every kind of attack and training: study to victim, KIND, minutes, mean, ci_low, ci_high."""
    runs = pd.concat([training_runs(retraining), _aligned(attack_runs(trajectory))], ignore_index=True)
    runs = runs.rename(columns={"run": "repeat"})
    parts = []
    for key, kind in runs.groupby([*_PLACE, *KIND], sort=True):
        means = curve(kind, [], "step")
        means["minutes"] = means["step"].map(kind.groupby("step")["minutes"].mean())
        parts.append(means.assign(**_named(key)))
    columns = [*_PLACE, *KIND, "minutes", "mean", "ci_low", "ci_high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _named(key: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip([*_PLACE, *KIND], key, strict=True))


def _aligned(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of each kind at the same steps: each carries what it had last to every step that another has."""
    parts = [runs[:0]]
    for _, kind in runs.groupby([*_PLACE, *KIND], sort=True):
        steps = sorted(kind["step"].unique())
        for _, run in kind.groupby(["victim_seed", "run"], sort=True):
            run = run.drop_duplicates("step", keep="last").set_index("step")
            parts.append(run.reindex(steps).ffill().dropna(subset=["name"]).reset_index())
    return pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)


def envelope(curves: pd.DataFrame) -> pd.DataFrame:
    """The best of several curves at each minute of any of them: minutes, mean, ci_low, ci_high, name, params."""
    kinds = [kind.sort_values("minutes") for _, kind in curves.groupby(KIND, sort=True)]
    times = np.unique(curves["minutes"].to_numpy(dtype=np.float64))
    rows = []
    for time in times:
        known = [kind[kind["minutes"] <= time].iloc[-1] for kind in kinds if kind["minutes"].iloc[0] <= time]
        best: Any = max(known, key=lambda row: row["mean"])
        rows.append((time, *(best[column] for column in ("mean", "ci_low", "ci_high", "name", "params"))))
    return pd.DataFrame(rows, columns=["minutes", "mean", "ci_low", "ci_high", "name", "params"])


def crossing(attack: pd.DataFrame, training: pd.DataFrame, floor: float) -> Crossing:
    """How long an attack's mean is above a training's, and above `floor`, which is what counts as chance.

    attack, training: minutes and mean, the means rising.
    """
    times = np.unique(np.concatenate([attack["minutes"], training["minutes"]]).astype(np.float64))
    reached, bar = _at(attack, times, 0.0), np.maximum(_at(training, times, 0.0), floor)
    (ahead,) = np.nonzero(reached > bar)
    if not len(ahead):
        return Crossing("never")
    if ahead[-1] == len(times) - 1:
        return Crossing("throughout")
    return Crossing("until", float(times[ahead[-1] + 1]), float(reached[ahead[-1] + 1]))


def _at(line: pd.DataFrame, times: Any, before: float) -> Any:
    """A step curve's mean at these times."""
    line = line.sort_values("minutes")
    index = np.searchsorted(line["minutes"].to_numpy(dtype=np.float64), times, side="right")
    return np.concatenate([[before], line["mean"].to_numpy(dtype=np.float64)])[index]


def crossing_table(retraining: pd.DataFrame, trajectory: pd.DataFrame | None, victims: pd.DataFrame) -> pd.DataFrame:
    """`tables/crossing.csv`: each kind of attack against each curve of retraining on the same device.

    `ahead`: never, until (then `minutes`, `accuracy` and `level`, its share of the victim's, are where it is
    overtaken) or throughout; empty where no such training ran on that device.
    """
    rows = []
    curves = mean_curves(retraining, trajectory)
    for key, attack in curves[curves["what"] == "attack"].groupby([*_PLACE, *KIND], sort=True):
        about = _named(key)
        own = victims[victims["victim"] == about["victim"]]
        same = curves[(curves["victim"] == about["victim"]) & (curves["device"] == about["device"])]
        for against in SOURCES:
            trainings = candidates(same, against)
            point = Crossing("")
            if len(trainings):
                point = crossing(attack, envelope(trainings), float(own["chance"].mean()) + WITHIN)
            share = point.accuracy / float(own["accuracy"].mean())
            rows.append({**about, "against": against, **point._asdict(), "level": share})
    return pd.DataFrame(rows, columns=COLUMNS["crossing"])
