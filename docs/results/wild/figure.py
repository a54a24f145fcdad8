"""Draw what the fingerprint places of the published encoder, with and without what it reads in transformers.

python docs/results/wild/figure.py placed.csv plain.csv placed.svg
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("svg")
import matplotlib.pyplot as plt

NAMES = {"intermediate": "feed-forward,\nup", "output": "feed-forward,\ndown", "attention.self.query": "query",
         "attention.self.key": "key",
         "attention.self.value": "value", "attention.output": "attention\noutput"}  # fmt: skip
COLOURS = {128: "#1b6ca8", 64: "#e08e0b", 32: "#8a2d2d"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("placed", "plain", "figure"):
        parser.add_argument(name, type=Path)
    asked = parser.parse_args()
    placed, plain = (pd.read_csv(path).query("sentences == 100") for path in (asked.placed, asked.plain))
    projections = list(placed["projection"].unique())
    mpl.rcParams["svg.hashsalt"] = "wild"
    figure, axes = plt.subplots(figsize=(8.6, 3.8), layout="constrained")
    for number, projection in enumerate(projections):
        for offset, (size, colour) in enumerate(COLOURS.items()):
            mine, old = (rows[(rows["projection"] == projection) & (rows["block"] == size)] for rows in (placed, plain))
            at = number + 0.25 * (offset - 1)
            axes.plot([at] * len(mine), 100 * mine["placed"], "o", color=colour, markersize=5, alpha=0.7)
            axes.plot([at + 0.08] * len(old), 100 * old["placed"], "x", color=colour, markersize=5)
            axes.hlines(100 * mine["chance"].mean(), at - 0.1, at + 0.1, color="0.6", linewidth=1)
    for size, colour in COLOURS.items():
        axes.plot([], [], "o", color=colour, label=f"blocks of {size} x {size}")
    axes.plot([], [], "x", color="0.3", label="without norms, partners, writers")
    axes.plot([], [], color="0.6", linewidth=1, label="chance")
    axes.set_xticks(range(len(projections)), [NAMES.get(name, name) for name in projections])
    axes.set(ylabel="whole blocks placed, %", ylim=(-3, 103))
    figure.legend(fontsize=8, loc="outside upper center", ncols=5, frameon=False)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(asked.figure, metadata={"Date": None})


if __name__ == "__main__":
    main()
