"""What the attacks reached: the report's table, sentences and figure, computed from tables/attacks.csv."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from scatterproof.analysis.control_results import has_failed, marked
from scatterproof.analysis.statistics import curve
from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.config.threat import Part
from scatterproof.report.figures.base import GREY, draw_line, finish, panels, reference_lines, shares
from scatterproof.report.figures.looks import DASHES, look_of
from scatterproof.report.input_words import accuracy_label
from scatterproof.report.table import DEFENCE
from scatterproof.report.threat_words import KNOWN, besides, defence_words, granted, grants
from scatterproof.report.words import (
    attack_label,
    cut,
    held,
    minutes,
    percent,
    percent_interval,
    seeds,
    setting,
    side,
    threat_cases,
    victim_label,
)

OF_LINE: tuple[Part, ...] = ("share", "images", "knows", "base")  # what a panel's lines vary over
CASE = ["victim", "block_size", KEY]
KIND = [*CASE, "attack", "control", "images", "knows"]
TABLE_HEAD = ("victim", "block size", "attack", "blocks held", DEFENCE, "the pirate has", "accuracy",
              "the same blocks in their places", "of the victim's accuracy", "agreement with the victim",
              "blocks placed rightly", "minutes", "x training one victim", "victim seeds")  # fmt: skip
MAIN = ("attack", "the pirate has", "accuracy", "blocks placed rightly", "minutes")


def final(attacks: pd.DataFrame) -> pd.DataFrame:
    """What counts: each attack's last step."""
    return attacks[attacks["last"].astype(bool)]


def table_rows(attacks: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each victim, block size, threat and attack: means over victim seeds [95 % interval].

    attacks: of the role `blocks`, as `with_controls` gives them.
    """
    last, by = with_key(final(attacks), *OF_LINE), [*KIND, "threat"]
    values = ("accuracy", "known_places_accuracy", "relative_accuracy", "fidelity", "position_accuracy")
    by_value = {value: _rows(curve(last.assign(repeat=0), by, "keep", value)) for value in values}
    cost = last.groupby(by, as_index=False)[["device_minutes", "cost_over_retraining"]].mean()
    rows = []
    for number, about in enumerate(by_value["accuracy"]):
        means = (percent_interval(by_value[value][number], "mean") for value in values)
        took = cost.merge(pd.DataFrame([about._asdict()])[by], on=by).iloc[0]
        threat = about.threat
        rows.append(
            (
                *(victim_label(about.victim), side(about.block_size), attack_label(about), held(threat, about.keep)),
                *(defence_words(threat), grants(about.images, about.knows, threat), *means),
                *(minutes(took["device_minutes"]), minutes(took["cost_over_retraining"]), str(about.seeds)),
            )
        )
    return rows


def _rows(frame: pd.DataFrame) -> list[Any]:
    return list(frame.itertuples(index=False))


def sentences(attacks: pd.DataFrame) -> list[str]:
    """For each victim, block size and attack, and each defence and whatever else the threats differ in: what it makes
    of all blocks, and of the fewest held, with the images that help most; of several that help alike, those that grant
    least. Attacks whose control failed come last."""
    last = undefended_first(final(attacks))
    last = with_key(last.assign(failed=has_failed(last["control"])), *OF_LINE).sort_values("failed", kind="stable")
    texts = []
    for (victim, size, _, attack, control), rows in last.groupby(KIND[:5], sort=False):
        name = marked(str(attack), str(control))
        for keep in sorted({rows["keep"].max(), rows["keep"].min()}, reverse=True):
            here = rows[rows["keep"] == keep]
            means = here.groupby(["images", "knows"])["accuracy"].mean()
            least = sorted(means.index, key=lambda each: (-means[each], _rank(each[1]), each[0]))
            images, knows = least[0]
            best = here[(here["images"] == images) & (here["knows"] == knows)]
            threat = str(best["threat"].iloc[0])
            texts.append(
                f"{setting(victim, size, keep, threat)} in an unknown order, {grants(images, knows, threat)}"
                f"{_picked(len(means))}: {name} {_places(best)}reaches {percent(best['accuracy'].mean())} accuracy, "
                f"{percent(best['relative_accuracy'].mean())} of the victim's, in "
                f"{60 * best['device_minutes'].mean():.1f} seconds of the device; with every place known the same "
                f"blocks reach {percent(best['known_places_accuracy'].mean())}. {seeds(best['victim_seed'].nunique())}"
            )
    return texts


def _places(chosen: pd.DataFrame) -> str:
    """How many blocks are placed rightly; empty for an attack that makes a network instead."""
    share = chosen["position_accuracy"].mean()
    return "" if pd.isna(share) else f"puts {100 * share:.1f} % of the whole ones in their places and "


def _rank(knows: str) -> tuple[bool, int]:
    """How much is granted: a base model most, then by what is known of the images."""
    known, _, base = knows.partition("-")
    return bool(base), list(KNOWN).index(known)


def _picked(count: int) -> str:
    return f" (of {count} kinds of knowledge the one of most test accuracy)" if count > 1 else ""


def draw_attacks(attacks: pd.DataFrame, victims: pd.DataFrame, svg: Path) -> Path:
    """Accuracy against the share of blocks held, places unknown: a line an attack and its images, a panel for each
    victim, block size and defence, and whatever else the threats differ in.

    Kinds run at a single share are left out where others of the panel make a line.
    """
    last = with_key(final(attacks).assign(repeat=0), *OF_LINE)
    titles = {
        f"{cut(name, size, threat)}{besides(threat)}": (name, _of_lines(rows))
        for name, size, threat, rows in threat_cases(last)
    }
    with panels(list(titles), svg) as axes:
        for title, axis in axes.items():
            name, here = titles[title]
            reference_lines(axis, victims, name)
            places = curve(here, [], value="known_places_accuracy")
            at, mean = (100 * places[column].to_numpy(dtype=float) for column in ("keep", "mean"))
            axis.plot(at, mean, color=GREY, marker="x", linewidth=1.2, label="the same blocks in their places")
            lines = curve(here, KIND).groupby(["attack", "control", "images", "knows"], sort=True)
            drawn: Counter[str] = Counter()  # lines of an attack so far: they differ in what is granted, and in dashes
            for (attack, control, images, knows), line in lines:
                label = f"{marked(str(attack), str(control))}, {granted(images, knows)}"
                dashes = DASHES[drawn[str(attack)] % len(DASHES)]
                draw_line(axis, line, "keep", *look_of(str(attack)), label, dashes)
                drawn[str(attack)] += 1
            shares(axis, accuracy_label())
        finish(axes, "share of the blocks held, places unknown (%)")
    return svg


def _of_lines(rows: pd.DataFrame) -> pd.DataFrame:
    """The kinds run at several shares; all where there are none."""
    shares_of = rows.groupby(KIND)["keep"].transform("nunique")
    return rows[shares_of > 1] if (shares_of > 1).any() else rows
