"""The plateau: from how many correct blocks and images on fitness tells a right move from a wrong one.

It needs the answer, so it is an analysis and no attack. For each share of blocks right already it draws placements of
all blocks held and two exchanges in each: a *right* move puts one misplaced block at its true position, a *wrong* move
puts none there. A search climbs where the first kind's change of fitness can be told from the second's. Whole blocks
only; edges, whose shape betrays their place, stay where they belong. Fitness is accuracy, or minus the mean
cross-entropy, so that higher is better; the loss is rounded to a millionth of its mean, about what fp32 resolves, so
that equal means equal.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.blocks import UNPLACED, placements_of
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Answer
from scatterproof.running.seeds import seed_of, torch_generator

Floats = NDArray[np.float64]
Key = tuple[int | str, ...]

RESAMPLES = 2000
LEAST_MISPLACED = 4  # with fewer, every exchange may put a block right
_RESOLUTION = 1e-6
_PERCENTILES = (2.5, 97.5)


class Moves(NamedTuple):
    """What lies at each position, int64 [draws, positions], -1 an empty place: before, after a right, a wrong move."""

    start: torch.Tensor
    right: torch.Tensor
    wrong: torch.Tensor


def plateau(
    evaluator: PlacementEvaluator,
    answer: Answer,
    correct: Sequence[float],
    images: Sequence[int],
    draws: int,
    key: Key,
) -> list[dict[str, Any]]:
    """One row for each share of blocks right, number of images and fitness.

    correct: shares of the whole blocks held; a share that leaves fewer than four misplaced is left out. images: the
    first so many of one random order of the evaluator's, so that a smaller set is part of a larger one.
    `signal`: mean change of fitness by a right move; `noise`: standard deviation of the change by a wrong one; `snr`:
    their ratio, NaN where no wrong move changed anything; `auc`: chance that a right move changes fitness by more than
    a wrong one, ties half; `raising`: share of right moves that raise fitness; `distinct`: fitness values among the
    placements before their moves. `_low`, `_high`: 95 % percentile interval of a bootstrap over draws, NaN where open;
    it holds for these images, and says nothing about other ones. Time and memory grow with the square of draws.
    Raises: ValueError for shares, images or draws out of range, or an evaluator without labels.
    """
    _check(evaluator, correct, images, draws)
    counts = sorted(set(images))
    assert evaluator.targets.labels is not None
    order = torch.randperm(len(evaluator.targets.labels), generator=torch_generator("plateau images", *key))
    weights = _resamples(draws, key)
    blocks = int(_whole(answer)[1].sum())
    rows = []
    for number in sorted({round(share * blocks) for share in correct}):
        if blocks - number < LEAST_MISPLACED:
            continue
        moves = draw_moves(answer, number, draws, torch_generator("plateau", number, *key))
        by_fitness = _fitness(evaluator, torch.cat(moves), len(answer.placement), order, counts)
        for fitness, (values, steps) in by_fitness.items():
            by_kind = values.reshape(3, draws, -1)
            for column, (count, step) in enumerate(zip(counts, steps.tolist(), strict=True)):
                start, right, wrong = by_kind[..., column]
                head = {"images": count, "correct": number, "correct_share": number / blocks, "fitness": fitness}
                distinct = {"draws": draws, "distinct": len(np.unique(start))}
                rows.append(head | distinct | _contrast(right - start, wrong - start, step, weights))
    return rows


def draw_moves(answer: Answer, correct: int, draws: int, generator: torch.Generator) -> Moves:
    """Placements with exactly so many whole blocks right, and one right and one wrong move in each.

    Which blocks are right is uniform, and so are the others' positions among the arrangements with none of them right
    (and with one whose return does not by luck put a second right). A right move takes one of those blocks to its
    true position and adds exactly one; a wrong move takes one to any other place that is not another right block's
    and adds none. What lay there, another misplaced block or nothing, comes back in exchange.
    """
    positions, held = _whole(answer)
    # Free items, by number: the misplaced blocks, then what fills the empty places; item i belongs at free place i.
    free = (torch.rand(draws, len(held), generator=generator) + 2 * ~held).argsort(1)[:, correct:]
    misplaced = int(held.sum()) - correct
    at = _arrange(draws, free.shape[1], misplaced, generator)  # free place -> item that lies there
    place_of = at.argsort(1)
    item = _choose(~_returns_two(at, place_of, misplaced), generator)
    right = torch.stack([place_of.gather(1, item[:, None])[:, 0], item], 1)
    item = torch.randint(misplaced, (draws, 1), generator=generator)
    here = place_of.gather(1, item)
    places = torch.arange(free.shape[1])
    allowed = (places != here) & (places != item) & ~((at == here) & (at < misplaced))
    wrong = torch.cat([here, _choose(allowed, generator)[:, None]], 1)
    true = answer.placement.blocks()
    start = true.repeat(draws, 1).scatter(1, positions[free], true[positions[free.gather(1, at)]])
    return Moves(start, *(_exchange(start, positions[free.gather(1, pair)]) for pair in (right, wrong)))


def _whole(answer: Answer) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of whole blocks, and whether the block of each is held: both [whole]."""
    positions = answer.layout.ambiguous().nonzero().flatten()
    return positions, answer.placement.blocks()[positions] != UNPLACED


def _arrange(draws: int, places: int, misplaced: int, generator: torch.Generator) -> torch.Tensor:
    """What lies at each free place [draws, places]: uniform where none of the first `misplaced` items lies at its own
    and one can go there alone; by rejection, which takes about three tries whatever the sizes."""
    at = torch.empty(draws, places, dtype=torch.int64)
    todo = torch.arange(draws)
    while len(todo):
        at[todo] = tried = torch.rand(len(todo), places, generator=generator).argsort(1)
        lucky = (tried == torch.arange(places))[:, :misplaced].any(1)
        todo = todo[lucky | _returns_two(tried, tried.argsort(1), misplaced).all(1)]
    return at


def _returns_two(at: torch.Tensor, place_of: torch.Tensor, misplaced: int) -> torch.Tensor:
    """Whether the exchange that puts an item right puts a second one right: [draws, misplaced]."""
    other = at[:, :misplaced]
    return (other == place_of[:, :misplaced]) & (other < misplaced)


def _choose(allowed: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A uniformly random column of those allowed in each row."""
    return torch.rand(allowed.shape, generator=generator).masked_fill_(~allowed, -1).argmax(1)


def _exchange(block_at: torch.Tensor, pair: torch.Tensor) -> torch.Tensor:
    return block_at.scatter(1, pair, block_at.gather(1, pair.flip(1)))


def _fitness(
    evaluator: PlacementEvaluator, block_at: torch.Tensor, held: int, order: torch.Tensor, counts: Sequence[int]
) -> dict[str, tuple[Floats, Floats]]:
    """Fitness on the first so many images in this order, of each kind: whole numbers [placements, counts] of steps,
    for differences to be equal where they should be, and the size of a step [counts]."""
    labels = evaluator.targets.labels
    assert labels is not None
    # Filled in place: small results kept between large temporaries would keep the heap from using their memory again
    right = torch.empty(len(block_at), len(labels), dtype=torch.bool)
    loss = torch.empty(len(block_at), len(labels))
    done = 0
    for logits in _logits(evaluator, block_at, held):
        part = slice(done, done + len(logits))
        right[part] = logits.argmax(2) == labels
        loss[part] = evaluator.targets.loss(logits.flatten(0, 1)).view(logits.shape[:2])
        done += len(logits)
    ends = torch.tensor(counts)
    hits, losses = (part[:, order].double().cumsum(1)[:, ends - 1] for part in (right, loss))
    step = (_RESOLUTION * losses.mean(0)).clamp(min=1e-12)
    return {
        "accuracy": (hits.numpy(), (1 / ends.double()).numpy()),
        "loss": (-(losses / step).round().numpy(), (step / ends).numpy()),
    }


def _logits(evaluator: PlacementEvaluator, block_at: torch.Tensor, held: int) -> Iterator[torch.Tensor]:
    """Logits [placements, images, classes], a batch at a time."""
    if evaluator.engine is None:
        for placement in placements_of(block_at, held):
            yield evaluator.logits(placement)[None].float()
        return
    for logits in evaluator.engine.logits(block_at.to(evaluator.device)):
        yield logits.float()


def _resamples(draws: int, key: Key) -> Floats:
    """How often each draw occurs in each bootstrap resample: [resamples, draws]."""
    rng = np.random.default_rng(seed_of("plateau bootstrap", *key))
    return rng.multinomial(draws, np.full(draws, 1 / draws), size=RESAMPLES).astype(np.float64)


def _contrast(right: Floats, wrong: Floats, step: float, weights: Floats) -> dict[str, float]:
    """Signal, noise, their ratio and auc of the changes by right and wrong moves, both [draws] and in steps."""
    above = np.sign(right[:, None] - wrong) / 2 + 0.5
    once = np.ones((1, len(right)))
    noise = float(wrong.std(ddof=1))
    snr = (float(_snr(right, wrong, once)[0]), *_interval(_snr(right, wrong, weights))) if noise else (math.nan,) * 3
    auc = (float(_auc(above, once)[0]), *_interval(_auc(above, weights)))
    return {
        "signal": step * float(right.mean()),
        "noise": step * noise,
        **dict(zip(("snr", "snr_low", "snr_high"), snr, strict=True)),
        **dict(zip(("auc", "auc_low", "auc_high"), auc, strict=True)),
        "raising": float((right > 0).mean()),
    }


def _snr(right: Floats, wrong: Floats, weights: Floats) -> Floats:
    """Per row of weights the mean of `right` over the standard deviation of `wrong`; 0 / 0 is 0."""
    draws = len(right)
    wrong = wrong - wrong.mean()
    squares = weights @ wrong**2 - (weights @ wrong) ** 2 / draws
    squares[squares < 1e-12 * draws * (wrong**2).max()] = 0  # a resample of equal changes, but for rounding
    noise = np.sqrt(squares / (draws - 1))
    signal = weights @ right / draws
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal == 0, 0.0, signal / noise)


def _auc(above: Floats, weights: Floats) -> Floats:
    """Per row of weights the chance that a right move beats a wrong one; above [right, wrong]: 1, or 1/2 for a tie."""
    auc: Floats = ((weights @ above) * weights).sum(1) / len(above) ** 2
    return auc


def _interval(values: Floats) -> tuple[float, float]:
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES, method="inverted_cdf"))
    return low if math.isfinite(low) else math.nan, high if math.isfinite(high) else math.nan


def _check(evaluator: PlacementEvaluator, correct: Sequence[float], images: Sequence[int], draws: int) -> None:
    labels = evaluator.targets.labels
    if labels is None:
        raise ValueError("the plateau needs labelled images")
    if not images or min(images) < 1 or max(images) > len(labels):
        raise ValueError(f"images {list(images)}: expected numbers from 1 to the {len(labels)} at hand")
    if not correct or not all(0 <= share <= 1 for share in correct):
        raise ValueError(f"shares of blocks right {list(correct)}: expected shares from 0 to 1")
    if draws < 2:
        raise ValueError(f"draws {draws}: expected at least 2")
