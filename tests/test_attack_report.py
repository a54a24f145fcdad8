"""What the report says of the attacks: each kind once, from its last step, beside the same blocks in their places."""

from itertools import product
from pathlib import Path

import pandas as pd

import report_tables as made_up
from scatterproof.report.attacks import TABLE_HEAD, draw_attacks, sentences, table_rows


def attacks() -> pd.DataFrame:
    rows = []
    for victim, seed, keep, images, step in product(("victim", "copy_free"), range(3), (0.25, 1.0), (0, 100), (0, 1)):
        accuracy = 0.2 + 0.5 * keep * step + 0.1 * (images > 0) + 0.01 * seed
        head = {"study": "made-up", "victim_seed": seed, "layer": "classifier.0", "block_size": 16, "keep": keep}
        rows.append(
            head
            | {"victim": victim, "attack": "fingerprint", "threat": f"layer-{keep:g}-{images}-none", "images": images}
            | {"knows": "none", "step": step, "last": step == 1, "accuracy": accuracy}
            | {"known_places_accuracy": 0.9 * keep, "relative_accuracy": accuracy / 0.95, "fidelity": accuracy}
            | {"position_accuracy": 0.5 * step, "device": made_up.DEVICE, "device_minutes": 0.1 * (step + 1)}
            | {"cost_over_retraining": 0.15 * (step + 1)}
        )
    return pd.DataFrame(rows)


def test_each_kind_is_one_row_of_its_last_step() -> None:
    rows = table_rows(attacks())
    assert len(rows) == 2 * 2 * 2
    assert {len(row) for row in rows} == {len(TABLE_HEAD)}
    (all_held,) = [row for row in rows if row[0] == "victim" and row[2:4] == ("100 %", "100 unlabelled images")]
    assert all_held[4].startswith("81.0 % [")
    assert all_held[5].startswith("90.0 %")
    assert all_held[-3:] == ("0.2", "0.3", "3")


def test_sentences_are_of_the_images_that_help_most_and_of_the_extremes_held() -> None:
    found = sentences(attacks())
    assert len(found) == 2 * 2
    assert "100 % of the blocks in an unknown order, 100 unlabelled images" in found[0]
    assert "reaches 81.0 % accuracy" in found[0]
    assert "with every place known the same blocks reach 90.0 %. Mean of 3 victims." in found[0]
    assert "25 % of the blocks in an unknown order" in found[1]


def test_the_figure_names_each_attack_and_what_it_is_measured_against(tmp_path: Path) -> None:
    svg = draw_attacks(attacks(), made_up.victim_table(), tmp_path / "attacks.svg")
    text = svg.read_text()
    for name in ("fingerprint, no images", "fingerprint, 100 unlabelled images", "the same blocks in their places"):
        assert text.count(name) == 1
    assert svg.with_suffix(".png").exists()
