"""What the report says of the attacks: each kind once, from its last step, beside the same blocks in their places."""

from itertools import product
from pathlib import Path

import pandas as pd

import report_tables as made_up
from scatterproof.report.sections.attacks import TABLE_HEAD, draw_attacks, sentences, table_rows

IMAGES = "100 unlabelled images"


def attacks() -> pd.DataFrame:
    rows = []
    for victim, seed, keep, images, step in product(("victim", "copy_free"), range(3), (0.25, 1.0), (0, 100), (0, 1)):
        accuracy = 0.2 + 0.5 * keep * step + 0.1 * (images > 0) + 0.01 * seed
        head = {"study": "made-up", "victim_seed": seed, "layer": "classifier.0", "block_size": 16, "keep": keep}
        rows.append(
            head
            | {
                "victim": victim,
                "attack": "fingerprint",
                "role": "blocks",
                "threat": f"layer-{keep:g}-{images}-none",
                "images": images,
            }
            | {"knows": "none", "step": step, "last": step == 1, "accuracy": accuracy}
            | {"known_places_accuracy": 0.9 * keep, "relative_accuracy": accuracy / 0.95, "fidelity": accuracy}
            | {"position_accuracy": 0.5 * step, "device": made_up.DEVICE, "device_minutes": 0.1 * (step + 1)}
            | {"cost_over_retraining": 0.15 * (step + 1)}
        )
    return made_up.marked("attacks", pd.DataFrame(rows), passed("victim", "copy_free"))


def passed(*victims: str) -> pd.DataFrame:
    about = {"attack": "fingerprint", "threat": "layer-1-100-none", "control": "random", "passed": True}
    return pd.DataFrame([about | {"victim": victim} for victim in victims])


def test_each_kind_is_one_row_of_its_last_step() -> None:
    rows = table_rows(attacks())
    assert len(rows) == 2 * 2 * 2
    assert {len(row) for row in rows} == {len(TABLE_HEAD)}
    (all_held,) = [
        row for row in rows if row[0] == "victim" and row[1:6] == ("16 x 16", "fingerprint", "100 %", "", IMAGES)
    ]
    assert all_held[6].startswith("81.0 % [")
    assert all_held[7].startswith("90.0 %")
    assert all_held[-3:] == ("0.2", "0.3", "3")


def test_sentences_are_of_the_images_that_help_most_and_of_the_extremes_held() -> None:
    found = sentences(attacks())
    assert len(found) == 2 * 2
    assert found[0].startswith(f"victim, blocks of 16 x 16, 100 % of them held in an unknown order, {IMAGES}")
    assert "reaches 81.0 % accuracy" in found[0]
    assert "with every place known the same blocks reach 90.0 %. Mean of 3 victims." in found[0]
    assert "25 % of them held in an unknown order" in found[1]


def test_the_figure_names_each_attack_and_what_it_is_measured_against(tmp_path: Path) -> None:
    svg = draw_attacks(attacks(), made_up.victim_table(), tmp_path / "attacks.svg")
    text = svg.read_text()
    assert text.count("victim, blocks of 16 x 16") == text.count("copy free, blocks of 16 x 16") == 1
    for name in ("fingerprint, no images", "fingerprint, 100 unlabelled images", "the same blocks in their places"):
        assert text.count(name) == 1
    assert svg.with_suffix(".png").exists()
