"""`scatterproof.audit`: one model of one's own, in minutes."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from scatterproof.attacks.base import Machine
from scatterproof.auditing.audit_page import write_page
from scatterproof.auditing.audit_words import sentence
from scatterproof.auditing.audited import AuditError, Victim, chosen_layers, read_victim
from scatterproof.auditing.estimate import LayerEstimate, estimates
from scatterproof.auditing.verdicts import full_verdicts
from scatterproof.running.device import choose_device, set_up
from scatterproof.running.files import check_writable, write_csv, write_json

ESTIMATE, VERDICT, PAGE, TABLE = "audit.csv", "verdict.csv", "audit.html", "audit.json"
FREE = 50 * 2**20  # bytes for the page and tables
NO_TEST = 20  # inputs that a test needs at least


@dataclass(frozen=True)
class Audit:
    """The result of an audit.

    estimates: one for each layer, or one for all together; verdicts: as `tables/verdict.csv`, of the full audit alone;
    page: the HTML page; answer: the result in one sentence; unjudged: the layers to which the full audit could not
    give a verdict, and why.
    """

    model: str
    estimates: list[LayerEstimate]
    verdicts: pd.DataFrame | None
    page: Path
    answer: str
    unjudged: dict[str, str] = field(default_factory=dict)

    @property
    def table(self) -> pd.DataFrame:
        """The estimates as `audit.csv` has them."""
        return pd.DataFrame([each.row for each in self.estimates])


def audit(
    model: str,
    data: str,
    *,
    blocks: int = 128,
    layers: Sequence[str] | None = None,
    inputs: int = 100,
    together: bool = False,
    full: bool = False,
    out: Path | str = "audit",
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    shown: Callable[[str], None] = print,
    **of_victim: Any,
) -> Audit:
    """Scatter layers of a model in blocks, attack them as a pirate would, and say what that gives.

    model: as `victim.model` names it; data: `digits`, `cifar100`, or a file or folder of inputs; layers: paths or
    patterns, the largest dense layer by default; inputs: unlabelled ones that the pirate holds; together: all layers'
    blocks in one heap; full: with controls, the told ceiling and a verdict for this model; out: a folder for the page
    and the tables; threads: cores to use, all by default, of which the full audit shares out one or more to each of
    several layers at a time; of_victim: `checkpoint`, `width`, `input_size`, `length`, `index`, `model_args`, `task`.
    Raises: UserError, in one line.
    """
    if blocks < 2 or inputs < 0:
        raise AuditError(f"--blocks {blocks}, --inputs {inputs}: expected at least 2, and 0 or more")
    if full and together:
        raise AuditError("--full --together: a verdict is on one layer, expected one of the two")
    if full and not inputs:
        raise AuditError("--full --inputs 0: a verdict compares with pirates that have inputs, expected at least 20")
    if threads is not None and threads < 1:
        raise AuditError(f"--threads {threads}: expected at least 1")
    folder = Path(out)
    check_writable(folder, FREE)
    machine = _machine(device, threads)
    victim = read_victim(model, data, **of_victim)
    if len(victim.dataset.test) < NO_TEST:
        raise AuditError(
            f"--data '{data}': leaves {len(victim.dataset.test)} {victim.noun} for the test, expected {NO_TEST}"
        )
    names = chosen_layers(victim, layers)
    victim.model.to(machine.device)
    steps = 1 if together else len(names)
    shown(f"{model}: {len(names)} layer{'s' if len(names) > 1 else ''}, blocks of {blocks}, {inputs} {victim.noun}")
    by_layer = []
    for each in tqdm(
        estimates(victim, names, blocks, inputs, machine, seed, together), total=steps, unit="layer", file=sys.stderr
    ):
        shown(sentence(each))
        by_layer.append(each)
    judged: dict[str, pd.DataFrame | str] = {}
    if full:
        tried = [each.layer for each in by_layer if not each.note]
        judged = full_verdicts(victim, tried, blocks, inputs, machine, folder, shown)
    return _written(folder, victim, by_layer, judged, {"blocks": blocks, "inputs": inputs, "data": data, "seed": seed})


def _machine(device: str, threads: int | None) -> Machine:
    import torch

    chosen = choose_device(device)
    count = torch.get_num_threads() if threads is None else threads
    set_up(chosen, count)
    return Machine(chosen, count)


def _written(
    folder: Path,
    victim: Victim,
    by_layer: list[LayerEstimate],
    judged: dict[str, pd.DataFrame | str],
    about: dict[str, Any],
) -> Audit:
    from scatterproof.auditing.audit_words import answer

    tables = [table for table in judged.values() if not isinstance(table, str)]
    verdicts = pd.concat(tables, ignore_index=True) if tables else None
    unjudged = {layer: why for layer, why in judged.items() if isinstance(why, str)}
    sentence_of_all = answer(victim, by_layer, verdicts, int(about["inputs"]))
    result = Audit(victim.name, by_layer, verdicts, folder / PAGE, sentence_of_all, unjudged)
    write_csv(folder / ESTIMATE, result.table)
    if verdicts is not None:
        write_csv(folder / VERDICT, verdicts)
    write_json(
        folder / TABLE,
        {"model": victim.name, "answer": result.answer, **about, "layers": [_plain(each) for each in by_layer]}
        | ({"unjudged": unjudged} if unjudged else {}),
    )
    write_page(result, victim, about)
    return result


def _plain(each: LayerEstimate) -> dict[str, Any]:
    return {key: value for key, value in each.row.items() if value not in (None, "")}
