"""What networks answer to images: many networks in one pass over the images, each distinct one once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import NamedTuple

import torch

from scatterproof.evaluation.head import Features, Head, Images
from scatterproof.running.seeds import torch_generator
from scatterproof.victims.tasks import Task, answers

SAMPLE = 2000  # test images, of more, on which all but the last of an attack's steps are scored


class Candidate(NamedTuple):
    """A network to be scored: of two with equal keys every answer is the same.

    head: whose features of a part of the images `logits` takes, None where it takes the images uint8 themselves;
    logits: of the part [images, classes], some images at a time.
    """

    key: str
    head: Head | None
    logits: Callable[[Features], Iterator[torch.Tensor]]


class Predictions:
    """Answers of a task (`victims.tasks`), classes by default, to images, kept by what the networks are, so that equal
    ones are run once."""

    def __init__(self, images: Images, task: Task = "classification") -> None:
        self.images, self._task = images, task
        self._answers: dict[str, torch.Tensor] = {}

    def of(self, candidate: Candidate, count: int) -> torch.Tensor:
        """[count, ...]: on the first so many images, which must be all, or the `first` of them."""
        self.add([(candidate, count)])
        return self._answers[candidate.key][:count]

    def add(self, wanted: Iterable[tuple[Candidate, int]]) -> None:
        """Have those of many candidates ready, each on so many images: one pass over them for each head."""
        most: dict[str, tuple[Candidate, int]] = {}
        for candidate, count in wanted:
            known = most.get(candidate.key)
            if count > self._seen(candidate) and (known is None or count > known[1]):
                most[candidate.key] = candidate, count
        by_head = sorted(most.values(), key=lambda each: id(each[0].head))
        for _, group in groupby(by_head, key=lambda each: id(each[0].head)):
            self._pass(list(group))

    def _pass(self, group: list[tuple[Candidate, int]]) -> None:
        """Run candidates of one head: parts of the images outside, candidates inside."""
        head = group[0][0].head
        for begin, end in self.images.parts(len(self.images)) if head is None else head.parts():
            due = [each for each, count in group if self._seen(each) <= begin < count]
            if due:
                part = (self.images.at(begin, end),) if head is None else head.at(begin, end)
                for each in due:
                    said = [answers(logits, self._task).cpu() for logits in each.logits(part)]
                    before = [self._answers[each.key]] if each.key in self._answers else []
                    self._answers[each.key] = torch.cat([*before, *said])

    def _seen(self, candidate: Candidate) -> int:
        """On how many images its answers are known."""
        return len(self._answers.get(candidate.key, ()))


def in_fixed_order(pixels: torch.Tensor) -> Images:
    """Test images uint8 [n, C, H, W] in an order that a fixed seed draws once: every attack's steps but its last are
    scored on the first 2,000, or on all where there are fewer."""
    order = torch.randperm(len(pixels), generator=torch_generator("test images"))
    return Images(pixels, order, min(SAMPLE, len(pixels)))


def key_of(*parts: str | bytes | torch.Tensor) -> str:
    """A digest of contents, equal for equal ones."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        content = bytes_of(part) if isinstance(part, torch.Tensor) else part
        digest.update(hashlib.blake2b(content.encode() if isinstance(content, str) else content).digest())
    return digest.hexdigest()


def key_of_all(tensors: Mapping[str, torch.Tensor]) -> str:
    """The same of named tensors, in whatever order they come."""
    return key_of(*(part for name in sorted(tensors) for part in (name, tensors[name])))


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """A tensor's values as bytes."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
