"""The cells of a study's stream: tapped, hijacked, scored, and the files in between.

Only `tap_cells` and `score_cells` are given the answer. What the hijack reads are the puzzles and the traffic as seen.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.attacks.base import Machine, Placed
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.config.stream import StreamCell
from scatterproof.judging.judge import Judge, placed, score_together
from scatterproof.judging.traffic.hijack_scores import GroupScores, at_positions, score_groups, score_labels
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.running.files import atomic
from scatterproof.running.interrupt import stop_if_asked
from scatterproof.running.seeds import numpy_generator
from scatterproof.stream.hijack.attack import Hijack, HijackSettings, evidence_of
from scatterproof.stream.hijack.grouping import Groups
from scatterproof.stream.hijack.labelling import LabelEvidence, label_by_traffic, own_groups
from scatterproof.stream.hijack.tap import Seen, Traffic, tap
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.obfuscate import Overhead, overhead, redealing_bytes
from scatterproof.stream.network.simulate import simulate

Arrays = dict[str, NDArray[Any]]
COMPARED = 20  # requests, plain and hidden, that overheads are measured on


def tap_groups(cells: Sequence[StreamCell]) -> dict[StreamCell, list[int]]:
    """The numbers of the cells that see one and the same traffic, by one of them."""
    groups: dict[StreamCell, list[int]] = {}
    for number, cell in enumerate(cells):
        groups.setdefault(replace(cell, hijack="naive"), []).append(number)
    return groups


def sizes_of(puzzle: Puzzle | Answer) -> Sizes:
    """The cut of the one layer that is served."""
    (grid,) = puzzle.layout.grids.values()
    return Sizes.of(grid.outputs, grid.inputs, grid.height, grid.width)


def tap_cell(
    cell: StreamCell, sizes: Sizes, own: NDArray[np.int64], key: tuple[int | str, ...]
) -> tuple[Traffic, Seen, Overhead]:
    """Deal the blocks, serve, and tap. own: positions of the blocks held, in the puzzle's order; key: of the draws."""
    hiding = cell.obfuscation
    rng = numpy_generator("stream", cell.layout, *key)
    deployment = Deployment.dealt(sizes, rng, hiding.per_device, cell.topology, own=own)
    served = simulate(deployment, cell.requests, rng, hiding, cell.order)
    traffic, seen = tap(served, deployment, hiding, cell.observed, rng, own, cell.labelled)
    plain = simulate(Deployment.dealt(sizes, rng, 1, cell.topology), COMPARED, rng, order=cell.order)
    hidden = simulate(deployment, max(COMPARED, hiding.session), rng, hiding, cell.order)
    sessions = len(hidden.latency) / hiding.session if hiding.session else 0
    return traffic, seen, overhead(hidden, plain, round(sessions * redealing_bytes(deployment)))


def tap_cells(
    cells: Sequence[StreamCell], answers: Mapping[float, Answer], key: tuple[int | str, ...]
) -> tuple[Arrays, Arrays]:
    """What is seen in each cell, and, for scoring alone, what it was and what hiding it cost; arrays of two .npz.

    answers: by the share held, 0: the base answer.
    """
    seen_arrays: Arrays = {}
    truth: Arrays = {}
    for cell, numbers in tap_groups(cells).items():
        answer = answers[cell.held]
        own = answer.placement.positions.numpy() if cell.held else np.empty(0, np.int64)
        traffic, seen, cost = tap_cell(cell, sizes_of(answer), own, key)
        prefix = f"{numbers[0]}."
        seen_arrays |= traffic.arrays(prefix)
        truth |= {f"{prefix}record": seen.record, f"{prefix}position": seen.position, f"{prefix}cost": np.array(cost)}
    return seen_arrays, truth


@dataclass(frozen=True)
class HijackResult:
    """What a hijack made of a cell: groups and, by traffic alone, labels of the last request's records; of the blocks
    held, if any, their groups and where they are put; minutes that it took."""

    groups: Groups
    labels: Groups
    own: tuple[NDArray[np.int64], NDArray[np.int64]]
    reached: Placed | None
    minutes: float


def hijack_cells(
    cells: Sequence[StreamCell],
    puzzles: Mapping[float, Puzzle],
    traffic: Mapping[str, NDArray[Any]],
    machine: Machine,
    fingerprint: Fingerprint,
) -> Iterator[HijackResult]:
    """Every cell, in order. puzzles: by the share held; traffic: as `tap_cells` gave it; fingerprint: to be called."""
    first_of = {number: numbers[0] for numbers in tap_groups(cells).values() for number in numbers}
    evidence = {held: _timed(puzzle, machine) for held, puzzle in puzzles.items() if held}
    for number, cell in enumerate(cells):
        seen = Traffic.of_arrays(traffic, f"{first_of[number]}.", cell.topology, cell.obfuscation)
        started = time.perf_counter()
        attack = Hijack(HijackSettings(method=cell.hijack), [fingerprint])
        groups = attack.groups(seen)
        reached, own, shared = None, (np.empty(0, np.int64), np.empty(0, np.int64)), 0.0
        if cell.held:
            held, shared = evidence[cell.held]
            reached = attack.placement(seen, held, groups)
            mine = own_groups(seen, groups, len(held.flat), cell.hijack != "naive")
            own = mine.column, mine.row
        minutes = shared + (time.perf_counter() - started) / 60
        yield HijackResult(groups, label_by_traffic(seen, groups), own, reached, minutes)
        stop_if_asked(f"in cell {number}")


def _timed(puzzle: Puzzle, machine: Machine) -> tuple[LabelEvidence, float]:
    """The blocks' evidence, made once for many cells, and the minutes that each of them owes for it."""
    started = time.perf_counter()
    return evidence_of(puzzle, machine), (time.perf_counter() - started) / 60


def score_cells(
    cells: Sequence[StreamCell],
    results: Sequence[HijackResult],
    truth: Mapping[str, NDArray[Any]],
    answers: Mapping[float, Answer],
    judges: Mapping[float, Judge],
) -> list[dict[str, Any]]:
    """One row a cell. Indices, bits and places are counted over the blocks held, or over all where none is held.

    answers, judges: by the share held, 0: the base answer alone.
    """
    ends = [(cell, one.reached) for cell, one in zip(cells, results, strict=True) if one.reached is not None]
    score_together([(judges[cell.held], reached) for cell, reached in ends])
    first_of = {number: numbers[0] for numbers in tap_groups(cells).values() for number in numbers}
    known = {held: judge.known_places.accuracy for held, judge in judges.items()}
    rows = []
    for number, (cell, one) in enumerate(zip(cells, results, strict=True)):
        prefix = f"{first_of[number]}."
        seen = Seen(truth[f"{prefix}record"], truth[f"{prefix}position"])
        cost = Overhead(*truth[f"{prefix}cost"].tolist())
        sizes = sizes_of(answers[cell.held])
        accuracy: float | None = None
        if one.reached is None:
            everything = np.arange(sizes.count)
            scores = score_groups(one.groups, seen, sizes, everything)
            labels = one.labels
            column, row = (at_positions(labels.record, each, seen, sizes.count) for each in (labels.column, labels.row))
            position = float(((column == everything % sizes.columns) & (row == everything // sizes.columns)).mean())
        else:
            positions = answers[cell.held].placement.positions.numpy()
            scores = score_labels(positions, one.own, sizes)
            judge = judges[cell.held]
            position = placed(one.reached, judge.puzzle, judge.answer)["position_accuracy"]
            accuracy = judge.score(one.reached).accuracy
        rows.append(_row(cell, scores, position, accuracy, known.get(cell.held), cost) | {"minutes": one.minutes})
    return rows


def _row(
    cell: StreamCell,
    scores: GroupScores,
    position: float,
    accuracy: float | None,
    known: float | None,
    cost: Overhead,
) -> dict[str, Any]:
    return {
        "keep": cell.held,
        "obfuscation": cell.obfuscation.name,
        "params": cell.obfuscation.params,
        "topology": cell.topology,
        "order": cell.order,
        "observed_share": cell.observed,
        "labelled": cell.labelled,
        "requests": cell.requests,
        "hijack": cell.hijack,
        "column_ari": scores.column_ari,
        "row_ari": scores.row_ari,
        "position_accuracy": position,
        "accuracy": accuracy,
        "known_places_accuracy": known,
        "bandwidth_overhead": cost.bandwidth,
        "latency_overhead": cost.latency,
        "anonymity_bits": scores.anonymity_bits,
        "seed": cell.layout,
    }


def save_arrays(path: Path, arrays: Arrays) -> None:
    """Write an .npz atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> Arrays:
    """Read what `save_arrays` wrote."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def found_arrays(results: Sequence[HijackResult]) -> Arrays:
    """What the hijacks found, as arrays of one .npz."""
    arrays: Arrays = {}
    for number, one in enumerate(results):
        parts = {"record": one.groups.record, "column": one.groups.column, "row": one.groups.row}
        parts |= {"label_column": one.labels.column, "label_row": one.labels.row}
        parts |= {"own_column": one.own[0], "own_row": one.own[1], "minutes": np.array(one.minutes)}
        if one.reached is not None:
            parts |= {name: getattr(one.reached, name).numpy() for name in ("placement", "candidates", "beliefs")}
        arrays |= {f"{number}.{name}": value for name, value in parts.items()}
    return arrays


def found_of(arrays: Arrays, count: int) -> list[HijackResult]:
    """The inverse of `found_arrays`."""
    results = []
    for number in range(count):
        part = {name: arrays[f"{number}.{name}"] for name in ("record", "column", "row", "label_column", "label_row")}
        reached = None
        if f"{number}.placement" in arrays:
            placement, candidates, beliefs = (
                torch.from_numpy(arrays[f"{number}.{name}"]) for name in ("placement", "candidates", "beliefs")
            )
            reached = Placed(placement, candidates, beliefs)
        results.append(
            HijackResult(
                Groups(part["record"], part["column"], part["row"]),
                Groups(part["record"], part["label_column"], part["label_row"]),
                (arrays[f"{number}.own_column"], arrays[f"{number}.own_row"]),
                reached,
                float(arrays[f"{number}.minutes"]),
            )
        )
    return results
