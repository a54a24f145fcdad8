"""The full audit: ten draws of each layer, with controls and the told ceiling, and the verdict for this model."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
from tqdm import tqdm

from scatterproof.attacks.base import Machine
from scatterproof.auditing.audited import AuditError, Victim
from scatterproof.auditing.in_process import InProcess, Progress, Victims
from scatterproof.config.attacks import AttacksConfig
from scatterproof.config.settings.ceilings import AS_IS

DRAWS = 10
SHUFFLES = 10


def full_verdicts(
    victim: Victim, layers: Sequence[str], size: int, inputs: int, machine: Machine
) -> Iterator[pd.DataFrame]:
    """`tables/verdict.csv` of each layer. Raises: AuditError where a verdict needs what the data do not have."""
    if not inputs:
        raise AuditError("--inputs 0: a verdict compares with pirates that have inputs, expected at least 20")
    grid = {"attacks": ["fingerprint"], "images": [inputs], "knows": ["none"], "ceilings": [AS_IS]}
    attacks = AttacksConfig.model_validate(
        {"grids": [grid], "draws": DRAWS, "control_shuffles": SHUFFLES, "block_size": size}
    )
    for name in layers:
        config = victim.config.model_copy(update={"layer": name, "layers": None})
        victims = Victims(config, victim.dataset, [victim.model], [math.nan], name)
        with tqdm(desc=name, unit="step", mininterval=5) as progress:
            study = InProcess(victims, size, attacks, machine, _telling(progress))
            progress.total = study.steps
            yield study.verdicts()


def _telling(progress: "tqdm[Any]") -> Progress:
    """Counts a step, and shows what it was."""

    def done(what: str) -> None:
        progress.set_postfix_str(what)
        progress.update()

    return done
