"""The `cost:` section of a study: what energy, CO2 and money are reckoned with; the study imports it."""

from typing import Annotated

from pydantic import Field

from scatterproof.config.base import Strict

Amount = Annotated[float, Field(ge=0)]


class CostConfig(Strict):
    """What energy, CO2 and money are reckoned with; a sum that needs what is not given stays empty."""

    gpu_watts: Amount | None = Field(
        None, description="watts of one GPU that is held, for the minutes that NVML did not measure"
    )
    cpu_watts_per_core: Amount | None = Field(
        None, description="watts of one busy core, memory and the rest of its node included; 0 leaves CPUs out"
    )
    pue: Annotated[float, Field(ge=1)] = Field(
        1.0,
        description="power usage effectiveness: what the site draws over what its machines draw; 1 counts no cooling",
    )
    grid_gco2_per_kwh: Amount | None = Field(None, description="grams of CO2 equivalent for each kWh from the grid")
    prices: dict[str, Amount] = Field(
        {}, description="price of one GPU-hour allocated, by partition; `local` is this machine"
    )
    currency: str = Field("EUR", min_length=1, description="what the prices are in")
