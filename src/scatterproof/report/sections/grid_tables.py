"""The page's tables of the victims, of P1 and S1, and of the theory."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from scatterproof.analysis.statistics import curve, half_is_chance
from scatterproof.report.input_words import inputs
from scatterproof.report.table import Table
from scatterproof.report.words import (
    CORRECTIONS,
    cut,
    in_order,
    interval,
    minutes,
    names,
    number,
    percent,
    percent_interval,
    points,
    share,
    side,
    threshold_text,
    victim_label,
)


def victim_table(victims: pd.DataFrame) -> Table:
    """A row for each victim."""
    head = ("victim", "seed", "model", "width", "input", "parameters", "accuracy", "loss", "epochs", "minutes",
            "device")  # fmt: skip
    main = ("seed", "accuracy", "parameters", "epochs", "minutes")
    rows = [
        (
            *(victim_label(row.victim), str(row.victim_seed), str(row.model)),
            *(number(row.width), number(row.input_size)),
            *(number(row.parameters), percent(row.accuracy), number(row.loss), number(row.epochs)),
            *(minutes(row.device_minutes), str(row.device)),
        )
        for row in _rows(victims.drop_duplicates(["victim", "victim_seed"]))
    ]
    return Table(f"The victims: accuracy on test {inputs()}, minutes of training", head, rows).shown(
        *main, file="victim"
    )


def prune_tables(prune: pd.DataFrame, block_size: int) -> dict[str, list[Table]]:
    """P1: of the study's main block size, and of all others."""
    return _by_block_size(prune, "correction", lambda key: CORRECTIONS.get(key, key), block_size, "prune")


def shuffle_tables(shuffle: pd.DataFrame, block_size: int) -> dict[str, list[Table]]:
    """S1, likewise."""
    return _by_block_size(shuffle, "moved", lambda key: f"{share(key)} displaced", block_size, "shuffle")


def _by_block_size(frame: pd.DataFrame, across: str, name: Any, first: int, file: str) -> dict[str, list[Table]]:
    sizes = sorted({int(size) for size in frame["block_size"]})
    tables = {size: [_grid(frame, size, victim, across, name, file) for victim in names(frame)] for size in sizes}
    return {"main": tables.get(first, []), "others": [t for size in sizes if size != first for t in tables[size]]}


def _grid(frame: pd.DataFrame, size: int, victim: str, across: str, name: Any, file: str) -> Table:
    """Accuracies of one victim and block size: a row for each kept share, a column for each value of `across`."""
    frame = frame[(frame["block_size"] == size) & (frame["victim"] == victim)]
    means = curve(frame, [across])
    cells = {(row.keep, getattr(row, across)): row for row in _rows(means)}
    columns = list(dict.fromkeys(frame[across]))
    rows = [
        (share(keep), *(percent_interval(cells.get((keep, c)), "mean") for c in columns))
        for keep in sorted(set(frame["keep"]))
    ]
    seeds, repeats = int(means["seeds"].max()), int(means["repeats"].max())
    caption = f"{cut(victim, size)}: accuracy [95 % interval], victim seeds: {seeds}"
    return Table(f"{caption}, draws for each: {repeats}", ("blocks held", *(name(c) for c in columns)), rows, file)


def threshold_table(tables: Mapping[str, pd.DataFrame], block_size: int) -> Table:
    """The share of blocks at half of the victim's accuracy: a row for each victim, block size and correction."""
    keeps = tables["prune"]["keep"]
    chance = {name: half_is_chance(tables["victim"], name) for name in names(tables["threshold"])}
    rows = [
        (
            *(victim_label(row.victim), side(row.block_size), CORRECTIONS.get(row.correction, row.correction)),
            *(threshold_text(row, keeps.min(), keeps.max(), chance[row.victim]), str(row.seeds)),
        )
        for row in _rows(in_order(tables["threshold"], block_size))
    ]
    head = ("victim", "block size", "correction", "blocks needed", "victim seeds")
    return Table(
        "Threshold: the share of blocks at which accuracy first reaches half of the victim's", head, rows
    ).shown("correction", "blocks needed", file="threshold")


def excess_table(excess: pd.DataFrame) -> Table:
    """What is left where every block held is displaced; excess: as `shuffled_excess` gives it."""
    head = ("victim", "block size", "seed", "accuracy", "chance", "excess in points", "draws", "within 2 points")
    main = ("seed", "accuracy", "chance", "excess in points", "within 2 points")
    rows = [
        (
            *(victim_label(row.victim), side(row.block_size), str(row.victim_seed), percent(row.accuracy)),
            *(percent(row.chance), interval(row.excess, row.ci_low, row.ci_high, points)),
            *(f"{row.seeds} x {row.repeats}", "yes" if row.within else "no"),
        )
        for row in _rows(excess)
    ]
    return Table("Every block held, every one displaced: excess over chance", head, rows).shown(*main, file="shuffle")


def theory_tables(theory: pd.DataFrame, block_size: int) -> dict[str, list[Table]]:
    """The talk's figures and ours, of the main block size and of all others."""
    head = ("quantity", "population", "talk's formula", "exact", "Monte Carlo", "reported", "blocks held", "source")
    asked = theory.drop_duplicates([c for c in theory.columns if c not in ("study", "victim_seed")])
    caption = "The talk's figures (reported) beside what was computed here"
    first = asked["block_size"].fillna(block_size) == block_size
    main, others = ([_clue(row) for row in _rows(asked[here])] for here in (first, ~first))
    return {
        "main": [Table(caption, head, main, "theory")],
        "others": [Table(caption, head, others, "theory")] if others else [],
    }


def _clue(row: Any) -> tuple[str, ...]:
    layer = "" if pd.isna(row.layer) else f" ({row.layer}, blocks of {side(row.block_size)})"
    held = "" if pd.isna(row.keep) else share(row.keep)
    simulated = interval(row.monte_carlo, row.ci_low, row.ci_high)
    source = "" if pd.isna(row.source) else str(row.source)
    quantity = str(row.quantity).replace("_", " ") + layer
    computed = map(number, (row.population, row.value, row.exact))
    return (quantity, *computed, simulated, number(row.reported), held, source)


def _rows(frame: pd.DataFrame) -> Iterable[Any]:
    return frame.itertuples(index=False)
