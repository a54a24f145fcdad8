"""F: what is recovered against the size of the blocks, from tables/fineness.csv: threshold, table, words, figure."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.control_results import marked
from scatterproof.analysis.statistics import bootstrap_means, crossing, curve, percentile_interval
from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.config.threat import granted_knowledge
from scatterproof.report.figures.base import COLOURS, GREY, MARKERS, finish, panels, reference_lines, whole_numbers
from scatterproof.report.input_words import accuracy_label
from scatterproof.report.table import DEFENCE, Table
from scatterproof.report.threat_words import defence_words, defended, grants
from scatterproof.report.words import (
    attack_label,
    held,
    interval,
    minutes,
    number,
    percent,
    percent_interval,
    seeds,
    setting,
    side,
    victim_label,
)

LEVELS = (0.5, 0.95)  # of the victim's accuracy
CURVE = ["study", "victim", "layer", "width", "attack", KEY]
ABOUT = ["study", "victim", "layer", "width", "attack", "threat", "images", "keep"]
TABLE_HEAD = ("victim", "width", "attack", "block size", "blocks held", DEFENCE, "the pirate has", "blocks",
              "accuracy", "of the victim's accuracy", "placed rightly", "placed from the truth", "by chance",
              "residual bits a block", "bits, nothing known", "seconds", "victim seeds")  # fmt: skip
THRESHOLD_HEAD = ("victim", "width", "attack", "blocks held", DEFENCE, "the pirate has", "of the victim's accuracy",
                  "block size needed", "sizes measured", "victim seeds")  # fmt: skip
MAIN = ("attack", "accuracy", "placed rightly", "placed from the truth", "by chance")
THRESHOLD_MAIN = ("attack", "the pirate has", "of the victim's accuracy", "block size needed", "sizes measured")
EVIDENCE = ("own_evidence", "own_evidence_of_chance")
_PLACES = "Blocks in their places: by the attack, and by its evidence from the truth"
_BITS = "Bits that the truth is away"


def thresholds(fineness: pd.DataFrame) -> pd.DataFrame:
    """`tables/fineness_threshold.csv`: the block size from which `level` of the victim's accuracy is recovered.

    By the mean over victim seeds of accuracy over the victim's own, interpolated over log2 of the size; the interval
    resamples seeds, one seed has none. Empty `block_size`: not reached at the largest size measured, whose upper end
    likewise; equal to the smallest measured: there or below.
    """
    rows = []
    for _, group in with_key(fineness).groupby(CURVE, sort=True):
        about = group.iloc[0][ABOUT].to_dict()
        wide = group.pivot_table(index="block_size", columns="victim_seed", values="relative_accuracy").dropna(axis=1)
        sizes = np.log2(wide.index.to_numpy(dtype=np.float64))
        values = wide.to_numpy(dtype=np.float64)
        drawn = bootstrap_means(values[:, :, None]) if values.shape[1] > 1 else None
        for level in LEVELS:
            low, high = np.nan, np.nan
            if drawn is not None:
                low, high = percentile_interval(2 ** crossing(sizes, drawn, level))
            at = float(2 ** crossing(sizes, values.mean(axis=1)[None], level)[0])
            threshold = {"victim_seed": np.nan, "block_size": at, "level": level, "ci_low": low, "ci_high": high}
            measured = {"seeds": values.shape[1], "smallest": wide.index.min(), "largest": wide.index.max()}
            rows.append(about | threshold | measured)
    return pd.DataFrame(rows, columns=COLUMNS["fineness_threshold"]).replace(np.inf, np.nan)


def _per_block(fineness: pd.DataFrame) -> pd.DataFrame:
    """With what is left and what there was at first in bits a whole block, as `residual_bits` counts them."""
    return fineness.assign(
        left=fineness["residual_bits"] / fineness["whole_blocks"], nothing=np.log2(fineness["whole_blocks"])
    )


def table_rows(fineness: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each victim, threat and block size: means over victim seeds [95 % interval]."""
    by = ["victim", KEY, "width", "attack", "control", "threat", "images", "keep"]
    each = with_key(_per_block(fineness))
    sizes: Any = each.groupby(["victim", KEY, "block_size"])[["blocks", "nothing"]].first().to_dict("index")
    values = ("accuracy", "relative_accuracy", "position_accuracy", *EVIDENCE, "left", "device_minutes")
    by_value: dict[str, list[Any]] = {
        value: list(curve(each, by, "block_size", value).itertuples(index=False)) for value in values
    }
    rows = []
    for index, about in enumerate(by_value["accuracy"]):
        shares = (percent_interval(by_value[value][index], "mean") for value in values[:5])
        left, size = by_value["left"][index], sizes[about.victim, about.threat_key, about.block_size]
        rows.append(
            (
                *(victim_label(about.victim), number(about.width), attack_label(about)),
                *(side(about.block_size), *_threat(about), number(size["blocks"]), *shares),
                *(interval(left.mean, left.ci_low, left.ci_high, _bits), _bits(size["nothing"])),
                *(minutes(60 * by_value["device_minutes"][index].mean), str(about.seeds)),
            )
        )
    return rows


def _threat(row: Any) -> tuple[str, str, str]:
    """The cells that say what the blocks were held under; row: of either table on fineness."""
    return held(row.threat, row.keep), defence_words(row.threat), _grants(row)


def _grants(row: Any) -> str:
    return grants(row.images, granted_knowledge(row.threat), row.threat)


def _bits(value: float) -> str:
    return f"{value:.2f}"


def threshold_rows(table: pd.DataFrame, states: Mapping[tuple[str, str, str], str]) -> list[tuple[str, ...]]:
    """A row for each victim, threat and level; states: what the controls of (victim, threat, attack) say."""
    rows: Iterable[Any] = undefended_first(table).itertuples(index=False)
    return [
        (
            *(victim_label(row.victim), number(row.width)),
            *(marked(row.attack, states[row.victim, row.threat, row.attack]), *_threat(row)),
            *(f"{100 * row.level:g} %", _size_needed(row)),
            *(f"{row.smallest:g} to {row.largest:g}", str(row.seeds)),
        )
        for row in rows
    ]


def _size_needed(row: Any) -> str:
    """`23.1 [21.4, 25.0]`; where the curve starts above the level, or never gets there, it says so."""
    if pd.isna(row.block_size):
        return f"not reached at {row.largest:g}"
    if row.block_size <= row.smallest:
        return f"{row.smallest:g} or below"
    open_ended = row.seeds > 1 and pd.isna(row.ci_high)
    high = f"above {row.largest:g}" if open_ended else f"{row.ci_high:.3g}"
    around = "" if pd.isna(row.ci_low) else f" [{row.ci_low:.3g}, {high}]"
    return f"{row.block_size:.3g}{around}"


def section(fineness: pd.DataFrame | None, controls: pd.DataFrame) -> dict[str, Any]:
    """What the page's part on fineness shows; nothing where the study has none."""
    if fineness is None:
        return {"fineness": None, "fineness_words": []}
    recovered = "What the fingerprint recovers, by the size of the blocks [95 % interval over victims]"
    level = "Threshold: side of the blocks from which so much of the victim's accuracy is recovered"
    states = {(str(row.victim), str(row.threat), str(row.attack)): str(row.control) for row in fineness.itertuples()}
    return {
        "fineness": Table(recovered, TABLE_HEAD, table_rows(fineness)).shown(*MAIN, file="fineness"),
        "fineness_words": [*sentences(fineness), *_controlled_at(fineness, controls)],
        "fineness_threshold": Table(level, THRESHOLD_HEAD, threshold_rows(thresholds(fineness), states)).shown(
            *THRESHOLD_MAIN, file="fineness_threshold"
        ),
    }


def _controlled_at(fineness: pd.DataFrame, controls: pd.DataFrame) -> list[str]:
    """At which sizes the controls ran, where these are not all that are shown."""
    own = controls[controls["attack"].isin(set(fineness["attack"])) & controls["victim"].isin(set(fineness["victim"]))]
    sizes = sorted({int(size) for size in own["block_size"]})
    if not sizes or set(fineness["block_size"]) <= set(sizes):
        return []
    return [f"The controls of {', '.join(sorted(set(own['attack'])))} ran on {_sizes(sizes)} alone."]


def _sizes(sizes: list[int]) -> str:
    return "blocks of " + " and ".join(side(size) for size in sizes)


def sentences(fineness: pd.DataFrame) -> list[str]:
    """For each victim and threat: what the finest and the coarsest blocks give away, and where the threshold lies.

    fineness: as `with_controls` gives it.
    """
    table, texts = with_key(thresholds(fineness)), []
    for name, rows in _curves(fineness):
        fine, coarse = (
            rows[rows["block_size"] == size] for size in (rows["block_size"].min(), rows["block_size"].max())
        )
        first = fine.iloc[0]
        here = table[(table["victim"] == name) & (table[KEY] == first[KEY])].set_index("level")
        needed = " and ".join(f"{100 * level:g} % from {_size_needed(here.loc[level])}" for level in LEVELS)
        where = setting(name, first["block_size"], first["keep"], first["threat"])
        texts.append(
            f"{where} in an unknown order ({first['blocks']:,} blocks), {_grants(first)}: the {attack_label(first)} "
            f"recovers {percent(fine['relative_accuracy'].mean())} of the victim's accuracy; in blocks of "
            f"{side(coarse['block_size'].iloc[0])} ({coarse['blocks'].iloc[0]:,}) "
            f"{percent(coarse['relative_accuracy'].mean())}. Sides from which so much is recovered: {needed}. "
            f"{seeds(rows['victim_seed'].nunique())}"
        )
    return texts


def _curves(fineness: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Each victim and its rows under each threat, `victim` before the others, threats without a defence first."""
    curves = with_key(fineness).groupby(["victim", KEY], sort=True)
    ordered = sorted(curves, key=lambda curve: (curve[0][0] != "victim", curve[0]))
    return [(str(victim), rows) for (victim, _), rows in ordered]


def draw_fineness(fineness: pd.DataFrame, victims: pd.DataFrame, svg: Path) -> Path:
    """Accuracy against the side of the blocks, a panel a victim and threat; below, the share of blocks placed, beside
    what the same evidence places from the truth, and the bits a block that are left to find."""
    each = _per_block(fineness)
    titles = {_title(name, rows.iloc[0]): (name, rows) for name, rows in _curves(each)}
    several = len(titles) > each["victim"].nunique()
    with panels([*titles, _PLACES, _BITS], svg, height=2.6, share_x=False) as axes:
        for index, (title, (name, rows)) in enumerate(titles.items()):
            style = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            reference_lines(axes[title], victims, name)
            attack = attack_label(rows.iloc[0])
            _draw(axes[title], curve(rows, [], "block_size"), 100, *style, f"{attack}, places unknown")
            axes[title].set_ylabel(accuracy_label(lines=True))
            _draw(
                axes[_BITS],
                curve(rows, [], "block_size", "left"),
                1,
                *style,
                f"bits left, {title if several else victim_label(name)}",
            )
            at, nothing = rows.groupby("block_size")["nothing"].first().pipe(lambda s: (s.index, s.to_numpy()))
            label = "nothing known" if index == 0 else None
            axes[_BITS].plot(at, nothing, color=GREY, linestyle=":", linewidth=1.4, label=label)
            _draw_places(axes[_PLACES], rows, *style, index == 0, victim_label(name))
        axes[_PLACES].set_ylabel("share of blocks (%)")
        axes[_BITS].set_ylabel("bits a block")
        sizes = sorted({int(size) for size in each["block_size"]})
        for axis in axes.values():
            axis.set_xscale("log", base=2)
            axis.set_xlim(sizes[0] / 1.15, sizes[-1] * 1.15)
            axis.set_ylim(0, None)
            whole_numbers(axis, sizes)
        finish(axes, "side of the blocks (weights)")
    return svg


def _title(name: str, row: pd.Series) -> str:
    share_held = f"{held(row['threat'], row['keep'])} of the blocks held"
    return f"{victim_label(name)}, {share_held}{defended(row['threat'])}, {_grants(row)}"


def _draw_places(axis: Axes, rows: pd.DataFrame, colour: str, marker: str, first: bool, name: str) -> None:
    """The attack's share of blocks placed, and dashed what its evidence places from the truth, dotted of layers drawn
    anew."""
    _draw(axis, curve(rows, [], "block_size", "position_accuracy"), 100, colour, marker, f"placed, {name}")
    labels = ("from the truth (no bound)", "from the truth of layers drawn anew")
    for column, style, label in zip(EVIDENCE, ("--", ":"), labels, strict=True):
        if rows[column].notna().any():
            line = curve(rows, [], "block_size", column)
            at, mean = line["block_size"].to_numpy(dtype=float), 100 * line["mean"].to_numpy(dtype=float)
            axis.plot(at, mean, color=colour, linestyle=style, label=label if first else None)


def _draw(axis: Axes, line: pd.DataFrame, factor: float, colour: str, marker: str, label: str) -> None:
    """Means with their 95 % band."""
    at = line["block_size"].to_numpy(dtype=float)
    mean, low, high = (factor * line[column].to_numpy(dtype=float) for column in ("mean", "ci_low", "ci_high"))
    axis.plot(at, mean, color=colour, marker=marker, label=label)
    axis.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
