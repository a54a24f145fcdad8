"""Numbers as text and the sentences of the report, all computed from the tables."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from scatterproof.report.statistics import WITHIN, curve, half_is_chance

CORRECTIONS = {
    "none": "missing blocks left empty",
    "scale": "rescaled by the share held",
    "mean": "mean of missing blocks added",
}
HEADLINE_SHARE = 0.25
BETTER = 0.001  # a gain in accuracy that shows in percent with one decimal

_IMPLIED = "retraining_gpu_hours_implied_by_27x"


def number(value: Any, digits: int = 4) -> str:
    """A number with so many digits, thousands apart; whole numbers in full; empty if unknown."""
    if pd.isna(value):
        return ""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    if abs(value) >= 1e-3:
        return f"{value:,.{digits}g}"
    digits_part, exponent = f"{value:.{digits - 1}e}".split("e")
    return f"{digits_part}e{int(exponent)}"


def minutes(value: Any) -> str:
    """Minutes with three digits; empty if unknown."""
    return "" if pd.isna(value) else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def percent(share: Any) -> str:
    """A share as `39.1 %`; empty if unknown."""
    return "" if pd.isna(share) else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares in points of percent, with its sign."""
    return f"{100 * share:+.1f}"


def interval(value: float, low: float, high: float, text: Callable[[float], str] = number) -> str:
    """`value [low, high]`; without the brackets where there is no interval, empty if unknown."""
    if pd.isna(value):
        return ""
    return text(value) if pd.isna(low) else f"{text(value)} [{text(low)}, {text(high)}]"


def percent_interval(row: Any, column: str) -> str:
    """`39.1 % [37.0, 41.2]` of a row with ci_low and ci_high; empty without a row."""
    if row is None:
        return ""
    bounds = "" if pd.isna(row.ci_low) else f" [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    return percent(getattr(row, column)) + bounds


def threshold_text(row: Any, least: float, most: float, chance: bool = False) -> str:
    """A threshold with its interval; `at most` the least share measured, `> ` the most if it was not reached.

    `chance`: there is none, as half of the accuracy is no more than chance.
    """
    if chance:
        return "none: half of the accuracy is no more than chance"
    if pd.isna(row.keep):
        return f"> {100 * most:g} %, not reached"
    if row.keep <= least:
        return f"at most {100 * least:g} %"
    if pd.isna(row.ci_low):
        return percent(row.keep)
    low = f"≤ {100 * least:g}" if row.ci_low <= least else f"{100 * row.ci_low:.1f}"
    high = f"> {100 * most:g}" if pd.isna(row.ci_high) else f"{100 * row.ci_high:.1f}"
    return f"{percent(row.keep)} [{low}, {high}]"


def victim_label(victim: str) -> str:
    """A victim's name in words: `copy_free` reads `copy free`."""
    return victim.replace("_", " ")


def names(frame: pd.DataFrame) -> list[str]:
    """The victims of a table: `victim` first, then the controls by name."""
    return sorted({str(name) for name in frame["victim"]}, key=lambda name: (name != "victim", name))


def in_order(frame: pd.DataFrame, block_size: int) -> pd.DataFrame:
    """The rows with `victim` before the controls and the main block size before the others, else as they were."""
    ranks = frame.assign(control=frame["victim"] != "victim", other=frame["block_size"] != block_size)
    return frame.loc[ranks.sort_values(["control", "victim", "other", "block_size"], kind="stable").index]


def headline(tables: Mapping[str, pd.DataFrame], block_size: int) -> list[str]:
    """A sentence for each victim: part of the blocks in known places against the same part in random places.

    Without draws of all held blocks displaced, the largest share displaced stands in, and is named.
    """
    prune, shuffle, victims = tables["prune"], tables["shuffle"], tables["victim"]
    prune, shuffle = prune[prune["block_size"] == block_size], shuffle[shuffle["block_size"] == block_size]
    moved = shuffle["moved"].max()
    shuffle = shuffle[shuffle["moved"] == moved]
    shares = sorted(set(prune["keep"]) & set(shuffle["keep"]), key=lambda keep: abs(keep - HEADLINE_SHARE))
    return [_sentence(name, shares[0], moved, prune, shuffle, victims) for name in names(prune) if shares]


def _sentence(
    name: str, keep: float, moved: float, prune: pd.DataFrame, shuffle: pd.DataFrame, victims: pd.DataFrame
) -> str:
    known = prune[(prune["victim"] == name) & (prune["keep"] == keep)]
    means = curve(known, ["correction"]).set_index("correction")["mean"]
    unknown = curve(shuffle[(shuffle["victim"] == name) & (shuffle["keep"] == keep)], ["victim"])["mean"]
    own = victims[victims["victim"] == name]
    whose = "the victim" if name == "victim" else f"the control '{victim_label(name)}'"
    first = "none" if "none" in means.index else str(means.index[0])
    text = f"Holding {100 * keep:g} % of the blocks of {whose} in known places gives {percent(means[first])} accuracy"
    best = str(means.idxmax())
    if means[best] - means[first] >= BETTER:
        text += f" ({percent(means[best])} with the missing blocks made up for)"
    text += f" of its {percent(own['accuracy'].mean())}"
    if len(unknown):
        places = "in random places" if np.isclose(moved, 1) else f"({100 * moved:g} % of them displaced)"
        text += f"; the same number of blocks {places} gives {percent(unknown.iloc[0])}"
    return f"{text}. Chance is {percent(own['chance'].mean())}."


def thresholds(tables: Mapping[str, pd.DataFrame], block_size: int) -> list[str]:
    """A sentence for each victim: the kept share at half of its accuracy, or that half of it is chance."""
    rows, keeps = tables["threshold"], tables["prune"]["keep"]
    rows = rows[rows["block_size"] == block_size]
    sentences = []
    for name in names(rows):
        if half_is_chance(tables["victim"], name):
            sentences.append(f"{victim_label(name)}: half of its accuracy is no more than chance: no threshold.")
            continue
        own: Any = rows[rows["victim"] == name].itertuples()
        parts = [
            f"{threshold_text(row, keeps.min(), keeps.max())} ({CORRECTIONS.get(row.correction, row.correction)})"
            for row in own
        ]
        sentences.append(f"{victim_label(name)}: half of its accuracy is reached with {'; '.join(parts)}.")
    return sentences


def epochs(victims: pd.DataFrame) -> str:
    """A warning where the victims were not all trained for the same number of epochs, else empty."""
    counts = victims.groupby("victim")["epochs"].agg(lambda own: ", ".join(map(number, sorted(own.dropna().unique()))))
    if counts.nunique() < 2:
        return ""
    each = "; ".join(f"{victim_label(name)}: {counts[name] or 'unknown'}" for name in names(victims))
    return (
        f"The victims were trained for different numbers of epochs ({each}). The comparison between them is "
        "confounded by that: a difference may come from the training."
    )


def excess(table: pd.DataFrame, spread: float) -> str:
    """Which victims are more than two points off chance when all blocks are displaced, and whether draws explain it.

    spread: the standard deviation of single draws, as `draw_spread` gives it.
    """
    if table.empty:
        return "Excess over chance was not measured: no draw holds every block and displaces every one."
    parts = [
        "No draw was repeated, so how far single draws scatter is unknown."
        if pd.isna(spread)
        else f"Single draws scatter with a standard deviation of {100 * spread:.1f} points around the mean of their "
        "victim, seed and block size; means of n draws with that over the square root of n."
    ]
    off = table[~table["within"]]
    if off.empty:
        parts.append("Every victim is within two points of chance: with all places lost, nothing is left.")
    noise, unknown = (off["ci_low"] <= 0) & (off["ci_high"] >= 0), off["ci_low"].isna()
    if unknown.any():
        parts.append(
            f"More than {100 * WITHIN:g} points off in a single draw, without interval: {_which(off[unknown])}."
        )
    if noise.any():
        parts.append(f"More than {100 * WITHIN:g} points off, with an interval that holds 0: {_which(off[noise])}.")
    clear = off[~noise & ~unknown]
    if len(clear):
        intervals = int(table["ci_low"].notna().sum())
        parts.append(
            f"More than {100 * WITHIN:g} points off, with an interval that leaves 0 out: {_which(clear)}. Among "
            f"{intervals} intervals of 95 % about {max(1, round(0.05 * intervals))} do so by luck; percentile "
            "intervals of few draws are somewhat narrow besides. If it persists with more repeats, blocks displaced "
            "within their own row still feed the features they were trained for: in a grid of few rows that is "
            "likely. No place was found: no search was made."
        )
    return " ".join(parts)


def _which(off: pd.DataFrame) -> str:
    rows: Any = off.itertuples()
    return ", ".join(
        f"{victim_label(row.victim)} {'pooled' if row.victim_seed == 'all' else f'seed {row.victim_seed}'}"
        f" at blocks of {row.block_size} ({points(row.excess)})"
        for row in rows
    )


def theory(table: pd.DataFrame, block_size: int) -> list[str]:
    """The talk's expected clues explained: its formula against drawing without replacement."""
    clues = table[(table["quantity"] == "expected_clues") & table["reported"].notna()]
    if clues.empty:
        return [
            "The talk's figure is for a 16 x 98 grid, 10 % of the blocks held and a population of 100; this study has "
            "no such row. The formula treats blocks as independent, the exact value draws them without replacement."
        ]
    row: Any = next(clues.sort_values("block_size", key=lambda sizes: sizes != block_size).itertuples())
    here = [table[column] == getattr(row, column) for column in ("layer", "block_size", "keep", "population")]
    floor = table[(table["quantity"] == "expected_clues_floor") & np.logical_and.reduce(here)]
    exact = number(row.exact, 3)
    if len(floor):
        exact += f" (or {number(floor['exact'].iloc[0], 3)} if the count of blocks is rounded down)"
    inside = row.ci_low <= row.exact <= row.ci_high
    excluded = not row.ci_low <= row.value <= row.ci_high
    return [
        f"The talk reports {number(row.reported, 3)} expected clues in a population of {row.population:g}, with "
        f"{100 * row.keep:g} % of the blocks held; its formula gives {number(row.value)}. The formula treats the "
        f"blocks as independent. Two blocks never share a place: drawn without replacement, the exact value is "
        f"{exact}.",
        f"The Monte Carlo, which knows neither formula, gives {number(row.monte_carlo, 3)} "
        f"[{number(row.ci_low, 3)}, {number(row.ci_high, 3)}]: its 95 % interval {'contains' if inside else 'misses'} "
        f"the exact value and {'excludes' if excluded else 'contains'} the talk's.",
    ]


def cost(summary: pd.DataFrame, theory_rows: pd.DataFrame, retraining: float) -> list[str]:
    """What the study cost against training one victim, and the talk's '27x' recomputed."""
    total = summary[summary["stage"] == "total"].iloc[0]
    used = f"The study used {minutes(total['device_minutes'])} useful device-minutes"
    if retraining > 0:
        used += (
            f"; training one victim takes {minutes(retraining)}, so that is {number(total['over_retraining'], 3)} times"
        )
    sentences = [f"{used}. A device-minute is a minute of the device named, of all the threads a job was given."]
    if pd.isna(total["gpu_minutes"]) and not total["allocated_gpu_minutes"] > 0:
        sentences.append("No GPU was used: every minute here is a CPU's, and none of them is a GPU-minute.")
    sentences.append("CPU-minutes count each core for itself, in the main process and its children.")
    return [*sentences, *_talk_cost(theory_rows)]


def _talk_cost(theory_rows: pd.DataFrame) -> list[str]:
    rows: Any = theory_rows.drop_duplicates("quantity").set_index("quantity")[["value", "reported"]].to_dict("index")
    if "cost_over_retraining" not in rows:
        return []
    attack, hours = rows["attack_gpu_minutes"]["value"], rows["retraining_gpu_hours"]["value"]
    ratio, claimed = rows["cost_over_retraining"]["value"], rows["cost_over_retraining"]["reported"]
    return [
        f"The talk: its genetic search of {rows['evaluations']['value']:,.0f} evaluations took {attack:,.0f} "
        f"GPU-minutes on an RTX 4060, reported as {claimed:g}x the {hours:g} GPU-hours of training. "
        f"{attack:,.0f} minutes are {ratio:.1f}x of {hours:g} h; {claimed:g}x would mean "
        f"{rows[_IMPLIED]['value']:.2f} h of training."
    ]


def plateau(table: pd.DataFrame) -> list[str]:
    """For each victim and fitness: between which shares of blocks right a search can climb, on the most images."""
    found = []
    for (victim, fitness), rows in table.groupby(["victim", "fitness"], sort=True):
        most = rows[rows["images"] == rows["images"].max()]
        means = most.groupby("correct_share")[["auc", "auc_low", "snr"]].mean()
        told = means[means["auc_low"] > 0.5]
        noise = (
            "" if means["snr"].isna().all() else f" The signal is at most {number(means['snr'].max(), 2)} of the noise."
        )
        top: Any = means["auc"].idxmax()
        name = {"accuracy": "accuracy", "loss": "cross-entropy"}[str(fitness)]
        where = (
            "at no share of blocks right measured"
            if told.empty
            else f"at {len(told)} of {len(means)} shares of blocks right ("
            f"{', '.join(f'{100 * share:.3g} %' for share in told.index)})"
        )
        found.append(
            f"{victim_label(str(victim))}, {name} on {number(most['images'].iloc[0])} images: a right exchange beats a "
            f"wrong one more often than a coin would {where}; most clearly with {100 * top:.3g} % right, "
            f"{100 * means['auc'].max():.0f} times in 100.{noise}"
        )
    return found
