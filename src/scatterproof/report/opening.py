"""The page's first screen: the answer in a sentence, three numbers, and the verdict on each threat."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from markupsafe import Markup

from scatterproof.analysis.control_results import reads_blocks
from scatterproof.analysis.frontier.recommendation import in_brief, recommendations
from scatterproof.analysis.threat_key import undefended_first
from scatterproof.analysis.verdict import BOUNDED, BROKEN, INVALID, LOST, MOOT, NOT_YET, UNDECIDED, stolen
from scatterproof.config.threat import WITH_STREAM, parts_of
from scatterproof.report.sections.grid_words import Worth, displaced, worths
from scatterproof.report.sections.verdicts import gained, rests_on
from scatterproof.report.threat_words import defence_words, granted, grants
from scatterproof.report.words import in_red, minutes, percent, points, setting, share, side, victim_label, whole_cut

MOST_WORDS = 25
HEAD = ("threat: blocks held; what the pirate has", "ends with", "do the blocks help?", "told ceiling", "verdict")
LEAD = {BROKEN: "No", LOST: "No", INVALID: "Not known", UNDECIDED: "Not shown", NOT_YET: "Not shown"}
LEAD |= {MOOT: "Moot", BOUNDED: "Bounded"}
FROM_WORST = tuple(LEAD)


class Number(NamedTuple):
    """One of the three: the number, and of what."""

    value: str
    of: str


class Group(NamedTuple):
    """The threats to the blocks of one victim; rows: a cell for each of HEAD."""

    title: str
    rows: list[tuple[str, ...]]


class Opening(NamedTuple):
    """What the first screen shows. red: whether the sentence is an alarm; setting: of what the numbers are."""

    sentence: str
    red: bool
    numbers: tuple[Number, ...]
    setting: str
    groups: list[Group]


def opening(tables: Mapping[str, pd.DataFrame], block_size: int) -> Opening:
    """The first screen of a study: of its verdicts, or where it has none of what blocks are worth."""
    verdicts = tables.get("verdict")
    if verdicts is None or verdicts.empty:
        return _without_verdict(worths(tables, block_size))
    row = telling(verdicts)
    where = f"{setting(row.victim, row.block_size, row.keep, row.threat)}, {grants(row.images, row.knows, row.threat)}"
    over = f"Mean of {rests_on(row)}." if row.seeds > 1 else "One victim."
    return Opening(answer(row), row.verdict in (BROKEN, LOST), _numbers(row), f"{where}. {over}", _groups(verdicts))


def telling(verdicts: pd.DataFrame) -> Any:
    """The row that the answer rests on: the worst verdict, of the layer as it is before a defended one; of several the
    threat that grants least, and where nothing is broken the one under which the pirate ends with most."""
    alarm = verdicts["verdict"].isin([BROKEN, LOST])
    threats = verdicts["threat"].map(parts_of)
    ranked = verdicts.assign(
        alarm=~alarm,
        defended=[bool(each.defence) for each in threats],
        rank=verdicts["verdict"].map(FROM_WORST.index),
        other=verdicts["victim"] != "victim",
        tapping=verdicts["threat"].str.contains(WITH_STREAM, regex=False),
        base=[bool(each.base) for each in threats],
        less=-verdicts["ends_with"].where(~alarm, 0.0),
    )
    ranked = ranked.assign(kept=[not stolen(row) for row in ranked.itertuples(index=False)])
    by = ["alarm", "defended", "kept", "rank", "less", "other", "tapping", "requests", "base", "images", "keep"]
    return next(ranked.sort_values(by, kind="stable").itertuples(index=False))


def answer(row: Any) -> str:
    """The page's question answered in at most MOST_WORDS words; what does not fit is said beside the numbers."""
    parts = parts_of(row.threat)
    layers = "dense layers' " if parts.scatter == "dense" else ""
    blocks = f"{share(row.keep)} of the {victim_label(str(row.victim))}'s {layers}{side(row.block_size)} blocks"
    blocks += "" if reads_blocks(row.ends_with_attack) else ", or none,"  # then it ends with as much without them
    behind = f" behind {defence_words(row.threat)}" if parts.defence else ""
    has = "" if parts.stream or parts.activations else f" and {granted(row.images, row.knows)}"
    reached = f"{100 * row.ends_with:.1f} of {100 * row.victim_accuracy:.1f} %"
    ends = f"a pirate ends with {reached}"
    tried = (
        f"holding {blocks}{behind}{has}, {ends} accuracy",
        f"holding {blocks}{behind}{has}, {ends}",
        f"holding {blocks}{behind}, {ends} accuracy",
        f"holding {blocks}{behind.split(' (')[0]}, {ends}",
        f"{blocks}{behind.split(' (')[0]}, give a pirate {reached}",
    )
    said = (f"{LEAD[row.verdict]}: {text.replace(',,', ',')}." for text in tried)
    return next((text for text in said if len(text.split()) <= MOST_WORDS), f"{LEAD[row.verdict]}: {tried[-1]}.")


def _numbers(row: Any) -> tuple[Number, ...]:
    ends = Number(
        f"{100 * row.ends_with:.1f} of {100 * row.victim_accuracy:.1f} %",
        f"accuracy that the pirate ends with, of the victim's ({row.ends_with_attack})",
    )
    if row.verdict == INVALID and pd.isna(row.gain):
        none = "no attack on the blocks passed its controls"
        return ends, Number("not known", f"gain by the blocks: {none}"), Number("not known", f"time: {none}")
    bounds = "" if pd.isna(row.ci_low) else f" [{points(row.ci_low)}, {points(row.ci_high)}]"
    kind = "GPU-minutes" if str(row.device).startswith("cuda") else "CPU-minutes"
    took = f"{minutes(row.minutes)} {kind} of the best attack on the blocks ({row.attack})"
    if pd.isna(row.cost_over_retraining):
        time = Number(minutes(row.minutes), f"{kind} of the best attack on the blocks ({row.attack})")
    else:
        time = Number(f"{100 * row.cost_over_retraining:.3g} %", f"of the time to train one victim: {took}")
    return ends, Number(f"{points(row.gain)} points", f"accuracy gained by having the blocks{bounds}"), time


def _groups(verdicts: pd.DataFrame) -> list[Group]:
    """Threats by whose blocks they are of, those to the layer as it is first, of these the worst."""
    worst = verdicts.sort_values("verdict", key=lambda each: each.map(FROM_WORST.index), kind="stable")
    recommended = {_place(row): in_brief(text) for row, text in recommendations(verdicts)}
    groups: dict[str, list[tuple[str, ...]]] = {}
    for row in _rows(undefended_first(worst)):
        cells = _row(row, recommended.get(_place(row), ""))
        groups.setdefault(whole_cut(row.victim, row.block_size, row.threat), []).append(cells)
    return [Group(title, rows) for title, rows in groups.items()]


def _place(row: Any) -> tuple[Any, ...]:
    return row.victim, row.layer, row.block_size, row.threat


def _row(row: Any, recommended: str) -> tuple[str, ...]:
    parts = (f"{share(row.keep)} held", grants(row.images, row.knows, row.threat), defence_words(row.threat))
    ends = f"{100 * row.ends_with:.1f} of {100 * row.victim_accuracy:.1f}\N{NO-BREAK SPACE}%"
    verdict = in_red(row.verdict, row.verdict in (BROKEN, LOST, INVALID))
    if recommended:
        verdict = Markup('{} <small class="advice">recommended: {}</small>').format(verdict, recommended)
    return "; ".join(filter(None, parts)), in_red(ends, stolen(row)), helped(row), _told(row), verdict


def helped(row: Any) -> str:
    """Whether having the blocks gains more than the margin, and how much it gains."""
    if pd.isna(row.gain):
        return "not known"
    said = "not shown"
    if row.ci_low > row.margin:
        said = "yes"
    elif row.gain_most < row.margin:
        said = "no"
    return Markup("{} <small>{}</small>").format(said, gained(row))


def _told(row: Any) -> str:
    if pd.isna(row.told_accuracy):
        return "not run"
    most = "" if pd.isna(row.told_most) else f"gains ≤ {points(row.told_most)}"
    return Markup("{} <small>{}</small>").format(percent(row.told_accuracy), most)


def _without_verdict(measured: list[Worth]) -> Opening:
    """A study without attacks: what a part of the blocks gives with their places, and without."""
    if not measured:
        return Opening("Not asked: this study measured no attack and no part of the blocks.", False, (), "", [])
    one = measured[0]
    whose = f"{share(one.keep)} of the {victim_label(one.victim)}'s {side(one.block_size)} blocks"
    sentence = f"Not asked: no attack was run. {whose} in known places give {percent(one.known)} accuracy."
    unknown = "not measured" if np.isnan(one.unknown) else percent(one.unknown)
    numbers = (
        Number(percent(one.own), "accuracy of the victim"),
        Number(percent(one.known), "accuracy by these blocks in known places"),
        Number(unknown, f"by as many {displaced(one.moved)}"),
    )
    where = setting(one.victim, one.block_size, one.keep)
    return Opening(sentence, False, numbers, f"{where}. Victims: {one.seeds}.", [])


def _rows(frame: pd.DataFrame) -> Iterator[Any]:
    return iter(frame.itertuples(index=False))
