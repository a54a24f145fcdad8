"""What the controls of an attack say of it: that they passed, that one failed, or that it has none. Imports no torch.

An attack whose planted control failed is too weak for its failures to mean anything; one whose random control failed
finds what is not there. Neither is chosen as the best, and wherever one is named its mark stands beside it.
"""

import re

import numpy as np
import pandas as pd

from scatterproof.config.attacks import NEEDS, taught_by
from scatterproof.config.settings.ceilings import FORMS
from scatterproof.config.stream import service_of
from scatterproof.config.threat import WITH_STREAM, knows_of

_NAMES = re.compile("|".join([*(re.escape(form) for form in sorted(FORMS, key=len, reverse=True)), r"[^+]+"]))
PASSED, FAILED, NONE = "", "control failed", "no control"
CEILING = "whitebox"


def controls_of(controls: pd.DataFrame, victim: str, threat: str) -> pd.DataFrame:
    """Those of a victim's attacks; of a hijack on the service that the threat taps, of one that learns by what it
    learns from: labels or logits."""
    if controls.empty:
        return controls
    tapped = controls["threat"].str.contains(WITH_STREAM, regex=False)
    same = controls["threat"].map(service_of) == service_of(threat)
    pairs = zip(controls["attack"], controls["threat"].map(knows_of), strict=True)
    alike = np.array([taught_by(name, knows) == taught_by(name, knows_of(threat)) for name, knows in pairs], bool)
    return controls[(controls["victim"] == victim) & (~tapped | same) & alike]


def state_of(attack: str, controls: pd.DataFrame) -> str:
    """`PASSED`, also for an attack that reads no block; `control failed: planted, random`; or `no control`."""
    if not reads_blocks(attack):
        return PASSED
    own = controls[controls["attack"] == attack]
    if own.empty:
        return NONE
    wrong = sorted(set(own[~own["passed"].astype(bool)]["control"]))
    return f"{FAILED}: {', '.join(wrong)}" if wrong else PASSED


def reads_blocks(attack: str) -> bool:
    """Whether an attack is of the kind that needs controls; searches and hijacks are, ceilings are no attacks."""
    return NEEDS[attack].role == "blocks" if attack in NEEDS else attack not in (CEILING, *FORMS)


def of_search_grids(table: pd.DataFrame) -> pd.Series:
    """Which rows are of `search.grids`, which has no controls: those of `attacks` run with other settings."""
    if "budget" in table:
        return table["budget"].notna()
    params = table["params"] if "params" in table else pd.Series("", table.index)
    return params.fillna("").astype(str).str.contains("budget=", regex=False)


def with_controls(table: pd.DataFrame, controls: pd.DataFrame, attack: str = "attack") -> pd.DataFrame:
    """A table that has `victim`, `threat` and a column of attacks, with `control`: each one's state as `state_of`."""
    keys = list(zip(table["victim"], table["threat"], table[attack], strict=True))
    states = {
        (victim, threat, name): state_of(str(name), controls_of(controls, str(victim), str(threat)))
        for victim, threat, name in dict.fromkeys(keys)
    }
    control = pd.Series([states[key] for key in keys], index=table.index, dtype=object)
    return table.assign(control=control.mask(of_search_grids(table), NONE))


def has_failed(states: pd.Series) -> "pd.Series[bool]":
    """Which of these states are of an attack with a failed control."""
    return states.astype(str).str.startswith(FAILED)


def marked(attack: str, state: str) -> str:
    """`refine (control failed: planted)`, `annealing (no control)`; the name alone where the controls passed."""
    return f"{attack} ({state})" if state else attack


def marked_all(attacks: str, controls: pd.DataFrame) -> str:
    """Attacks as the ledger names them, joined by `+`, each with its mark; `(none)` stays as it is."""
    if attacks.startswith("("):
        return attacks
    return "+".join(marked(name, state_of(name, controls)) for name in _NAMES.findall(attacks))
