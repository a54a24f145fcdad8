"""The verdicts in words, table and figure, from tables/verdict.csv."""

from pathlib import Path
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
COLOUR_OF = {BROKEN: COLOURS[1], PROTECTED: COLOURS[2], UNDECIDED: GREY, INVALID: COLOURS[3]}


def table_rows(verdicts: pd.DataFrame) -> list[tuple[str, ...]]:
    """A row for each victim and threat."""
    return [
        (
            victim_label(row.victim),
            held(row),
            granted(row.images, row.knows),
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
    """The share of the blocks held, and of what; of a hijack what is seen of the traffic besides."""
    grants, _, stream = str(row.threat).partition(WITH_STREAM)
    scatter = "all dense layers, " if grants.startswith("dense") else ""
    traffic = f" on devices of its own, and of all links {seen_of(stream)}" if stream else ""
    return f"{scatter}{100 * row.keep:g} %{traffic}"


def seen_of(stream: str) -> str:
    """What a stream's part of a threat's name grants, such as `25 % for 10 requests (coordinator)`."""
    observed, requests, *more = stream.removeprefix("-").split("-")
    count = f"{requests} request{'' if requests == '1' else 's'}"
    return f"{100 * float(observed):g} % for {count}" + (f" ({', '.join(more)})" if more else "")


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
        texts.append(f"{victim_label(name)}: of {len(rows)} threats {', '.join(counts)}.{_example(rows)}")
    if (verdicts["seeds"] < SEEDS).any():
        texts.append(f"With fewer than {SEEDS} victim seeds a threat stays undecided.")
    return texts


def _example(rows: pd.DataFrame) -> str:
    broken = rows[rows["verdict"] == BROKEN]
    if broken.empty:
        return ""
    one = next(_rows(broken.sort_values(["images", "keep", "minutes"], kind="stable")))
    return (
        f" With {held(one)} of the blocks and {granted(one.images, one.knows)} the model is {in_words(one)}: "
        f"{percent(one.accuracy)} accuracy of the victim's {percent(one.victim_accuracy)}; without the blocks the same "
        f"pirate reaches {percent(one.withheld_accuracy)} ({one.against})."
    )


def draw_verdict(verdicts: pd.DataFrame, svg: Path) -> Path:
    """The gain of each threat with its interval, coloured by the verdict; a panel a victim."""
    with panels(names(verdicts), svg) as axes:
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
            axis.set_yticks(range(len(rows)), [f"{held(row)}: {granted(row.images, row.knows)}" for row in rows])
            axis.tick_params(axis="y", labelsize=7)
            axis.set_ylim(-0.6, len(rows) - 0.4)
            axis.set_xlabel("gain by the blocks (points)")
            axis.legend(loc="best", fontsize=8)
    return svg


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
