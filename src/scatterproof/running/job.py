"""What every workflow script does around its work: log, device, cost record, and one clear line on bad input."""

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scatterproof.errors import UserError
from scatterproof.running.cost_record import Meter, measured
from scatterproof.running.interrupt import listen


@dataclass(frozen=True)
class Job:
    """Where a compute job runs: torch device, its name for the tables, and the meter of its cost."""

    device: Any
    device_name: str
    meter: Meter

    def cost_columns(self, minutes: float) -> dict[str, Any]:
        """The columns that end every timed table; GPU-minutes only where CUDA ran."""
        cuda = self.device.type == "cuda"
        return {"device": self.device_name, "device_minutes": minutes, "gpu_minutes": minutes if cuda else None}


@contextmanager
def compute_job(
    snakemake: Any, stage: str, wanted: str, checkpoints: bool = False, attacks: Iterable[str] = ()
) -> Iterator[Job]:
    """Run a script's body on the device wanted (`auto`, `cpu`, `cuda`), with the rule's threads.

    attacks: those that it is to run; their minutes go to `job.meter.attacks`.

    With `checkpoints`, SIGUSR2 and SIGTERM ask the body to save and stop (interrupt.py) instead of ending it.
    """
    with _logged(snakemake):
        from scatterproof.running.device import choose_device, device_name, gpu_uuid, set_up

        if checkpoints:
            listen()
        device = choose_device(wanted)
        set_up(device, snakemake.threads)
        name = device_name(device)
        with _measured(snakemake, stage, name, gpu_uuid(device), attacks) as meter:
            yield Job(device, name, meter)


@contextmanager
def light_job(snakemake: Any, stage: str) -> Iterator[None]:
    """Run a script's body that needs no torch: tables, figures, the page."""
    with _logged(snakemake), _measured(snakemake, stage, "cpu"):
        yield


def _measured(
    snakemake: Any, stage: str, device: str, gpu: str | None = None, attacks: Iterable[str] = ()
) -> AbstractContextManager[Meter]:
    name = ".".join(str(value) for value in snakemake.wildcards) or snakemake.rule
    wildcards = {key: str(value) for key, value in snakemake.wildcards.items()}
    records = Path(snakemake.params.records)
    return measured(records, stage, snakemake.rule, name, device, gpu, wildcards, attacks)


@contextmanager
def _logged(snakemake: Any) -> Iterator[None]:
    """Everything printed goes to the rule's log; bad input ends the job with one line there and on the terminal."""
    with Path(snakemake.log[0]).open("w", buffering=1) as log, redirect_stdout(log), redirect_stderr(log):
        try:
            yield
        except UserError as error:
            line = f"scatterproof: error in {snakemake.rule}: {error}"
            print(line)
            print(line, file=sys.__stderr__)
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            raise
