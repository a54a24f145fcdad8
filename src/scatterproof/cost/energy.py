"""Energy, CO2 and money of each attempt: measured where NVML measured, else from the study's stated assumptions."""

from collections.abc import Iterable, Sequence

from scatterproof.config.cost import CostConfig
from scatterproof.cost.sacct import Row

PRICED = ["energy_kwh", "co2_g", "price"]


def reckon(costs: Iterable[Row], assumed: CostConfig) -> list[Row]:
    """The ledger with the columns of ENERGY; None where what is needed is not known.

    energy_kwh is of the GPUs held and the cores used, times PUE; `energy_source` is `nvml` where the driver measured
    all of the GPU's part, `assumed`, or `nvml+assumed`.
    """
    return [row | _energy(row, assumed) | {"price": _price(row, assumed)} for row in costs]


def _energy(row: Row, assumed: CostConfig) -> Row:
    gpu, source = _gpu_kwh(row, assumed)
    watts = assumed.cpu_watts_per_core
    cpu = 0.0 if watts == 0 else _kwh(row["cpu_minutes"], watts)
    if gpu is None or cpu is None:
        return {"energy_kwh": None, "energy_source": None, "co2_g": None}
    energy = (gpu + cpu) * assumed.pue
    grid = assumed.grid_gco2_per_kwh
    sources = sorted({*source, *(["assumed"] if watts else [])}, reverse=True)
    return {
        "energy_kwh": energy,
        "energy_source": "+".join(sources) or None,
        "co2_g": None if grid is None else energy * grid,
    }


def _gpu_kwh(row: Row, assumed: CostConfig) -> tuple[float | None, list[str]]:
    """kWh of the GPUs held and where they are known from; what NVML did not see is at the assumed power."""
    held = row["allocated_gpu_minutes"]
    measured, minutes = row["gpu_energy_kwh"], row["gpu_measured_minutes"]
    if measured is None:
        return (0.0, []) if held == 0 else (_kwh(held, assumed.gpu_watts), ["assumed"])
    rest = None if held is None else max(0.0, held - minutes)
    if not rest:
        return measured, ["nvml"]
    more = _kwh(rest, assumed.gpu_watts)
    return (None, []) if more is None else (measured + more, ["nvml", "assumed"])


def _kwh(minutes: float | None, watts: float | None) -> float | None:
    return None if minutes is None or watts is None else minutes / 60 * watts / 1000


def _price(row: Row, assumed: CostConfig) -> float | None:
    """Money for the GPUs held; None where nothing is priced, or this partition is not."""
    held = row["allocated_gpu_minutes"]
    if not assumed.prices or held is None:
        return None
    if held == 0:
        return 0.0
    price = assumed.prices.get(row["partition"])
    return None if price is None else held / 60 * price


def price_warnings(costs: Sequence[Row], assumed: CostConfig) -> list[str]:
    """One line for each partition that is priced and never seen, or held GPUs and has no price."""
    if not assumed.prices:
        return []
    seen = {row["partition"] for row in costs}
    held = {row["partition"] for row in costs if row["allocated_gpu_minutes"]}
    known = ", ".join(sorted(filter(None, seen))) or "none"
    unseen = [
        f"cost.prices.{name}: no attempt ran on such a partition (seen: {known})"
        for name in sorted(set(assumed.prices) - seen)
    ]
    return unseen + [
        f"cost.prices: partition {name or '(unknown)'} held GPUs and has no price: what ran there has an unknown one"
        for name in sorted(held - set(assumed.prices))
    ]
