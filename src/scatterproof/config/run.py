"""Where a study runs, and what it may hold there. Imports no torch: Snakemake parses it in every job."""

from typing import Literal

from pydantic import Field

from scatterproof.config.base import Strict


class RunConfig(Strict):
    """How it is run: recorded with the results, and a resume under other values is refused."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="`auto`: CUDA where there is one")
    threads: int = Field(1, ge=1, description="CPU threads of each job")
    cells_per_job: int = Field(200, ge=1, description="cells of a grid per job; a killed sweep resumes there")
    images_per_chunk: int = Field(2000, ge=1, description="test images evaluated at once")
    train_minutes: int = Field(240, ge=1, description="time limit asked of the cluster for training a victim")
    search_minutes: int = Field(240, ge=1, description="time limit asked of the cluster for a job of searches")
    attack_minutes: int = Field(120, ge=1, description="time limit asked of the cluster for a job of attacks")
    cell_minutes: int = Field(60, ge=1, description="time limit asked of the cluster for a slice of a grid")
    mem_mb: int = Field(8000, ge=500, description="memory asked of the cluster for each job")


class BudgetConfig(Strict):
    """What the study may hold of the cluster; kept by the executor, over all runs of the study."""

    gpu_hours: float | None = Field(
        None,
        ge=0,
        description="most GPU-hours that all jobs of the study may be allocated, failed and requeued ones "
        "included; no job is submitted that could pass it, and raising it goes on; `null`: no limit",
    )
