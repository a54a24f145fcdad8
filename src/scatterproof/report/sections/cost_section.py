"""The page's section on costs: its tables, and sentences from them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from scatterproof.analysis.control_results import marked_all
from scatterproof.config.cost import CostConfig
from scatterproof.cost.energy import price_warnings
from scatterproof.report.cost_words import sentences
from scatterproof.report.table import Table
from scatterproof.report.words import minutes, number

COSTS = {
    "jobs": "jobs",
    "device_minutes": "useful device-minutes",
    "over_retraining": "x training one victim",
    "wasted_minutes": "wasted minutes",
    "gpu_minutes": "GPU-minutes used",
    "cpu_minutes": "CPU-minutes",
    "overhead_minutes": "start-up minutes",
    "attempts": "attempts",
    "allocated_gpu_minutes": "GPU-minutes allocated",
    "wasted_gpu_minutes": "GPU-minutes wasted",
    "queue_minutes": "queue minutes",
    "energy_kwh": "kWh",
    "co2_g": "g of CO2",
    "price": "price",
    "device": "device",
}
IMPLIED = "retraining_gpu_hours_implied_by_27x"
SHOWN = 20  # attempts that were wasted; a cluster's may be thousands


def summary_table(summary: pd.DataFrame) -> Table:
    """What each stage cost."""
    return _sums(summary.rename(columns={"stage": "name"}), "What each stage cost", "stage", "cost_summary")


def group_tables(groups: pd.DataFrame, controls: pd.DataFrame) -> list[Table]:
    """The same by rule, attack and victim; an attack is marked by the controls on any victim."""
    is_attack = groups["by"] == "attack"
    names = groups["name"].where(~is_attack, [marked_all(str(name), controls) for name in groups["name"]])
    marked_groups = groups.assign(name=names)
    return [
        _sums(rows, f"The same by {by}", str(by), "cost_groups") for by, rows in marked_groups.groupby("by", sort=False)
    ]


def _sums(sums: pd.DataFrame, caption: str, by: str, file: str) -> Table:
    """Columns that are empty or 0 in every row are left out."""
    shown = [column for column in COSTS if (sums[column].notna() & (sums[column] != 0)).any()]
    rows = [(str(row["name"]), *(_sum(column, row[column]) for column in shown)) for row in _known(sums)]
    head = (by, *(COSTS[column] for column in shown))
    return Table(f"{caption}; empty: unknown, or does not apply", head, rows, file)


def _sum(column: str, value: Any) -> str:
    if column in ("jobs", "attempts", "device"):
        return _text(value)
    return number(value, 3) if column == "over_retraining" else minutes(value)


def waste_table(waste: pd.DataFrame) -> Table:
    """What was wasted, by stage and kind."""
    head = ("stage", "wasted as", "attempts", "minutes", "GPU-minutes")
    rows = [
        (row["stage"], row["waste"], str(row["attempts"]), minutes(row["minutes"]), minutes(row["gpu_minutes"]))
        for row in _known(waste)
    ]
    return Table("What was wasted, by stage and kind", head, rows, "cost_waste")


def wasted_attempts(costs: pd.DataFrame) -> Table:
    """The costliest of the attempts that were wasted."""
    head = ("attempt", "state", "partition", "node", "elapsed s", "GPU-minutes", "CPU-minutes", "memory MiB", "source")
    wasted = costs[costs["wasted"].astype(bool)]
    shown = wasted.sort_values(["allocated_gpu_minutes", "elapsed_s"], ascending=False, kind="stable")[:SHOWN]
    rows = [
        (
            *map(_text, (row["attempt_name"], row["state"], row["partition"], row["node"])),
            *(number(row["elapsed_s"]), minutes(row["allocated_gpu_minutes"]), minutes(row["cpu_minutes"])),
            *(number(row["mem_mb"]), row["source"]),
        )
        for row in _known(shown)
    ]
    more = f", the {SHOWN} costliest of {len(wasted)}; cost.csv has all" if len(wasted) > SHOWN else ""
    return Table(f"Attempts that were wasted{more}", head, rows, "cost")


def cost_words(summary: pd.DataFrame, theory_rows: pd.DataFrame, retraining: float) -> list[str]:
    """What the study cost against training one victim, and the talk's '27x' recomputed."""
    total = summary[summary["stage"] == "total"].iloc[0]
    used = f"The study used {minutes(total['device_minutes'])} useful device-minutes"
    if retraining > 0:
        used += (
            f"; training one victim takes {minutes(retraining)}, so that is {number(total['over_retraining'], 3)} times"
        )
    sentences = [f"{used}. A device-minute is a minute of the device named, of all the threads a job was given."]
    if pd.isna(total["gpu_minutes"]) and not total["allocated_gpu_minutes"] > 0:
        sentences.append("No GPU was used: every minute here is a CPU's, and none of them is a GPU-minute.")
    sentences.append("CPU-minutes count each core for itself, in the main process and its children.")
    return [*sentences, *_talk_cost(theory_rows)]


def _talk_cost(theory_rows: pd.DataFrame) -> list[str]:
    rows: Any = theory_rows.drop_duplicates("quantity").set_index("quantity")[["value", "reported"]].to_dict("index")
    if "cost_over_retraining" not in rows:
        return []
    attack, hours = rows["attack_gpu_minutes"]["value"], rows["retraining_gpu_hours"]["value"]
    ratio, claimed = rows["cost_over_retraining"]["value"], rows["cost_over_retraining"]["reported"]
    return [
        f"The talk: its genetic search of {rows['evaluations']['value']:,.0f} evaluations took {attack:,.0f} "
        f"GPU-minutes on an RTX 4060, reported as {claimed:g}x the {hours:g} GPU-hours of training. "
        f"{attack:,.0f} minutes are {ratio:.1f}x of {hours:g} h; {claimed:g}x would mean "
        f"{rows[IMPLIED]['value']:.2f} h of training."
    ]


def account_words(tables: Mapping[str, pd.DataFrame], assumed: CostConfig) -> list[str]:
    """What was allocated, wasted, queued, and what energy and money it comes to."""
    rows = {name: _known(tables[name]) for name in ("cost", "cost_summary", "cost_waste")}
    texts = sentences(rows["cost"], rows["cost_summary"][-1], rows["cost_waste"], assumed)
    return [*texts, *price_warnings(rows["cost"], assumed)]


def _known(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows, with None for what is empty."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
