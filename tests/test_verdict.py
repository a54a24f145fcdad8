"""The verdict: like with like, chosen on other seeds, paired by seed; each of the four can be reached."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_tables as made_up
from scatterproof.report import leaderboard
from scatterproof.report.headline import headline
from scatterproof.report.verdicts import TABLE_HEAD, draw_verdict, sentences, table_rows
from scatterproof.verdict import chosen, interval, judged, verdict_table, with_withheld

PASSED = [("fingerprint", True), ("refine", True)]


def attacks(seeds: int = 5, threat: str = "layer-1-100-labels", **accuracies: float | list[float]) -> pd.DataFrame:
    """A row for each attack and seed; an accuracy is that of all seeds, or one for each."""
    rows: list[dict[str, Any]] = []
    for name, value in accuracies.items():
        role = "ceiling" if name == "whitebox" else "blocks" if name in ("fingerprint", "refine") else "withheld"
        for seed in range(seeds):
            head = {"study": "made-up", "victim_seed": seed, "layer": "0", "block_size": 16, "keep": 1.0}
            accuracy = value[seed] if isinstance(value, list) else value
            rows += [
                head
                | {"victim": "victim", "attack": name, "role": role, "threat": threat, "images": 100}
                | {"knows": "labels", "defence": "none", "seed": 0, "step": step, "last": step == 1}
                | {"accuracy": accuracy if step else 0.01, "withheld_accuracy": np.nan, "relative_accuracy": accuracy}
                | {"known_places_accuracy": 0.9, "fidelity": accuracy, "position_accuracy": 0.5}
                | {"device": made_up.DEVICE, "device_minutes": 0.2, "cost_over_retraining": 0.1}
                for step in range(2)
            ]
    return pd.DataFrame(rows)


def controls(*passed: tuple[str, bool]) -> pd.DataFrame:
    about = {"victim": "victim", "threat": "layer-1-100-labels", "control": "random"}
    rows = [about | {"attack": name, "passed": each} for name, each in passed]
    return pd.DataFrame(rows, columns=["victim", "threat", "attack", "control", "passed"])


def verdict(table: pd.DataFrame, *passed: tuple[str, bool]) -> Any:
    (row,) = verdict_table(table, controls(*(passed or PASSED))).itertuples(index=False)
    return row


def test_a_gain_beyond_the_margin_breaks_the_threat() -> None:
    row = verdict(attacks(fingerprint=[0.8, 0.81, 0.79, 0.8, 0.82], layer=0.5, nothing=0.1, whitebox=0.85))
    assert (row.verdict, row.attack, row.against, row.controls) == ("broken", "fingerprint", "layer", "passed")
    assert row.gain == pytest.approx(0.304)
    assert row.ci_low > 0.28
    assert row.victim_accuracy == pytest.approx(0.85)


def test_no_gain_protects_and_a_wide_one_leaves_undecided() -> None:
    assert verdict(attacks(fingerprint=0.51, layer=0.5)).verdict == "protected"
    assert verdict(attacks(fingerprint=0.3, layer=0.5)).verdict == "protected"
    assert verdict(attacks(fingerprint=[0.4, 0.9, 0.5, 0.6, 0.5], layer=0.5)).verdict == "undecided"


def test_fewer_than_five_seeds_decide_nothing() -> None:
    assert verdict(attacks(seeds=4, fingerprint=[0.8, 0.81, 0.79, 0.8], layer=0.5)).verdict == "undecided"
    assert verdict(attacks(seeds=1, fingerprint=0.8, layer=0.5)).verdict == "undecided"


def test_a_failed_or_missing_control_makes_it_invalid() -> None:
    table = attacks(fingerprint=0.8, refine=0.7, layer=0.5)
    failed = verdict(table, ("fingerprint", False), ("refine", True))
    assert (failed.verdict, failed.controls) == ("invalid", "fingerprint failed: random")
    missing = verdict(table, ("refine", True))
    assert (missing.verdict, missing.controls) == ("invalid", "fingerprint has none")
    assert verdict(table, ("fingerprint", True), ("refine", False)).verdict == "broken", "that of an attack not chosen"


def test_what_learns_from_labels_is_controlled_with_labels() -> None:
    table, passed = attacks(fingerprint=0.5, refine=0.8, layer=0.5), controls(("fingerprint", True), ("refine", True))
    assert verdict_table(table, passed).loc[0, "controls"] == "passed"
    other = passed.assign(threat="layer-1-100-logits")
    row = verdict_table(table, other).iloc[0]
    assert (row["verdict"], row["controls"]) == ("invalid", "refine has none"), "the fingerprint learns from neither"


def test_no_seed_judges_what_was_chosen_on_it() -> None:
    lucky = attacks(fingerprint=[0.9, 0.2, 0.2, 0.2, 0.2], refine=0.3, layer=0.1)
    best = chosen(lucky, "blocks").set_index("victim_seed")
    assert best.loc[0, "attack"] == "refine", "its own luck doesn't choose the fingerprint"
    assert list(best.loc[1:, "attack"]) == ["fingerprint"] * 4, "the other seeds' mean does"


def test_the_withheld_accuracy_is_the_same_pirates() -> None:
    table = with_withheld(attacks(fingerprint=0.8, layer=[0.5, 0.6, 0.5, 0.5, 0.5], nothing=0.1))
    found = table.groupby("victim_seed")["withheld_accuracy"].unique()
    assert [list(each) for each in found] == [[0.5], [0.6], [0.5], [0.5], [0.5]]


def test_a_threat_without_an_attack_on_the_blocks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no attack on the blocks under layer-1-100-labels"):
        verdict(attacks(layer=0.5))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=12), st.floats(-0.5, 0.5))
def test_a_larger_gain_is_never_judged_milder(gains: list[float], more: float) -> None:
    order = ["protected", "undecided", "broken"]
    values = np.array(gains)
    low, high = (interval(values + shift)[1:] for shift in sorted((0.0, more)))
    assert order.index(judged(*low, len(values))) <= order.index(judged(*high, len(values)))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = [low <= 0 <= high for _, low, high in (interval(rng.normal(size=5)) for _ in range(2000))]
    assert 0.93 < np.mean(covered) < 0.97


def test_the_report_has_every_threat_in_words_table_and_figure(tmp_path: Path) -> None:
    table = pd.concat(
        [
            attacks(fingerprint=[0.8, 0.81, 0.79, 0.8, 0.82], layer=0.5, whitebox=0.85),
            attacks(threat="layer-1-100-labels-base", fingerprint=0.5, layer=0.5, whitebox=0.85).assign(
                knows="labels-base"
            ),
        ]
    )
    verdicts = verdict_table(table, controls(*PASSED))
    rows = table_rows(verdicts)
    assert {len(row) for row in rows} == {len(TABLE_HEAD)}
    assert rows[0][3] == "broken by fingerprint for 0.2 CPU-minutes"
    assert rows[1][1:3] == ("100 %", "100 labelled images and a public base model")
    (text,) = sentences(verdicts)
    assert "of 2 threats 1 broken, 1 protected" in text
    assert "80.4 % accuracy of the victim's 85.0 %" in text
    drawn = draw_verdict(verdicts, tmp_path / "verdict.svg").read_text()
    assert "broken" in drawn
    assert "the margin, 2 points" in drawn
    board = leaderboard.rows(table)
    assert {len(row) for row in board} == {len(leaderboard.HEAD)}
    assert [row[3:6] for row in board[:3]] == [
        ("1", "whitebox", "ceiling"),
        ("2", "fingerprint", "with the blocks"),
        ("3", "layer", "without the blocks"),
    ]
    assert {len(row) for row in leaderboard.reported_rows()} == {len(leaderboard.REPORTED_HEAD)}


def test_the_headline_sets_the_best_attack_beside_known_and_random_places() -> None:
    found = attacks(fingerprint=[0.3, 0.31, 0.29, 0.3, 0.3], refine=0.2, layer=0.25, nothing=0.1, whitebox=0.35)
    shuffle = made_up.shuffle_table().assign(block_size=16, victim="victim", keep=1.0, moved=1.0, accuracy=0.02)
    lines = headline({"attacks": found, "shuffle": shuffle}).splitlines()
    assert lines[0].endswith("one layer scattered: 5 victims, 35.0 [35.0, 35.0] % accurate")
    assert (
        lines[2]
        == "| blocks held | at random places | 100 labelled images | withheld, 100 labelled images | places known |"
    )
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells[0] == "100 %"
    assert cells[1].startswith("2.0")
    assert cells[2] == "30.0 [29.1, 30.9]"
    assert cells[3:] == ["25.0 [25.0, 25.0]", "90.0 [90.0, 90.0]"]


def test_a_threat_that_was_not_run_leaves_a_dash() -> None:
    one = attacks(fingerprint=0.3, layer=0.25, whitebox=0.35)
    other = attacks(fingerprint=0.3, layer=0.25, whitebox=0.35).assign(keep=0.5, images=50)
    lines = headline({"attacks": pd.concat([one, other]), "shuffle": made_up.shuffle_table()}).splitlines()
    half, whole = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:6])
    assert (half[0], half[3], half[5]) == ("50 %", "-", "-")
    assert (whole[0], whole[2], whole[4]) == ("100 %", "-", "-")
