"""GPU utilisation and energy while a job works, from the driver's own counters (NVML); nothing where there are none.

https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html
"""

import threading
import time
from contextlib import suppress
from typing import Any

INTERVAL_S = 5.0


class GpuSampler:
    """One GPU, by its UUID, from `start` to `stop`. Both counters are of the whole device, whoever else uses it."""

    def __init__(self, uuid: str, interval_s: float = INTERVAL_S) -> None:
        self.uuid, self.interval_s = uuid, interval_s
        self._busy: list[float] = []
        self._nvml: Any = None
        self._device: Any = None
        self._energy_mj: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._began = 0.0

    def start(self) -> None:
        """Begin to sample; without nvidia-ml-py, driver or such a GPU nothing happens."""
        try:
            import pynvml  # type: ignore[import-not-found,import-untyped,unused-ignore]
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            self._device = pynvml.nvmlDeviceGetHandleByUUID(self.uuid)
        except pynvml.NVMLError:
            return
        self._nvml, self._began = pynvml, time.monotonic()
        self._energy_mj = self._energy()
        self._thread.start()

    def stop(self) -> dict[str, float | None]:
        """gpu_utilisation (mean share of time in which a kernel ran), gpu_energy_j, gpu_measured_s; None: unknown."""
        if self._nvml is None:
            return {"gpu_utilisation": None, "gpu_energy_j": None, "gpu_measured_s": None}
        self._done.set()
        self._thread.join()
        self._sample()
        end = self._energy()
        known = end is not None and self._energy_mj is not None and end >= self._energy_mj  # a new driver starts at 0
        with suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()
        return {
            "gpu_utilisation": round(sum(self._busy) / len(self._busy), 4) if self._busy else None,
            "gpu_energy_j": (end - self._energy_mj) / 1000 if known else None,  # type: ignore[operator]
            "gpu_measured_s": round(time.monotonic() - self._began, 3) if known else None,
        }

    def _watch(self) -> None:
        while not self._done.wait(self.interval_s):
            self._sample()

    def _sample(self) -> None:
        with suppress(self._nvml.NVMLError):
            self._busy.append(self._nvml.nvmlDeviceGetUtilizationRates(self._device).gpu / 100)

    def _energy(self) -> int | None:
        """Millijoules since the driver was loaded; None on GPUs before Volta, and on slices of one (MIG)."""
        with suppress(self._nvml.NVMLError):
            return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device))
        return None
