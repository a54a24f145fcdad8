"""The forms of the told ceiling: what the pirate who is told all places and keys makes of the layers.

told        the blocks in their places, keys undone; where some are missing, each row's sum is corrected
told+train  from there the layers are trained as `layer` trains them without blocks, on the same images held out; and,
            where the study runs them, as `blocks` and `finetune` do
told+core   a core is trained on what the known part shows of the rest: see `supports`
told+free   the same without labels: see `label_free`

What is best on images held out counts. It is no upper bound on all pirates.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

from scatterproof.attacks.base import Copy, Run
from scatterproof.attacks.runner import make_attack
from scatterproof.attacks.training.base import Training, fresh_start, named, recipe_of
from scatterproof.attacks.training.cached import Cached, cache
from scatterproof.attacks.training.finetune import Finetune
from scatterproof.attacks.training.fitting import Choice, Fit, Start, Tensors
from scatterproof.config.attacks import AttackSettings
from scatterproof.config.settings.ceilings import AS_IS, CORE, LABEL_FREE, TRAINED_ON, Form
from scatterproof.judging.ceilings.label_free import LabelFreeFit
from scatterproof.judging.ceilings.supports import MISSING, NULL, CoreTask, core_tasks
from scatterproof.judging.ceilings.told import ToldLayers
from scatterproof.puzzle import Puzzle

Key = tuple[int | str, ...]


@dataclass(frozen=True)
class Trial:
    """Trainings of one kind: what images held out chose, the network trained so, minutes that killed jobs had spent."""

    name: str
    choice: Choice
    finish: Callable[[], Copy]
    earlier: float


@dataclass(frozen=True)
class FormResult:
    """What a form came to: its network, the minutes that it took, and in words what was chosen."""

    form: Form
    copy: Copy
    minutes: float
    chosen: str
    support: str = ""


@dataclass(frozen=True)
class ToldPirate:
    """The pirate of one puzzle that is told. config: the study's attacks; attacks: those that it runs on this threat;
    run: its key as an attack's, but for the attack's name; a folder in it keeps what finished trainings came to."""

    puzzle: Puzzle
    told: ToldLayers
    config: AttackSettings
    attacks: Sequence[str]
    run: Run

    def result(self, form: Form) -> FormResult:
        """What a form comes to."""
        started = time.perf_counter()
        best: Trial | None = None
        if form != AS_IS and not (form == LABEL_FREE and self.told.lacks_nothing):
            trials = {TRAINED_ON: self._trained, CORE: self._cores, LABEL_FREE: self._label_free}[form]()
            best = min(trials, key=lambda trial: trial.choice.loss)
        copy = Copy(named(self.told.as_is)) if best is None else best.finish()
        minutes = (time.perf_counter() - started) / 60 + (0.0 if best is None else best.earlier)
        return FormResult(form, copy, minutes, _words(best), "" if best is None else best.name)

    @cached_property
    def _cached(self) -> Cached:
        """The missing layers as a task; without labels its targets are never read."""
        puzzle = self.puzzle
        if puzzle.labels is None and puzzle.logits is None:
            puzzle = replace(puzzle, labels=torch.zeros(len(puzzle.images), dtype=torch.int64))
        return cache(puzzle, self.run.machine.device)

    @cached_property
    def _layer(self) -> Training:  # type: ignore[type-arg]
        made = make_attack(self.config, "layer")
        assert isinstance(made, Training)
        return made

    @cached_property
    def _key(self) -> Key:
        """That of the pirate without blocks who trains the layer: the same images held out, the same draws."""
        return self._layer.key(replace(self.run, key=(*self.run.key, self._layer.name)))

    @cached_property
    def _fresh(self) -> Start:
        return fresh_start(self.puzzle, self._cached, self._key)

    def _on_device(self, weights: Tensors) -> dict[str, torch.Tensor]:
        return {name: weight.to(self.run.machine.device) for name, weight in weights.items()}

    def _trained(self) -> Iterator[Trial]:
        """The layers alone, from the blocks or as new; where blocks are all missing, just as without them."""
        as_is = self._on_device(self.told.as_is)
        at_blocks = {} if self.told.lacks_all else {"blocks": Start.at(self._cached.folded(as_is))}
        starts = at_blocks | {"new": self._fresh}
        fits = {"layer": Fit(self._cached, starts, self._layer.recipe, self._key, self._kept("layer"))}
        if "blocks" in self.attacks and at_blocks:
            recipe = recipe_of(self.config.blocks)
            fits["blocks"] = Fit(self._cached, at_blocks, recipe, self._key, self._kept("blocks"))
        for name, fit in fits.items():
            choice = fit.choose()
            yield Trial(name, choice, lambda fit=fit, choice=choice: self._copy(fit, choice, as_is), fit.minutes)  # type: ignore[misc]
        if "finetune" in self.attacks:
            yield self._finetuned(starts, as_is)

    def _finetuned(self, starts: dict[str, Start], as_is: Tensors) -> Trial:
        finetune = make_attack(self.config, Finetune.name)
        assert isinstance(finetune, Finetune)
        recipe = replace(self._layer.recipe, held_out=finetune.settings.held_out)
        fit = Fit(self._cached, starts, recipe, self._key, self._kept("finetune.layer"))
        first = fit.choose()
        parts = fit.split()[0], torch.arange(len(self.puzzle.images))
        begun = [self._weights(fit, first, as_is, part) for part in parts]
        device = self.run.machine.device
        choice, copy = finetune.from_layers(self.puzzle, begun, device, self._key, self._kept("finetune"))
        return Trial(Finetune.name, choice, lambda: replace(copy, earlier=0.0), fit.minutes + copy.earlier)

    def _copy(self, fit: Fit, choice: Choice, as_is: Tensors) -> Copy:
        return Copy(named(self._weights(fit, choice, as_is, torch.arange(len(self.puzzle.images)))))

    def _weights(self, fit: Fit, choice: Choice, as_is: Tensors, index: torch.Tensor) -> dict[str, torch.Tensor]:
        """The layers' own weights after training on these images."""
        trained, anchor = fit.trained(choice, index), fit.starts[choice.start].anchor
        change = self._cached.unfolded({name: value - anchor[name] for name, value in trained.items()})
        return {name: as_is[name] + value if choice.start == "blocks" else value for name, value in change.items()}

    @cached_property
    def _core_tasks(self) -> dict[str, tuple[CoreTask, dict[str, Start]]]:
        return core_tasks(self.told, self._cached, self._fresh.parameters)

    def _cores(self) -> Iterator[Trial]:
        for name, (task, starts) in self._core_tasks.items():
            yield self._core(name, task, Fit(task, starts, self._layer.recipe, self._key, self._kept(f"core.{name}")))

    def _label_free(self) -> Iterator[Trial]:
        """On missing entries or a null space alone, where there are such; new weights would lead its guesses astray."""
        sure = [name for name in self._core_tasks if name.partition(" ")[0] in (MISSING, NULL)]
        for name in sure or self._core_tasks:
            task, starts = self._core_tasks[name]
            kept = self._kept(f"free.{name}")
            fit = LabelFreeFit(task, {"zero": starts["zero"]}, self._layer.recipe, self._key, kept)
            yield self._core(name, task, fit)

    def _core(self, name: str, task: CoreTask, fit: Fit) -> Trial:
        choice = fit.choose()
        known = self._on_device(self.told.weights)

        def finish() -> Copy:
            added = task.added(fit.trained(choice, torch.arange(len(self.puzzle.images))))
            return Copy(named({layer: weight + added[layer] for layer, weight in known.items()}))

        return Trial(name, choice, finish, fit.minutes)

    def _kept(self, name: str) -> Path | None:
        """The file that keeps what trainings of this name came to, named by all that they depend on."""
        if self.run.work is None:
            return None
        told = hashlib.blake2b(digest_size=8)
        for layer, weight in self.told.weights.items():
            told.update(weight.contiguous().numpy().tobytes() + self.told.missing[layer].numpy().tobytes())
        about = {
            "of": [name, self._layer.identity(self.puzzle, self.run), told.hexdigest(), self.told.rank],
            "settings": [make_attack(self.config, each).described() for each in ("blocks", Finetune.name)],
        }
        digest = hashlib.blake2b(json.dumps(about, sort_keys=True).encode(), digest_size=8).hexdigest()
        return self.run.work / f"{name.replace(' ', '-')}.{digest}.json"


def _words(trial: Trial | None) -> str:
    """What was chosen, for a table."""
    if trial is None:
        return "as is"
    chose = trial.choice
    return f"{trial.name} from {chose.start}, rate={chose.rate:g}, decay={chose.decay:g}, updates={chose.updates}"
