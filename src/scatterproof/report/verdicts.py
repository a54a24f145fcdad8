"""The verdicts in words, table and figure, from tables/verdict.csv."""

from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from scatterproof.report.attacks import granted
from scatterproof.report.figures import COLOURS, GREY, panels
from scatterproof.report.words import minutes, names, percent, points, victim_label
from scatterproof.stream_grid import WITH_STREAM
from scatterproof.verdict import BROKEN, INVALID, MARGIN, PROTECTED, SEEDS, UNDECIDED

TABLE_HEAD = ("victim", "blocks held", "the pirate's images", "verdict", "best attack on the blocks", "accuracy",
              "best without the blocks", "accuracy", "gain in points [95 % interval]", "minutes",
              "x training one victim", "victim seeds", "controls")  # fmt: skip
LABEL_WIDTH = 42  # characters of a line beside the figure
COLOUR_OF = {BROKEN: COLOURS[1], PROTECTED: COLOURS[2], UNDECIDED: GREY, INVALID: COLOURS[3]}


def table_rows(verdicts: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each victim and threat."""
    return [
        (
            victim_label(row.victim),
            held(row),
            grants(row),
            in_words(row),
            row.attack,
            percent(row.accuracy),
            row.against,
            percent(row.withheld_accuracy),
            gained(row),
            minutes(row.minutes),
            minutes(row.cost_over_retraining),
            str(row.seeds),
            row.controls,
        )
        for row in _rows(verdicts)
    ]


def in_words(row: Any) -> str:
    """`broken by fingerprint for 0.12 minutes`; the other verdicts stand alone."""
    if row.verdict != BROKEN:
        return str(row.verdict)
    kind = "GPU-minutes" if str(row.device).startswith("cuda") else "CPU-minutes"
    return f"broken by {row.attack} for {minutes(row.minutes)} {kind}"


def held(row: Any) -> str:
    """The share of the blocks held, and of what."""
    scatter = "all dense layers, " if str(row.threat).startswith("dense") else ""
    return f"{scatter}{100 * row.keep:g} %"


def grants(row: Any) -> str:
    """What the pirate has besides blocks: images, and of a hijack what it sees of the traffic."""
    images, stream = granted(row.images, row.knows), str(row.threat).partition(WITH_STREAM)[2]
    return f"{images}; {tapped(stream)}" if stream else images


def tapped(stream: str) -> str:
    """What the stream's part of a threat's name grants, such as `traffic of its own devices and of 25 % of the links,
    10 requests, coordinator`."""
    seen, _, service = stream.removeprefix("-").partition("+")
    observed, requests, *leaked = seen.split("-")
    links = f" and of {100 * float(observed):g} % of the links" if float(observed) else ""
    count = f"{requests} request{'' if requests == '1' else 's'}"
    places = [f"{leaked[0].removesuffix('labelled')} places leaked"] if leaked else []
    hidden = [service.replace("-", " ")] if service else []
    return ", ".join([f"traffic of its own devices{links}", count, *places, *hidden])


def gained(row: Any) -> str:
    """The gain in points with its interval."""
    if pd.isna(row.ci_low):
        return points(row.gain)
    return f"{points(row.gain)} [{points(row.ci_low)}, {points(row.ci_high)}]"


def sentences(verdicts: pd.DataFrame) -> list[str]:
    """For each victim how many threats got which verdict, and the cheapest broken one of those that grant least."""
    texts = []
    for name in names(verdicts):
        rows = verdicts[verdicts["victim"] == name]
        counts = [
            f"{int((rows['verdict'] == each).sum())} {each}" for each in COLOUR_OF if (rows["verdict"] == each).any()
        ]
        threats = f"{len(rows)} threat{'' if len(rows) == 1 else 's'}"
        texts.append(f"{victim_label(name)}: of {threats} {', '.join(counts)}.{_example(rows)}")
    if (verdicts["seeds"] < SEEDS).any():
        texts.append(f"With fewer than {SEEDS} victim seeds a threat stays undecided.")
    return texts


def _example(rows: pd.DataFrame) -> str:
    broken = rows[rows["verdict"] == BROKEN]
    if broken.empty:
        return ""
    tapping = broken["threat"].str.contains(WITH_STREAM, regex=False)
    least = broken.assign(tapping=tapping).sort_values(["tapping", "images", "keep", "minutes"], kind="stable")
    one = next(_rows(least))
    return (
        f" With {held(one)} of the blocks and {grants(one)} the model is {in_words(one)}: "
        f"{percent(one.accuracy)} accuracy of the victim's {percent(one.victim_accuracy)}; without the blocks the same "
        f"pirate reaches {percent(one.withheld_accuracy)} ({one.against})."
    )


def draw_verdict(verdicts: pd.DataFrame, svg: Path) -> Path:
    """The gain of each threat with its interval, coloured by the verdict; a panel a victim."""
    most = max((int((verdicts["victim"] == name).sum()) for name in names(verdicts)), default=0)
    with panels(names(verdicts), svg, height=max(3.0, 0.35 * most)) as axes:
        for name, axis in axes.items():
            rows = list(_rows(verdicts[verdicts["victim"] == name].sort_values(["knows", "images", "keep"])))
            axis.axvline(100 * MARGIN, color=GREY, linestyle="--", linewidth=1, label="the margin, 2 points")
            seen: set[str] = set()
            for at, row in enumerate(rows):
                label = str(row.verdict) if row.verdict not in seen else None
                seen.add(str(row.verdict))
                spread = [[0.0], [0.0]]
                if not pd.isna(row.ci_low):
                    spread = [[100 * (row.gain - row.ci_low)], [100 * (row.ci_high - row.gain)]]
                colour = COLOUR_OF[str(row.verdict)]
                axis.errorbar([100 * row.gain], [at], xerr=spread, fmt="o", color=colour, capsize=3, label=label)
            labels = [fill(f"{held(row)}: {grants(row)}", LABEL_WIDTH) for row in rows]
            axis.set_yticks(range(len(rows)), labels)
            axis.tick_params(axis="y", labelsize=7)
            axis.set_ylim(-0.6, len(rows) - 0.4)
            axis.set_xlabel("gain by the blocks (points)")
            axis.legend(loc="best", fontsize=8)
    return svg


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
