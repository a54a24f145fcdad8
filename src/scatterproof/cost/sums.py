"""Sums of the ledger: what was useful, start-up, wasted and as what, by stage, rule, attack or victim.

Sums are over what is known, and None where nothing is. Energy, CO2 and money are None where a part of them is unknown.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from scatterproof.cost.energy import PRICED
from scatterproof.cost.ledger import shares
from scatterproof.cost.sacct import Row
from scatterproof.cost.stages import STAGES
from scatterproof.cost.states import KINDS

GROUPS = ("rule", "attack", "victim")


def cost_summary(costs: Sequence[Row], retraining: float) -> list[Row]:
    """`tables/cost_summary.csv`: one row a stage in the order of the study, then `total`.

    `device_minutes` are the useful ones, `overhead_minutes` what attempts that were not wasted took besides: start-up,
    imports. `over_retraining` is device_minutes over `retraining`, the device-minutes of training one victim.
    """
    rows = [{"stage": name} | sums for name, sums in group_sums(costs, "stage", retraining)]
    return [*rows, {"stage": "total"} | _sums([(row, 1.0) for row in costs], retraining)]


def cost_groups(costs: Sequence[Row], retraining: float) -> list[Row]:
    """`tables/cost_groups.csv`: the same sums by rule, attack and victim."""
    return [{"by": by, "name": name} | sums for by in GROUPS for name, sums in group_sums(costs, by, retraining)]


def group_sums(costs: Sequence[Row], by: str, retraining: float) -> list[tuple[str, Row]]:
    """Name and sums of each group. An attempt with several attacks or victims is divided by the minutes of each."""
    groups: dict[str, list[tuple[Row, float]]] = defaultdict(list)
    split: Callable[[str], dict[str, float]] = shares if by in ("attack", "victim") else lambda text: {text: 1.0}
    for row in costs:
        for name, share in split(row[by]).items():
            groups[name].append((row, share))
    order = {stage: number for number, stage in enumerate(STAGES)} if by == "stage" else {}
    names = sorted(groups, key=lambda name: (order.get(name, len(order)), name))
    return [(name, _sums(groups[name], retraining)) for name in names]


def waste_table(costs: Iterable[Row]) -> list[Row]:
    """`tables/cost_waste.csv`: attempts, minutes and GPU-minutes wasted, by stage and kind, in a fixed order."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in costs:
        if row["waste"]:
            groups[row["stage"], row["waste"]].append(row)
    order = {name: number for number, name in enumerate([*STAGES, *KINDS])}
    keys = sorted(groups, key=lambda key: (order.get(key[0], len(order)), key[0], order[key[1]]))
    return [
        {"stage": stage, "waste": kind, "attempts": len(groups[stage, kind])}
        | {"minutes": _known(map(wasted_minutes, groups[stage, kind]))}
        | {"gpu_minutes": _known(map(wasted_gpu_minutes, groups[stage, kind]))}
        for stage, kind in keys
    ]


def wasted_minutes(row: Row) -> float | None:
    """Minutes of an attempt that were wasted: all but those of jobs that it had finished."""
    if not row["wasted"]:
        return 0.0
    return None if row["elapsed_s"] is None else max(0.0, float(row["elapsed_s"] / 60 - row["useful_minutes"]))


def wasted_gpu_minutes(row: Row) -> float | None:
    """The same times the GPUs held."""
    minutes = wasted_minutes(row)
    return 0.0 if not row["gpus"] else None if minutes is None else float(row["gpus"]) * minutes


def overhead_minutes(row: Row) -> float | None:
    """What an attempt that was not wasted took beside its useful minutes."""
    if row["wasted"] or row["elapsed_s"] is None or row["useful_minutes"] is None:
        return None
    return max(0.0, float(row["elapsed_s"] / 60 - row["useful_minutes"]))


def _sums(parts: Sequence[tuple[Row, float]], retraining: float) -> Row:
    def total(value: Callable[[Row], float | None]) -> float | None:
        pairs = [(value(row), share) for row, share in parts]
        return _known(None if one is None else one * share for one, share in pairs)

    def whole(column: str) -> float | None:
        values = [None if row.get(column) is None else row[column] * share for row, share in parts]
        return None if None in values else _known(values)

    useful = total(lambda row: row["useful_minutes"])
    queue = total(lambda row: row["queue_s"])
    elapsed = total(lambda row: row["elapsed_s"])
    sources = {row.get("energy_source") for row, _ in parts if row.get("energy_kwh")}
    return {
        "jobs": len({(row["rule"], job) for row, _ in parts for job in row["jobs"].split(";")}),
        "attempts": len(parts),
        "allocated_gpu_minutes": total(lambda row: row["allocated_gpu_minutes"]),
        "wasted_gpu_minutes": total(wasted_gpu_minutes),
        "overhead_minutes": total(overhead_minutes),
        "queue_minutes": None if queue is None else queue / 60,
        "over_retraining": useful / retraining if useful is not None and retraining > 0 else None,
        "cpu_minutes": total(lambda row: row["cpu_minutes"]),
        "device": "; ".join(sorted({row["device"] for row, _ in parts if row["device"]})),
        "device_minutes": useful,
        "gpu_minutes": total(lambda row: row["useful_minutes"] if row["gpu_minutes"] is not None else None),
        "elapsed_minutes": None if elapsed is None else elapsed / 60,
        "wasted_minutes": total(wasted_minutes),
        **{column: whole(column) for column in PRICED},
        "energy_source": "; ".join(sorted(source for source in sources if source)),
    }


def _known(values: Iterable[float | None]) -> float | None:
    """The sum of what is known, exactly rounded and so the same in any order; None if nothing is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None
