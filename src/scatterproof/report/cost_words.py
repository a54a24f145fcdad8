"""What a study cost, in sentences, for the page and for the terminal; imports nothing slow."""

from collections.abc import Mapping, Sequence
from typing import Any

from scatterproof.config.cost import CostConfig

Row = Mapping[str, Any]


def amount(value: float | None) -> str:
    """A number with three digits, whole from a thousand on; empty if unknown."""
    return "" if value is None else "0" if not value else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def sentences(costs: Sequence[Row], total: Row, waste: Sequence[Row], assumed: CostConfig) -> list[str]:
    """Allocated against used, what was wasted and why, the queue, energy, CO2 and price, each where it is known."""
    texts = [_allocated(costs, total), _wasted(waste, total), _queued(total)]
    texts += [_energy(costs, assumed), _measured(costs), _price(costs, assumed)]
    return [sentence for sentence in texts if sentence]


def _allocated(costs: Sequence[Row], total: Row) -> str:
    held = total["allocated_gpu_minutes"]
    if held == 0:
        return "No GPU was allocated."
    if held is None:
        return "Whether GPUs were allocated is not known."
    sources = {
        "sacct": "SLURM's accounting",
        "requested": "what was asked for, as SLURM does not account for GPUs",
        "measured": "the jobs' own clocks",
    }
    told = {row["source"] for row in costs if row["allocated_gpu_minutes"]}
    used = total["gpu_minutes"]
    unknown = sum(row["allocated_gpu_minutes"] is None for row in costs)
    at_least = f"At least ({unknown} of {len(costs)} attempts are unknown) " if unknown else ""
    by = "; by ".join(sources[name] for name in sorted(told))
    text = f"{at_least}{amount(held)} GPU-minutes were allocated, by {by}. "
    if used is None:
        return text + "No job used CUDA, or none has said so: what was allocated is not what was used."
    return text + f"Of them jobs used CUDA for {amount(used)} minutes of work that was kept."


def _wasted(waste: Sequence[Row], total: Row) -> str:
    attempts = sum(int(row["attempts"]) for row in waste)
    if not attempts:
        return "No attempt was wasted."
    kinds: dict[str, list[Row]] = {}
    for row in waste:
        kinds.setdefault(row["waste"], []).append(row)
    parts = []
    for kind, rows in kinds.items():
        minutes = [row["minutes"] for row in rows if row["minutes"] is not None]
        known = f"{amount(sum(minutes))} minutes" if minutes else "minutes unknown"
        parts.append(f"{sum(int(row['attempts']) for row in rows)} {kind} ({known})")
    held = total["wasted_gpu_minutes"]
    gpus = f", {amount(held)} of {amount(total['allocated_gpu_minutes'])} allocated GPU-minutes" if held else ""
    verb = "was" if attempts == 1 else "were"
    return f"{attempts} of {total['attempts']} attempts {verb} wasted{gpus}: {', '.join(parts)}."


def _queued(total: Row) -> str:
    queue = total["queue_minutes"]
    return "" if queue is None else f"Attempts waited in the queue for {amount(queue)} minutes, all together."


def _energy(costs: Sequence[Row], assumed: CostConfig) -> str:
    known = [row["energy_kwh"] for row in costs if row["energy_kwh"] is not None]
    if not known:
        return ""
    missing = len(costs) - len(known)
    at_least = f"at least ({missing} of {len(costs)} attempts are unknown) " if missing else ""
    text = f"Energy: {at_least}{amount(sum(known))} kWh"
    if assumed.grid_gco2_per_kwh is not None:
        carbon = sum(known) * assumed.grid_gco2_per_kwh
        text += f", {amount(carbon / 1000)} kg of CO2" if carbon >= 1000 else f", {amount(carbon)} g of CO2"
    return f"{text}; {assumptions(costs, assumed)}."


def assumptions(costs: Sequence[Row], assumed: CostConfig) -> str:
    """What the energy rests on."""
    sources = {part for row in costs for part in str(row["energy_source"] or "").split("+")}
    stated = []
    if "nvml" in sources:
        stated.append("GPUs as their driver measured them while jobs worked")
    if assumed.gpu_watts is not None:
        stated.append(f"{assumed.gpu_watts:g} W a GPU held" + (" otherwise" if "nvml" in sources else ""))
    if assumed.cpu_watts_per_core is not None:
        stated.append(f"{assumed.cpu_watts_per_core:g} W a busy core")
    stated.append(f"PUE {assumed.pue:g}")
    if assumed.grid_gco2_per_kwh is not None:
        stated.append(f"{assumed.grid_gco2_per_kwh:g} g of CO2 a kWh")
    head = "assuming" if "nvml" not in sources else "with"
    return f"{head} {', '.join(stated)}"


def _measured(costs: Sequence[Row]) -> str:
    rows = [row for row in costs if row["gpu_utilisation"] is not None and row["device_minutes"]]
    if not rows:
        return ""
    minutes = sum(row["device_minutes"] for row in rows)
    mean = sum(row["gpu_utilisation"] * row["device_minutes"] for row in rows) / minutes
    return f"While jobs worked, their GPUs were busy {100 * mean:.0f} % of the time ({len(rows)} attempts sampled)."


def _price(costs: Sequence[Row], assumed: CostConfig) -> str:
    if not assumed.prices:
        return ""
    known = [row["price"] for row in costs if row["price"] is not None]
    missing = len(costs) - len(known)
    listed = ", ".join(f"{name} {price:g}" for name, price in sorted(assumed.prices.items()))
    text = f"Price of the GPUs allocated: {amount(sum(known))} {assumed.currency}"
    if missing:
        text = (
            f"Price of the GPUs allocated: unknown; {amount(sum(known))} {assumed.currency} without {missing} attempts"
        )
    return f"{text} (a GPU-hour: {listed})."
