"""The result of an audit, in words."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from scatterproof.auditing.audited import Victim
from scatterproof.auditing.estimate import LayerEstimate
from scatterproof.victims.tasks import Task

MUCH, LITTLE = 0.9, 3.0  # of the blocks, or of what a layer adds to the score; times chance
ADDED = 0.05  # points of score that a layer must add: fewer are noise on some hundred inputs
CAUTION = (
    "This is an estimate from one shuffle and one attack, without controls. It is no verdict: another attack may "
    "do better."
)

SCORES: dict[Task, str] = {
    "classification": "The score is the share of right answers among {} classes.",
    "multilabel": "The score is the share of right answers to whether each of {} labels holds.",
    "regression": "The score is the share of {} numbers an input that are right within half a standard deviation.",
    "embedding": "The score is the mean cosine between the vectors of {} numbers and the model's own, whose score is "
    "100 % by definition; guessing is the best single vector.",
}


def percent(value: float | None) -> str:
    """`98.2 %`, or a dash."""
    return "-" if value is None else f"{100 * value:.1f} %"


def sentence(each: LayerEstimate) -> str:
    """One layer's estimate."""
    if each.note:
        return f"{each.layer}: not tried: {each.note}"
    return (
        f"{each.layer} ({each.shape}, {each.blocks} blocks): {percent(each.placed)} placed in {each.seconds:.1f} s; "
        f"the copy has {percent(each.copy)}, the model {percent(each.own)}, without the layer {percent(each.without)}"
    )


def answer(victim: Victim, estimates: Sequence[LayerEstimate], verdicts: pd.DataFrame | None, inputs: int) -> str:
    """The result in one sentence."""
    tried = [each for each in estimates if not each.note]
    if not tried:
        return f"No layer of {victim.name} could be attacked: {estimates[0].note if estimates else 'there is none'}."
    if verdicts is not None:
        counts = verdicts["verdict"].value_counts()
        each = ", ".join(f"{name}: {count}" for name, count in counts.items())
        without = len(tried) - len(verdicts)
        return f"Verdict for this model, by layer: {each}{f', no verdict: {without}' if without else ''}."
    known = f"{inputs} unlabelled {victim.noun}" if inputs else f"no {victim.noun} at all"
    back = [each for each in tried if _comes_back(each)]
    if back:
        worst = max(back, key=lambda each: each.placed or 0.0)
        return (
            f"With {known} a pirate puts {len(back)} of {len(tried)} layers together again: of {worst.layer} "
            f"{percent(worst.placed)} of the blocks in {worst.seconds:.0f} s."
        )
    most = max(tried, key=lambda each: each.placed or 0.0)
    return (
        f"With {known} the attack puts no layer of {len(tried)} together; the most it places is "
        f"{percent(most.placed)} of the blocks, of {most.layer}."
    )


def _comes_back(each: LayerEstimate) -> bool:
    """Whether the copy has nine tenths of what the layer adds to the model, or nine tenths of the blocks are placed."""
    assert each.own is not None and each.copy is not None and each.without is not None and each.placed is not None
    added = each.own - each.without
    regained = added > ADDED and each.copy - each.without >= MUCH * added
    return each.placed >= MUCH or (regained and each.placed > LITTLE * (each.chance or 0.0))


def score_words(victim: Victim) -> str:
    """What the model's score is, in one sentence."""
    if not victim.labelled and victim.dataset.task != "embedding":
        return (
            f"The data name no answers, so the model's own are right: which of {victim.dataset.classes} texts it finds "
            "nearest. Its score is 100 % by definition."
        )
    return SCORES[victim.dataset.task].format(victim.dataset.classes)


def facts(victim: Victim, about: dict[str, Any]) -> list[tuple[str, str]]:
    """How the audit was made."""
    data = victim.dataset
    return [
        ("model", victim.name),
        ("data", data.source),
        (f"{victim.noun} that the pirate holds", f"{about['inputs']}, unlabelled, of {len(data.pirate)}"),
        (f"{victim.noun} of the test", f"{len(data.test)}"),
        ("score of guessing", percent(data.chance)),
        ("blocks", f"{about['blocks']} x {about['blocks']} weights"),
        ("shuffle", f"drawn from seed {about['seed']}"),
    ]
