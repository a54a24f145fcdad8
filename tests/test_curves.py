"""The figure of the curves of retraining: every attack that trains once, beside what is reported of its kin."""

from itertools import product
from pathlib import Path

import pandas as pd

import report_tables as made_up
from scatterproof.config.attacks import AttackSettings
from scatterproof.report.figures.curves import draw_curves, taught
from scatterproof.report.figures.looks import look_of

ROLES = {"layer": "withheld", "surrogate": "withheld", "nothing": "withheld", "blocks": "blocks", "whitebox": "ceiling"}

CONTROLS = pd.DataFrame(
    {"victim": "victim", "attack": "blocks", "threat": f"layer-1-500-{knows}", "control": "planted", "passed": passed}
    for knows, passed in (("labels", True), ("logits", False))
)


def attacks() -> pd.DataFrame:
    rows = []
    for keep, seed, images, knows, (name, role), step in product(
        (0.1, 1.0), range(5), (0, 50, 500), ("none", "labels", "logits"), ROLES.items(), (0, 1)
    ):
        if (images == 0) == (knows == "none"):
            accuracy = 0.1 * step + 0.001 * images + 0.01 * seed + 0.02 * len(name)
            rows.append(
                {
                    "study": "made-up",
                    "victim_seed": seed,
                    "block_size": 16,
                    "keep": keep,
                    "victim": "victim",
                    "attack": name,
                    "role": role,
                }
                | {"threat": f"layer-{keep:g}-{images}-{knows}"}
                | {"images": images, "knows": knows, "step": step, "last": step == 1, "accuracy": accuracy}
            )
    return made_up.marked("attacks", pd.DataFrame(rows), CONTROLS)


def test_only_last_steps_with_most_blocks_count_and_only_where_something_is_known() -> None:
    rows = taught(attacks())
    assert set(rows["attack"]) == {"layer", "surrogate", "blocks"}
    assert set(rows["keep"]) == {1.0}
    assert rows["last"].all()
    assert set(rows["images"]) == {50, 500}


def test_each_attack_is_named_once_beside_the_reported(tmp_path: Path) -> None:
    svg = draw_curves(attacks(), made_up.victim_table(), tmp_path / "retrain.svg")
    text = svg.read_text()
    for name in ("layer, without the blocks", "surrogate, without the blocks", "blocks, from the blocks"):
        assert text.count(name) == 1
    assert text.count("blocks (control failed: planted), from the blocks") == 1, "where logits teach it"
    assert "victim, blocks of 16 x 16, 100 % of them held: labelled" in text
    assert text.count("layer, reported (No Privacy Left Outside)") == 1
    assert "10000" in text, "the black box of 10,000 queries"
    assert "nothing" not in text
    assert svg.with_suffix(".png").exists()


def test_without_a_taught_attack_the_figure_says_so(tmp_path: Path) -> None:
    nothing = attacks()[lambda rows: rows["knows"] == "none"]
    svg = draw_curves(nothing, made_up.victim_table(), tmp_path / "retrain.svg")
    assert "nothing was measured here" in svg.read_text()


def test_with_one_number_of_images_each_attack_has_a_row_of_its_own(tmp_path: Path) -> None:
    one = attacks()[lambda rows: rows["images"] == 50]
    svg = draw_curves(one, made_up.victim_table(), tmp_path / "retrain.svg")
    text = made_up.words_of(svg)
    for known in ("labelled images", "images with the victim's logits"):
        assert f"100 % of them held: 50 {known}, 5 victims" in text
    assert text.count("surrogate, without the blocks") == 2, "in the panel of labels and in that of logits"
    assert text.count("blocks (control failed: planted), from the blocks") == 1 and "reported" not in text


def test_no_two_attacks_look_alike() -> None:
    looks = [look_of(name) for name in AttackSettings.model_fields]
    assert len(set(looks)) == len(looks)
