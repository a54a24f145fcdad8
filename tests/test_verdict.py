"""The verdict: like with like, chosen on other seeds, paired by seed; each of the four can be reached."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import report_tables as made_up
from scatterproof.analysis.choice import chosen, with_withheld
from scatterproof.analysis.control_results import marked_all
from scatterproof.analysis.gains import interval
from scatterproof.analysis.tables import read_tables
from scatterproof.analysis.verdict import stolen, verdict_table
from scatterproof.report.headline import headline
from scatterproof.report.sections import leaderboard
from scatterproof.report.sections.verdicts import TABLE_HEAD, draw_verdict, sentences, table_rows

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
                | {"knows": "labels", "seed": 0, "step": step, "last": step == 1}
                | {"activations": "none", "requests": 0, "defence": "none", "defence_params": "", "obfuscation": "none"}
                | {"accuracy": accuracy if step else 0.01, "withheld_accuracy": np.nan, "relative_accuracy": accuracy}
                | {"known_places_accuracy": 0.9, "fidelity": accuracy, "position_accuracy": 0.5}
                | {"device": made_up.DEVICE, "device_minutes": 0.2, "cost_over_retraining": 0.1}
                for step in range(2)
            ]
    return pd.DataFrame(rows)


def controls(*passed: tuple[str, bool]) -> pd.DataFrame:
    about = {"victim": "victim", "block_size": 16, "keep": 1.0, "threat": "layer-1-100-labels", "control": "random"}
    about |= {"measure": "position_accuracy", "shuffles": 10, "value": 0.01, "ci_high": 0.02, "bound": 0.03}
    rows = [about | {"attack": name, "passed": each} for name, each in passed]
    return pd.DataFrame(rows, columns=[*about, "attack", "passed"])


def verdict(table: pd.DataFrame, *passed: tuple[str, bool]) -> Any:
    (row,) = verdict_table(table, controls(*(passed or PASSED))).itertuples(index=False)
    return row


def test_a_gain_beyond_the_margin_breaks_the_threat() -> None:
    row = verdict(attacks(fingerprint=[0.8, 0.81, 0.79, 0.8, 0.82], layer=0.5, nothing=0.1, whitebox=0.85))
    assert (row.verdict, row.attack, row.against, row.controls) == ("broken", "fingerprint", "layer", "passed")
    assert row.gain == pytest.approx(0.304)
    assert row.ci_low > 0.28
    assert row.victim_accuracy == pytest.approx(0.85)


def test_no_gain_says_that_it_is_not_broken_yet_and_a_wide_one_leaves_undecided() -> None:
    assert verdict(attacks(fingerprint=0.51, layer=0.5, whitebox=0.9)).verdict == "not broken yet"
    assert verdict(attacks(fingerprint=0.3, layer=0.5, whitebox=0.9)).verdict == "not broken yet"
    assert verdict(attacks(fingerprint=[0.4, 0.9, 0.5, 0.6, 0.5], layer=0.5)).verdict == "undecided"


def test_fewer_than_five_seeds_decide_nothing() -> None:
    assert verdict(attacks(seeds=4, fingerprint=[0.8, 0.81, 0.79, 0.8], layer=0.5)).verdict == "undecided"
    assert verdict(attacks(seeds=1, fingerprint=0.8, layer=0.5)).verdict == "undecided"


def test_an_attack_without_passed_controls_is_not_chosen_and_the_row_says_so() -> None:
    table = attacks(refine=0.9, fingerprint=0.8, layer=0.5, whitebox=0.95)
    row = verdict(table, ("fingerprint", True), ("refine", False))
    assert (row.verdict, row.attack, row.ends_with_attack) == ("broken", "fingerprint", "fingerprint")
    assert row.accuracy == row.ends_with == pytest.approx(0.8)
    assert row.controls == "passed; left out: refine (control failed: random; reached 90.0 %)"
    row = verdict(table, ("fingerprint", True))
    assert (row.attack, row.controls) == ("fingerprint", "passed; left out: refine (no control; reached 90.0 %)")


def test_without_an_attack_whose_controls_passed_it_is_invalid() -> None:
    row = verdict(attacks(fingerprint=0.8, layer=0.5, whitebox=0.9), ("fingerprint", False))
    assert (row.verdict, row.controls) == ("invalid", "left out: fingerprint (control failed: random; reached 80.0 %)")
    assert pd.isna(row.attack) and pd.isna(row.accuracy) and pd.isna(row.gain), "nothing is said by it"
    assert (row.ends_with, row.ends_with_attack) == (pytest.approx(0.5), "layer")


def test_an_invalid_verdict_is_shown_without_an_attack(tmp_path: Path) -> None:
    table = attacks(fingerprint=0.8, layer=0.5, whitebox=0.9)
    verdict_table(table, controls(("fingerprint", False))).to_csv(tmp_path / "verdict.csv", index=False)
    found = pd.read_csv(tmp_path / "verdict.csv")
    (cells,) = table_rows(found)
    assert cells[5:8] == ("invalid", "50.0 of 90.0 % (layer, without the blocks)", "none with passed controls")
    assert "nan" not in " ".join(cells + tuple(sentences(found)))
    draw_verdict(found, tmp_path / "verdict.svg")
    assert "invalid" in made_up.words_of(tmp_path / "verdict.svg")


def test_a_threat_whose_empty_fields_were_read_from_a_table_has_its_verdict(tmp_path: Path) -> None:
    table = with_withheld(attacks(fingerprint=0.8, layer=0.5))
    table.to_csv(tmp_path / "attacks.csv", index=False)
    read = with_withheld(read_tables([str(tmp_path / "attacks.csv")]))
    assert read["defence_params"].isna().all()
    assert read["withheld_accuracy"].tolist() == table["withheld_accuracy"].tolist() == [0.5] * len(table)
    assert verdict(read).verdict == verdict(table).verdict == "broken"


def test_what_learns_from_labels_is_controlled_with_labels() -> None:
    table, passed = attacks(fingerprint=0.5, refine=0.8, layer=0.5), controls(("fingerprint", True), ("refine", True))
    assert verdict_table(table, passed).loc[0, "controls"] == "passed"
    other = passed.assign(threat="layer-1-100-logits")
    row = verdict_table(table, other).iloc[0]
    assert row["attack"] == "fingerprint", "it learns from neither"
    assert row["controls"] == "passed; left out: refine (no control; reached 80.0 %)"


def test_the_pirate_ends_with_the_best_of_all_whether_it_has_the_blocks_or_not() -> None:
    row = verdict(attacks(fingerprint=0.6, layer=[0.9, 0.91, 0.89, 0.9, 0.9], whitebox=0.92))
    assert (row.verdict, row.ends_with_attack) == ("lost", "layer"), "for a tenth of the victim's training"
    assert row.ends_with == pytest.approx(0.9) and stolen(row)
    row = verdict(attacks(fingerprint=0.8, layer=0.5, whitebox=0.92))
    assert row.ends_with_attack == "fingerprint" and not stolen(row)


def test_what_it_ends_with_is_chosen_on_other_seeds() -> None:
    row = verdict(attacks(fingerprint=[0.9, 0.2, 0.2, 0.2, 0.2], layer=0.3, whitebox=0.9))
    assert row.ends_with == pytest.approx((0.3 + 4 * 0.2) / 5), "of each seed what is best on the other four"


@pytest.mark.parametrize(("ends", "whole", "red"), [(0.95, 1.0, True), (0.9499, 1.0, False), (0.57, 0.6, True)])
def test_from_95_percent_of_the_victims_on_it_is_stolen(ends: float, whole: float, red: bool) -> None:
    row = verdict(attacks(fingerprint=0.1, layer=ends, whitebox=whole))
    assert stolen(row) == red
    (cells,) = table_rows(pd.DataFrame([row]))
    assert ('class="alarm"' in cells[6]) == red
    assert f"{100 * ends:.1f} of {100 * whole:.1f} % (layer, without the blocks)" in cells[6]
    assert any('class="alarm"' in text for text in sentences(pd.DataFrame([row]))) == red


def test_no_seed_judges_what_was_chosen_on_it() -> None:
    lucky = attacks(fingerprint=[0.9, 0.2, 0.2, 0.2, 0.2], refine=0.3, layer=0.1)
    best = chosen(lucky, "blocks").set_index("victim_seed")
    assert best.loc[0, "attack"] == "refine", "its own luck doesn't choose the fingerprint"
    assert list(best.loc[1:, "attack"]) == ["fingerprint"] * 4, "the other seeds' mean does"


def test_the_withheld_accuracy_is_the_same_pirates() -> None:
    table = with_withheld(attacks(fingerprint=0.8, layer=[0.5, 0.6, 0.5, 0.5, 0.5], nothing=0.1))
    found = table.groupby("victim_seed")["withheld_accuracy"].unique()
    assert [list(each) for each in found] == [[0.5], [0.6], [0.5], [0.5], [0.5]]


def test_without_an_attack_on_the_blocks_there_is_nothing_to_judge() -> None:
    row = verdict(attacks(layer=0.5))
    assert row.verdict == "invalid" and pd.isna(row.gain) and row.controls == "no attack on the blocks"
    assert (row.ends_with, row.ends_with_attack) == (0.5, "layer")


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
    assert rows[0][5] == "broken by fingerprint for 0.2 CPU-minutes"
    assert rows[1][1:5] == ("16 x 16", "100 %", "", "100 labelled images and a public base model")
    counted, *ends, example, warning = sentences(verdicts)
    assert warning.startswith("Do not rely on a threat that is not broken yet")
    assert counted.startswith("victim, blocks of 16 x 16: under 0 of 2 threats the pirate ends with 95 %")
    assert counted.endswith("Verdicts: broken 1, not broken yet 1.")
    grants = "victim, blocks of 16 x 16, 100 % of them held, 100 labelled images"
    assert ends[0].startswith(f"{grants}: the pirate ends with 80.4 of 85.0 % (fingerprint, with the blocks); verdict:")
    assert ends[1].startswith(f"{grants} and a public base model: the pirate ends with 50.0 of 85.0 %")
    assert example.startswith(grants) and "80.4 % accuracy of the victim's 85.0 %" in example
    draw_verdict(verdicts, tmp_path / "verdict.svg")
    drawn = made_up.words_of(tmp_path / "verdict.svg")
    for text in ("broken", "not broken yet", "the margin", "ends with 80.4 of 85.0 %"):
        assert text in drawn
    assert "#009e73" not in (tmp_path / "verdict.svg").read_text().lower(), "nothing about a verdict is green"
    board = leaderboard.rows(made_up.marked("attacks", table, controls(*PASSED)))
    assert {len(row) for row in board} == {len(leaderboard.HEAD)}
    assert [row[5:8] for row in board[:3]] == [
        ("1", "whitebox", "ceiling"),
        ("2", "fingerprint", "with the blocks"),
        ("3", "layer", "without the blocks"),
    ]
    assert {len(row) for row in leaderboard.reported_rows()} == {len(leaderboard.REPORTED_HEAD)}


def test_the_headline_sets_the_best_attack_beside_known_and_random_places() -> None:
    found = attacks(fingerprint=[0.3, 0.31, 0.29, 0.3, 0.3], refine=0.34, layer=0.25, nothing=0.1, whitebox=0.35)
    shuffle = made_up.shuffle_table().assign(block_size=16, victim="victim", keep=1.0, moved=1.0, accuracy=0.02)
    passed = controls(("fingerprint", True), ("refine", False))
    lines = headline({"attacks": found, "shuffle": shuffle, "controls": passed}).splitlines()
    assert lines[0] == "### victim, blocks of 16 x 16, one layer scattered: 5 victims, 35.0 [35.0, 35.0] % accurate"
    assert lines[-3:] == ["The best is chosen from: fingerprint.", "", "Left out: refine (control failed: random)."]
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


def test_each_attack_of_a_job_is_marked_by_its_own_name() -> None:
    """Forms of the told ceiling have the sign that joins names in theirs."""
    names = "told+told+free+fingerprint+refine+told+train"
    assert marked_all(names, controls(("fingerprint", True))) == names.replace("refine", "refine (no control)")
