"""The verdicts in words, table and figure, from tables/verdict.csv."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd
from markupsafe import Markup

from scatterproof.analysis.basis import LEAST, MODEL, RECIPE
from scatterproof.analysis.control_results import reads_blocks
from scatterproof.analysis.frontier.recommendation import recommendations
from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.analysis.verdict import (
    BOUNDED,
    BROKEN,
    INVALID,
    LOST,
    MOOT,
    NOT_YET,
    STOLEN_AT,
    UNDECIDED,
    stolen,
)  # fmt: skip
from scatterproof.config.threat import WITH_STREAM, Part, rest_of
from scatterproof.report.figures.base import COLOURS, GREY, RED, panels
from scatterproof.report.table import DEFENCE
from scatterproof.report.threat_words import defence_words, defended, grants
from scatterproof.report.words import (
    cases,
    cut,
    held,
    in_red,
    minutes,
    of_case,
    percent,
    points,
    setting,
    share,
    side,
    threat_cases,
    victim_label,
)

TABLE_HEAD = ("victim", "block size", "blocks held", DEFENCE, "the pirate has", "verdict", "ends with",
              "best attack on the blocks", "accuracy", "best without the blocks", "accuracy",
              "gain in points [95 % interval]", "margin", "headroom", "told ceiling", "minutes",
              "x training one victim", "rests on", "controls")  # fmt: skip
MAIN = ("the pirate has", "verdict", "ends with", "gain in points [95 % interval]", "told ceiling")
BUT_DEFENCE: tuple[Part, ...] = ("share", "images", "knows", "base", "activations", "stream")
LABEL_WIDTH = 48  # characters of a line beside the figure
COLOUR_OF = {LOST: RED, BROKEN: COLOURS[1], MOOT: COLOURS[4], NOT_YET: COLOURS[5], BOUNDED: COLOURS[0]}
COLOUR_OF |= {UNDECIDED: GREY, INVALID: COLOURS[3]}
MARKER_OF = {LOST: "v", BROKEN: "o", MOOT: "^", NOT_YET: "s", BOUNDED: "P", UNDECIDED: "D", INVALID: "x"}


def table_rows(verdicts: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each victim, block size and threat, those without a defence first."""
    return [
        (
            victim_label(row.victim),
            side(row.block_size),
            held(row.threat, row.keep),
            defence_words(row.threat),
            _grants(row),
            in_words(row),
            in_red(ends_with(row), stolen(row)),
            "none with passed controls" if row.verdict == INVALID else row.attack,
            percent(row.accuracy),
            row.against,
            percent(row.withheld_accuracy),
            gained(row),
            f"{100 * row.margin:.1f}",
            headroom(row),
            told(row),
            minutes(row.minutes),
            minutes(row.cost_over_retraining),
            rests_on(row),
            row.controls,
        )
        for row in _rows(undefended_first(verdicts))
    ]


def rests_on(row: Any) -> str:
    """`5 victims`, or `10 draws of one model`."""
    return f"{row.seeds} {_units(row)}{' of one model' if row.basis == MODEL else ''}"


def _units(row: Any) -> str:
    kind = "draw" if row.basis == MODEL else "victim"
    return kind if row.seeds == 1 else f"{kind}s"


def _mean(row: Any) -> str:
    """Over what the numbers of a row are means."""
    return f"Mean of {rests_on(row)}." if row.seeds > 1 else "One victim."


def _grants(row: Any) -> str:
    return grants(row.images, row.knows, row.threat)


def in_words(row: Any) -> str:
    """`broken by fingerprint for 0.12 minutes`; the other verdicts stand alone."""
    if row.verdict == UNDECIDED and not pd.isna(row.seeds_to_decide):
        return f"{UNDECIDED}: {row.seeds_to_decide:g} victims of this spread would decide"
    if row.verdict != BROKEN:
        return str(row.verdict)
    kind = "GPU-minutes" if str(row.device).startswith("cuda") else "CPU-minutes"
    return f"broken by {row.attack} for {minutes(row.minutes)} {kind}"


def ends_with(row: Any) -> str:
    """`96.9 of 96.9 % (layer, without the blocks)`: what the best attack of all reaches of the victim's accuracy."""
    of = "" if pd.isna(row.victim_accuracy) else f" of {100 * row.victim_accuracy:.1f}"
    how = "with the blocks" if reads_blocks(row.ends_with_attack) else "without the blocks"
    return f"{100 * row.ends_with:.1f}{of} % ({row.ends_with_attack}, {how})"


def gained(row: Any) -> str:
    """The gain in points with its interval."""
    if pd.isna(row.ci_low):
        return "" if pd.isna(row.gain) else points(row.gain)
    return f"{points(row.gain)} [{points(row.ci_low)}, {points(row.ci_high)}]"


def headroom(row: Any) -> str:
    """The headroom in points with its interval."""
    if pd.isna(row.headroom):
        return ""
    mean = f"{100 * row.headroom:.1f}"
    return (
        mean if pd.isna(row.headroom_low) else f"{mean} [{100 * row.headroom_low:.1f}, {100 * row.headroom_high:.1f}]"
    )


def told(row: Any) -> str:
    """`60.1 %, gains at most +1.2 points (told, told+train)`: the best form of the told ceiling, the largest bound of
    any, and the forms that were tried."""
    if pd.isna(row.told_accuracy):
        return str(row.told)
    most = "" if pd.isna(row.told_most) else f", gains at most {points(row.told_most)} points"
    return f"{percent(row.told_accuracy)}{most} ({row.told})"


def sentences(verdicts: pd.DataFrame) -> list[str]:
    """For each victim, block size and defence: under how many threats the pirate ends with the model, and how many got
    which verdict; what it ends with, for each kind of images it may hold and of requests it sees; and the cheapest
    broken threat of those that grant least. Then what is recommended against each threat."""
    texts = []
    for _, _, _, rows in threat_cases(with_key(verdicts, *BUT_DEFENCE)):
        texts += [_lost(rows), *map(_ends, _least_tapped(rows)), *_example(rows)]
    texts += [_recommended(row, text) for row, text in recommendations(verdicts)]
    if (verdicts["seeds"] < verdicts["basis"].map(LEAST)).any():
        texts.append(
            f"With fewer than {LEAST[RECIPE]} victim seeds, or {LEAST[MODEL]} draws of one model, a threat stays "
            "undecided."
        )
    if (verdicts["basis"] == MODEL).any():
        texts.append("A verdict that rests on draws of one model holds for that model. Another one may give away more.")
    if (verdicts["verdict"] == NOT_YET).any():
        texts.append(
            f"Do not rely on a threat that is {NOT_YET}: that a better attack could not break it is not shown."
        )
    return texts


def _recommended(row: Any, text: str) -> str:
    """What to deploy against a threat; the words are the table's."""
    undefended = rest_of(str(row.threat), "defence")
    where = f"{setting(row.victim, row.block_size, row.keep, undefended)}, {grants(row.images, row.knows, undefended)}"
    return f"Recommended against {where}: {text}."


def counted(rows: pd.DataFrame) -> str:
    """How many threats got which verdict: `broken 1, undecided 2`."""
    counts = rows["verdict"].value_counts()
    return ", ".join(f"{each} {counts[each]}" for each in COLOUR_OF if each in counts)


def _lost(rows: pd.DataFrame) -> str:
    lost = sum(stolen(row) for row in _rows(rows))
    text = (
        f"{cut(*rows[['victim', 'block_size', 'threat']].iloc[0])}: under {lost} of {len(rows)} threats the pirate "
        f"ends with {share(STOLEN_AT)} of the victim's accuracy or more"
    )
    return Markup("{}. Verdicts: {}.").format(in_red(text, lost > 0), counted(rows))


def _least_tapped(rows: pd.DataFrame) -> list[Any]:
    """For each kind of images and activations the threat of most blocks held; with traffic only where no threat is
    without."""
    tapping = rows["threat"].str.contains(WITH_STREAM, regex=False)
    shown = with_key(rows[~tapping] if not tapping.all() else rows, "share", "stream")
    most = shown.sort_values("keep", ascending=False, kind="stable").drop_duplicates(KEY)
    return list(_rows(most.sort_values(["knows", "images", KEY], kind="stable")))


def _ends(row: Any) -> str:
    """What a pirate ends with, and whose controls failed."""
    where = f"{setting(row.victim, row.block_size, row.keep, row.threat)}, {_grants(row)}"
    end = in_red(f"the pirate ends with {ends_with(row)}", stolen(row))
    left_out = str(row.controls).partition("left out: ")[2]
    note = f" Left out: {left_out}." if left_out else ""
    return Markup("{}: {}; verdict: {}.{} {}").format(where, end, in_words(row), note, _mean(row))


def _example(rows: pd.DataFrame) -> list[str]:
    broken = rows[rows["verdict"] == BROKEN]
    if broken.empty:
        return []
    tapping = broken["threat"].str.contains(WITH_STREAM, regex=False)
    granted = ["tapping", "requests", "images", "keep", "minutes"]
    least = broken.assign(tapping=tapping).sort_values(granted, kind="stable")
    one = next(_rows(least))
    return [
        f"{setting(one.victim, one.block_size, one.keep, one.threat)}, {_grants(one)}: the model is {in_words(one)}: "
        f"{percent(one.accuracy)} accuracy of the victim's {percent(one.victim_accuracy)}; without the blocks the same "
        f"pirate reaches {percent(one.withheld_accuracy)} ({one.against}). {_mean(one)}"
    ]


def draw_verdict(verdicts: pd.DataFrame, svg: Path) -> Path:
    """The gain of each threat with its interval, coloured by the verdict; a panel for each victim and block size."""
    titles = {cut(*case): of_case(verdicts, case) for case in cases(verdicts)}
    most = max(map(len, titles.values()), default=0)
    with panels(list(titles), svg, height=max(3.0, 0.45 * most)) as axes:
        for title, axis in axes.items():
            in_order = titles[title].sort_values(["knows", "images", "keep"])
            rows = list(_rows(undefended_first(in_order)))
            margins = [100 * row.margin for row in rows]
            axis.plot(margins, range(len(rows)), "|", color=GREY, markersize=12, label="the margin")
            seen: set[str] = set()
            for at, row in enumerate(rows):
                label = str(row.verdict) if row.verdict not in seen else None
                seen.add(str(row.verdict))
                spread = [[0.0], [0.0]]
                if not pd.isna(row.ci_low):
                    spread = [[100 * (row.gain - row.ci_low)], [100 * (row.ci_high - row.gain)]]
                style: Any = {"color": COLOUR_OF[str(row.verdict)], "fmt": MARKER_OF[str(row.verdict)], "label": label}
                shown = 0.0 if row.verdict == INVALID else 100 * row.gain
                axis.errorbar([shown], [at], xerr=spread, capsize=3, **style)
            labels = [f"{fill(_threat(row), LABEL_WIDTH)}\nends with {ends_with(row)}" for row in rows]
            axis.set_yticks(range(len(rows)), labels)
            axis.tick_params(axis="y", labelsize=7)
            for text, row in zip(axis.get_yticklabels(), rows, strict=True):
                if stolen(row):
                    text.set_color(RED)
            axis.set_ylim(len(rows) - 0.4, -0.6)  # the first at the top
            if any(map(stolen, rows)):
                axis.plot([], [], "s", color=RED, label=f"in red: ends with {share(STOLEN_AT)} or more")
            axis.set_xlabel("gain by the blocks (points)")
            axis.legend(loc="best", fontsize=8)
    return svg


def _threat(row: Any) -> str:
    return f"{held(row.threat, row.keep)}{defended(row.threat)}: {_grants(row)}"


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
