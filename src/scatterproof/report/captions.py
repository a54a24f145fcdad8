"""What each figure of the page shows, in words: its caption, and its text for who does not see it."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from scatterproof.report.input_words import inputs

CAPTIONS = {
    "curve": "Accuracy of the victims against minutes of training, one line a seed.",
    "prune": "Accuracy against the share of blocks held, their places known; rings mark where half of the victim's "
    "accuracy is reached.",
    "threshold": "Share of blocks needed for half of the victim's accuracy, against the block size.",
    "shuffle": "Accuracy against the share of blocks held, by the share of them that is displaced.",
    "theory": "Expected clues in a population of random placements.",
    "search": "Best fitness so far against evaluations; bands are 95 % intervals, over victims and the runs on each; "
    "with one victim over its runs alone.",
    "trajectory": "Accuracy on test {inputs} against minutes of search, beside the minutes of training one victim.",
    "plateau": "How often a right exchange beats a wrong one, by share of blocks right and number of {inputs}; below, "
    "how many values fitness takes.",
    "attacks": "Accuracy against the share of blocks held, their places unknown; bands are 95 % intervals over "
    "victims.",
    "verdict": "What having the blocks gains over having none, in points of accuracy, with 95 % intervals over victim "
    "seeds, or over draws of one model.",
    "retrain": "Accuracy of each attack that labels or the victim's answers teach, by the number of the pirate's "
    "{inputs}, with the blocks and without, with 95 % intervals over victim seeds. Stars, where drawn: published "
    "figures of another, wider victim, at the same share of this one's accuracy.",
    "frontier": "What the pirate ends with, what the told ceiling reaches and what the blocks gain, against the "
    "trusted party's share of the layer's operations. One point a setting; bars are 95 % intervals, dashes one-sided "
    "95 % bounds. At the right: the whole layer at home, of which no device holds anything.",
    "fineness": "Accuracy recovered against the side of the blocks, and below the bits a whole block that the attack's "
    "own beliefs leave to find; bands are 95 % intervals over victims.",
    "stream": "Leakage against what hiding costs, each obfuscation at the most requests watched; and by share of the "
    "links tapped, requests watched and devices held. Bands are 95 % intervals over victims and layouts.",
    "cost": "Minutes by stage beside the minutes of training one victim.",
    "retraining": "Best accuracy so far against minutes: retraining as bands, of each attack the kind that gets "
    "furthest; rings mark where retraining overtakes it, in that curve's colour.",
}


SUFFIXES = ("svg", "pdf", "png")


class Figure(NamedTuple):
    """A figure of the page. files: addresses as seen from the page, by what a reader calls them."""

    svg: Markup
    caption: str
    files: Mapping[str, str]


def caption_of(name: str) -> str:
    """What the figure of this name shows. Raises: KeyError."""
    return CAPTIONS[name].format(inputs=inputs())


def addresses(files: Iterable[Path], page: Path) -> dict[str, str]:
    """Where these files lie as seen from a page, by their names; with a figure's .pdf and .png, where there are any."""
    paths: dict[str, str] = {}
    for path in files:
        also = [path.with_suffix(f".{suffix}") for suffix in SUFFIXES] if path.suffix == ".svg" else []
        paths |= {
            each.name: Path(os.path.relpath(each, page.parent)).as_posix() for each in (path, *also) if each.exists()
        }
    return paths


def files_of(name: str, files: Mapping[str, str]) -> dict[str, str]:
    """The addresses of one figure's files by their kinds, such as `SVG`."""
    return {each.upper(): files[f"{name}.{each}"] for each in SUFFIXES if f"{name}.{each}" in files}
