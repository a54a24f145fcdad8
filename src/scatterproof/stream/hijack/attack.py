"""The stream hijack (P3): from traffic to groups, from groups and the blocks held to a placement.

Grouping is grouping.py's and learned.py's work, labelling labelling.py's. A pirate that holds no block is left with
the groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import ClassVar

from pydantic import Field

from scatterproof.attacks.base import Attack, AttackError, Machine, Placed, Run
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import find_surroundings
from scatterproof.config.settings.base import Known, Settings
from scatterproof.config.stream import HijackName
from scatterproof.puzzle import Puzzle
from scatterproof.stream.hijack.grouping import Groups, adaptive_groups, naive_groups
from scatterproof.stream.hijack.labelling import (
    LabelEvidence,
    Labels,
    bound,
    label_by_blocks,
    match_columns,
    own_groups,
    place,
    with_leaks,
)
from scatterproof.stream.hijack.learned import learned_groups, spectral_groups
from scatterproof.stream.hijack.tap import Traffic

GROUPING = {
    "naive": naive_groups,
    "adaptive": adaptive_groups,
    "matching": adaptive_groups,
    "spectral": spectral_groups,
    "learned": learned_groups,
}


@dataclass(frozen=True)
class TappedPuzzle(Puzzle):
    """A puzzle of which the pirate has seen the traffic too; its blocks are numbered as the traffic numbers them."""

    traffic: Traffic = field(kw_only=True)

    @classmethod
    def of(cls, puzzle: Puzzle, traffic: Traffic) -> "TappedPuzzle":
        """The puzzle and the traffic together."""
        return cls(**{one.name: getattr(puzzle, one.name) for one in fields(Puzzle)}, traffic=traffic)


def evidence_of(puzzle: Puzzle, machine: Machine) -> LabelEvidence:
    """What the blocks held say by themselves; the same for all traffic."""
    (name,) = puzzle.layout.grids
    around = find_surroundings(puzzle, name, machine.device)
    return LabelEvidence.of(puzzle.blocks.to(machine.device), puzzle.shapes.to(machine.device), around)


class HijackSettings(Settings):
    """A stream hijack. It needs one scattered layer; the traffic comes with the puzzle."""

    method: HijackName = Field("adaptive", description="how the traffic is grouped and, for `matching`, labelled")
    rounds: int = Field(15, ge=0, description="how often, at most, groups are labelled anew by what the others predict")


class Hijack(Attack[HijackSettings]):
    """Groups by the traffic, placed by the blocks held."""

    name = "hijack"
    Settings = HijackSettings
    calls = (Fingerprint,)
    reads: ClassVar[tuple[Known, ...]] = ("none",)

    def groups(self, traffic: Traffic) -> Groups:
        """Which messages of the last request belong to one column and one row."""
        return GROUPING[self.settings.method](traffic)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        """The placement by the groups' own evidence, then after each round. Raises: AttackError without traffic."""
        if not isinstance(puzzle, TappedPuzzle):
            raise AttackError("hijack needs the traffic of the puzzle's devices, and was given none")
        traffic = puzzle.traffic
        groups = self.groups(traffic)
        evidence = informed(evidence_of(puzzle, run.machine), traffic, groups)
        for labels in self.labels(traffic, evidence, groups):
            yield place(evidence, labels)
        if not labels.complete:
            yield self.together(evidence, labels)

    def placement(self, traffic: Traffic, evidence: LabelEvidence, groups: Groups | None = None) -> Placed:
        """The last step alone, from the blocks' own evidence and, if they are at hand, groups."""
        groups = self.groups(traffic) if groups is None else groups
        evidence = informed(evidence, traffic, groups)
        *_, labels = self.labels(traffic, evidence, groups)
        return place(evidence, labels) if labels.complete else self.together(evidence, labels)

    def labels(self, traffic: Traffic, evidence: LabelEvidence, groups: Groups) -> Iterator[Labels]:
        """The columns and rows of the blocks held, by their groups' own evidence, then after each round."""
        own = own_groups(traffic, groups, len(evidence.flat), self.settings.method != "naive")
        if self.settings.method == "matching":
            yield match_columns(evidence, own, next(label_by_blocks(evidence, own, 0)))
            return
        yield from label_by_blocks(evidence, own, self.settings.rounds)

    def together(self, evidence: LabelEvidence, labels: Labels) -> Placed:
        """The fingerprint's placement, which lets all blocks predict each other, held to what labels there are."""
        grid = evidence.around.grid
        blocks = evidence.flat.view(-1, grid.height, grid.width)
        column, row = bound(evidence, labels)
        extra_evidence = (
            (column, row) if evidence.leaks is None else (column + evidence.leaks[0], row + evidence.leaks[1])
        )
        *_, last = self.calling(Fingerprint).placements(
            blocks, evidence.shapes, evidence.around, dense=0, extra_evidence=extra_evidence
        )
        return last


def informed(evidence: LabelEvidence, traffic: Traffic, groups: Groups) -> LabelEvidence:
    """The blocks' evidence and what leaked places say, if any have."""
    return with_leaks(evidence, traffic, groups) if len(traffic.labelled) else evidence
