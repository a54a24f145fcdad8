"""The quick audit: each layer scattered once, attacked by what needs no label, and scored. An estimate, no verdict."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scatterproof.attacks.base import Machine, Run
from scatterproof.attacks.runner import make_attack
from scatterproof.auditing.audited import AuditError, Victim
from scatterproof.blocks import Layout
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.errors import UserError
from scatterproof.judging.judge import Judge
from scatterproof.victims.models import dense_layers

ATTACK, WITHOUT = "fingerprint", "nothing"
LEAST_BLOCKS = 4
SEVERAL = "together"


@dataclass(frozen=True)
class LayerEstimate:
    """What the attack made of one layer, or of several in one heap.

    placed, rows, columns: shares of the blocks at their place, block row and block column; chance: that of guessing a
    place; copy, without, own: accuracy of the network put together, of the one without the layer, and of the model;
    agreement: of the copy with the model; note: why nothing was tried, else empty.
    """

    layer: str
    shape: str
    blocks: int
    note: str = ""
    placed: float | None = None
    rows: float | None = None
    columns: float | None = None
    chance: float | None = None
    copy: float | None = None
    without: float | None = None
    own: float | None = None
    agreement: float | None = None
    seconds: float | None = None

    @property
    def row(self) -> dict[str, Any]:
        """As a row of `audit.csv`."""
        return asdict(self)


def estimates(
    victim: Victim, layers: Sequence[str], size: int, inputs: int, machine: Machine, seed: int, together: bool
) -> Iterator[LayerEstimate]:
    """One after the other; together: all of them in one heap. Raises: AuditError where the pirate lacks inputs."""
    held = len(victim.dataset.pirate)
    if inputs > held:
        raise AuditError(f"--inputs {inputs}: the data leave the pirate {held}, expected at most that, or more data")
    for names in [list(layers)] if together else [[name] for name in layers]:
        yield _estimate(victim, names, size, inputs, machine, seed)


def _estimate(victim: Victim, names: list[str], size: int, inputs: int, machine: Machine, seed: int) -> LayerEstimate:
    shapes = {name: tuple(dense_layers(victim.model)[name].weight.shape) for name in names}
    shape = " + ".join(dict.fromkeys(f"{outputs} x {inputs}" for outputs, inputs in shapes.values()))
    title = names[0] if len(names) == 1 else f"{len(names)} layers {SEVERAL}"
    try:
        layout = Layout.square(shapes, size)
    except ValueError as error:
        return LayerEstimate(title, shape, 0, str(error))
    if int(layout.ambiguous().sum()) < LEAST_BLOCKS:
        return LayerEstimate(title, shape, layout.positions, f"fewer than {LEAST_BLOCKS} whole blocks of {size}")
    try:
        return _attacked(victim, names, size, inputs, machine, seed, title, shape)
    except UserError as error:
        return LayerEstimate(title, shape, layout.positions, str(error))


def _attacked(
    victim: Victim, names: list[str], size: int, inputs: int, machine: Machine, seed: int, title: str, shape: str
) -> LayerEstimate:
    config = victim.config.model_copy(update={"layer": names[0], "layers": names if len(names) > 1 else None})
    threat = ThreatModel(scatter="dense" if len(names) > 1 else "layer", images=inputs)
    puzzle, answer = make_puzzle(victim.model, config, victim.dataset, threat, size, (seed, "audit", 0))
    judge = Judge(puzzle, answer, victim.model, victim.dataset, machine.device)
    started = time.perf_counter()
    steps = make_attack(AttackSettings(), ATTACK).run(puzzle, Run(machine, (seed, "audit", ATTACK)))
    seconds = time.perf_counter() - started
    withheld = make_attack(AttackSettings(), WITHOUT).run(puzzle, Run(machine, (seed, "audit", WITHOUT)))
    rows = judge.rows({ATTACK: steps[-1:], WITHOUT: withheld[-1:]})
    attack, without, own = (_last(rows, name) for name in (ATTACK, WITHOUT, "whitebox"))
    whole = int(puzzle.layout.ambiguous().sum())
    return LayerEstimate(
        layer=title,
        shape=shape,
        blocks=puzzle.layout.positions,
        placed=attack["position_accuracy"],
        rows=attack["row_accuracy"],
        columns=attack["column_accuracy"],
        chance=1 / whole,
        copy=attack["accuracy"],
        without=without["accuracy"],
        own=own["accuracy"],
        agreement=attack["fidelity"],
        seconds=seconds,
    )


def _last(rows: Sequence[dict[str, Any]], attack: str) -> dict[str, Any]:
    return next(row for row in rows if row["attack"] == attack and row["last"])
