"""GPU utilisation and energy through NVML: sampled where there is a GPU, else nothing, and never a guess."""

import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from scatterproof.cost.records import read_records
from scatterproof.running.cost_record import measured
from scatterproof.running.nvml import GpuSampler

UUID = "GPU-11111111-2222-3333-4444-555555555555"
NOTHING = {"gpu_utilisation": None, "gpu_energy_j": None, "gpu_measured_s": None}


class Driver(ModuleType):
    """A driver with one GPU that draws 100 W, is busy half of the time, and can lack any of its functions."""

    class NVMLError(Exception):
        pass

    def __init__(self, *missing: str) -> None:
        super().__init__("pynvml")
        self.missing, self.began, self.open = missing, time.monotonic(), 0
        self.busy = [100, 0]

    def _ask(self, name: str) -> None:
        if name in self.missing:
            raise self.NVMLError(name)

    def nvmlInit(self) -> None:
        self._ask("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        if uuid != UUID:
            raise self.NVMLError("no such GPU")
        return uuid

    def nvmlDeviceGetUtilizationRates(self, device: str) -> Any:
        self._ask("utilisation")
        self.busy.reverse()
        return SimpleNamespace(gpu=self.busy[0])

    def nvmlDeviceGetTotalEnergyConsumption(self, device: str) -> int:
        self._ask("energy")
        return 5_000_000 + int(100_000 * (time.monotonic() - self.began))


def sample(driver: ModuleType | None, monkeypatch: pytest.MonkeyPatch, uuid: str = UUID) -> dict[str, float | None]:
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    sampler = GpuSampler(uuid, interval_s=0.02)
    sampler.start()
    time.sleep(0.2)
    return sampler.stop()


def test_energy_is_the_drivers_own_count_and_utilisation_a_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    found = sample(driver, monkeypatch)
    assert found["gpu_measured_s"] is not None and 0.2 <= found["gpu_measured_s"] < 5
    assert found["gpu_energy_j"] == pytest.approx(100 * found["gpu_measured_s"], rel=0.2)
    assert found["gpu_utilisation"] == pytest.approx(0.5, abs=0.2)
    assert driver.open == 0


@pytest.mark.parametrize("driver", [None, Driver("init")], ids=["no package", "no driver"])
def test_without_package_or_driver_nothing_is_known(driver: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample(driver, monkeypatch) == NOTHING


def test_a_gpu_that_the_driver_does_not_know_is_not_taken_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sample(Driver(), monkeypatch, "GPU-other") == NOTHING


def test_a_part_that_the_gpu_does_not_tell_stays_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    no_energy = sample(Driver("energy"), monkeypatch)
    assert no_energy["gpu_energy_j"] is None and no_energy["gpu_measured_s"] is None
    assert no_energy["gpu_utilisation"] is not None
    no_rates = sample(Driver("utilisation"), monkeypatch)
    assert no_rates["gpu_utilisation"] is None and no_rates["gpu_energy_j"] is not None


def test_a_counter_that_started_anew_is_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    sampler = GpuSampler(UUID)
    sampler.start()
    driver.began += 1e6
    assert sampler.stop()["gpu_energy_j"] is None


def test_a_job_records_what_was_sampled_also_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    with pytest.raises(ZeroDivisionError), measured(tmp_path, "victim", "train_victim", "a", "cuda: H200", UUID):
        raise ZeroDivisionError
    with measured(tmp_path, "victim", "train_victim", "b", "cpu: x"):
        pass
    failed, on_cpu = read_records(tmp_path)
    assert failed["state"] == "FAILED" and failed["gpu_energy_j"] >= 0 and failed["gpu_measured_s"] >= 0
    assert {key: on_cpu[key] for key in NOTHING} == NOTHING
