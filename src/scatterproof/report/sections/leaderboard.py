"""Every attack under every threat, and what the literature reports of its kin, from tables/attacks.csv."""

from typing import Any, NamedTuple

import pandas as pd

from scatterproof.analysis.control_results import has_failed
from scatterproof.analysis.statistics import curve
from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.report.sections.attacks import final
from scatterproof.report.table import DEFENCE
from scatterproof.report.threat_words import defence_words, grants
from scatterproof.report.words import attack_label, held, percent, percent_interval, side, victim_label

ROLES = {"blocks": "with the blocks", "withheld": "without the blocks", "ceiling": "ceiling"}
HEAD = ("victim", "block size", "blocks held", DEFENCE, "the pirate has", "place", "attack", "blocks", "accuracy",
        "of the victim's", "agreement with the victim", "placed rightly", "minutes")  # fmt: skip
MAIN = ("the pirate has", "place", "attack", "blocks", "accuracy")
SHARES = ("relative_accuracy", "fidelity", "position_accuracy")
REPORTED_HEAD = ("kin of", "setting there", "reported", "of the whole model's", "source")


class Reported(NamedTuple):
    """A published figure. kin: our attack of that kind; reached, whole: accuracy of the copy and of the whole model;
    images: queries."""

    kin: str
    setting: str
    reached: float
    whole: float | None
    source: str
    images: int | None = None


_HIDDEN = "No Privacy Left Outside, S&P 2024: VGG16-BN on CIFAR-100"
REPORTED = (
    Reported("layer", "the last layer hidden, 50 queries", 0.255, 0.728, _HIDDEN, 50),
    Reported("layer", "the last layer hidden, 500 queries", 0.637, 0.728, _HIDDEN, 500),
    Reported("surrogate", "black box, 500 queries", 0.289, 0.728, _HIDDEN, 500),
    Reported("surrogate", "black box, 10,000 queries", 0.734, 0.728, _HIDDEN, 10_000),
    Reported("whitebox", "white box", 0.728, 0.728, _HIDDEN),
    Reported("prior", "permuted weights, a public base model: weights recovered", 0.98, None,
             "Game of Arrows (ArrowMatch), USENIX Security 2025"),
)  # fmt: skip


def rows(attacks: pd.DataFrame) -> list[tuple[str, ...]]:
    """For each victim, block size and threat its attacks, the best first; one whose control failed takes no place.

    attacks: as `with_controls` gives them.
    """
    last = with_key(undefended_first(final(attacks[attacks["role"].isin(ROLES)]).assign(repeat=0)))
    lines = []
    for (victim, size, _), here in last.groupby(["victim", "block_size", KEY], sort=False):
        first = here.iloc[0]
        threat = str(first["threat"])
        means = curve(here, ["attack", "control", "role"])
        failed = has_failed(means["control"])
        means = means.assign(failed=failed).sort_values(["failed", "mean"], ascending=[True, False], kind="stable")
        for place, row in enumerate(_rows(means), 1):
            mine = here[(here["attack"] == row.attack) & (here["role"] == row.role)]
            lines.append(
                (
                    *(victim_label(str(victim)), side(size), held(threat, row.keep), defence_words(threat)),
                    grants(first["images"], first["knows"], threat),
                    *("-" if row.failed else str(place), attack_label(row), ROLES[row.role]),
                    *(percent_interval(row, "mean"), *(percent(mine[column].mean()) for column in SHARES)),
                    f"{mine['device_minutes'].mean():.3g}",
                )
            )
    return lines


def reported_rows() -> list[tuple[str, ...]]:
    """The literature's figures; of other victims, to be read beside ours as shares of the whole model's."""
    return [
        (each.kin, each.setting, percent(each.reached), percent(each.whole and each.reached / each.whole), each.source)
        for each in REPORTED
    ]


def _rows(frame: pd.DataFrame) -> Any:
    return frame.itertuples(index=False)
