"""The controls in words and as a table, and their marks on every other table that names an attack."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.control_results import PASSED, controls_of, marked, state_of, with_controls
from scatterproof.analysis.threat_key import undefended_first
from scatterproof.config.settings.ceilings import CONTROL
from scatterproof.config.stream import HIJACK
from scatterproof.config.threat import WITH_STREAM, granted_knowledge, parts_of
from scatterproof.report.table import DEFENCE, Table
from scatterproof.report.threat_words import defence_words, grants
from scatterproof.report.words import held, in_red, points, setting, side, victim_label

TABLE_HEAD = ("victim", "block size", "blocks held", DEFENCE, "the pirate has", "attack", "control", "measure",
              "reached", "needed", "shuffles", "passed")  # fmt: skip
MAIN = ("attack", "control", "reached", "needed", "passed")
MEASURES = {
    "position_accuracy": "blocks placed rightly",
    "fidelity": "agreement with the planted model",
    "recovered": "agreement with the victim, brought back from a half",
    "gain": "gain by the blocks",
    "ari": "adjusted Rand index",
    "gained": "agreement with the victim, won back",
}
AT_LEAST = ("planted", "labelled", CONTROL)  # what is there must be found; of the others, what is not there must not


def marked_tables(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The tables of a study as the report reads them: whatever names attacks has a column `control`, what the controls
    say of each; `controls` without a row where the study has none."""
    shown = dict(tables)
    controls = shown.setdefault("controls", pd.DataFrame(columns=COLUMNS["controls"]))
    for name in ("attacks", "search", "fineness"):
        if name in shown:
            shown[name] = with_controls(shown[name], controls)
    if "stream" in shown:
        stream = shown["stream"]
        hijacks = stream.assign(threat=_service_threats(stream), attack=HIJACK + stream["hijack"].astype(str))
        shown["stream"] = stream.assign(control=with_controls(hijacks, controls)["control"])
    if "breakeven" in shown:
        table = shown["breakeven"].assign(control=PASSED)
        attacks = table["what"] == "attack"
        table.loc[attacks, "control"] = with_controls(table[attacks], controls, "name")["control"]
        shown["breakeven"] = table
    return shown


def _service_threats(stream: pd.DataFrame) -> pd.Series:
    """For each row a threat's name that taps its service: enough to say which controls are its hijack's."""
    parts = stream[["topology", "order", "params"]].fillna("").astype(str)
    services = [
        "-".join([*(each for each in (topology, order) if each not in ("sources", "random")), *params.split()])
        for topology, order, params in zip(parts["topology"], parts["order"], parts["params"], strict=True)
    ]
    return pd.Series([f"layer-1-0-none{WITH_STREAM}-1-1{'+' * bool(name)}{name}" for name in services], stream.index)


def table(controls: pd.DataFrame) -> Table:
    """A row for each control of each attack."""
    rows = [
        (
            *(victim_label(row.victim), side(row.block_size), held(row.threat, row.keep)),
            *(defence_words(row.threat), grants(row.images, row.knows, row.threat)),
            *(_named(row, controls), row.control, MEASURES[row.measure], _reached(row)),
            *(_needed(row), str(row.shuffles), "yes" if row.passed else in_red("no")),
        )
        for row in _rows(controls)
    ]
    return Table(
        "The controls of each attack that reads the blocks, on the first seed of each victim", TABLE_HEAD, rows
    ).shown(*MAIN, file="controls")


def sentences(controls: pd.DataFrame) -> list[str]:
    """Which control of which attack failed, and what follows from it; or that none did."""
    if controls.empty:
        return []
    wrong = [row for row in _rows(controls) if not row.passed]
    if not wrong:
        return ["Every control of every attack passed."]
    return [
        Markup("{}, {}: {}. {}").format(
            setting(row.victim, row.block_size, row.keep, row.threat),
            grants(row.images, row.knows, row.threat),
            in_red(f"{_named(row, controls)}: {MEASURES[row.measure]} {_reached(row)}, needed {_needed(row)}"),
            "It bounds no attack." if row.control == CONTROL else "It is left out of every choice of a best attack.",
        )
        for row in wrong
    ]


def _named(row: Any, controls: pd.DataFrame) -> str:
    own = controls_of(controls, row.victim, row.threat)
    return marked(row.attack, state_of(row.attack, own))


def _reached(row: Any) -> str:
    """Where nothing must be found, the upper end of the interval is what is judged."""
    if row.control in AT_LEAST or pd.isna(row.ci_high):
        return _value(row, row.value)
    return f"{_value(row, row.value)}, at most {_value(row, row.ci_high)}"


def _needed(row: Any) -> str:
    return f"{'more' if row.control in AT_LEAST else 'less'} than {_value(row, row.bound)}"


def _value(row: Any, value: float) -> str:
    """Shares in percent, gains in points, indices as they are."""
    if row.measure == "ari":
        return f"{value:.2f}"
    return f"{points(value)} points" if row.measure in ("gain", "gained") else f"{100 * value:.3g} %"


def _rows(controls: pd.DataFrame) -> list[Any]:
    """With `images` and `knows`, as the threat's name has them."""
    rows = undefended_first(controls)
    images = [int(parts_of(threat).images) for threat in rows["threat"]]
    return list(rows.assign(images=images, knows=rows["threat"].map(granted_knowledge)).itertuples(index=False))
