"""A verdict on one checkpoint: over draws of shuffle, key and images, with the luck of the test images they share."""

import numpy as np
import pandas as pd
import pytest

from judged import PERCEPTRON, Victims, read_digits, verdicts
from scatterproof.analysis.basis import MODEL, Basis, with_units
from scatterproof.analysis.choice import chosen
from scatterproof.analysis.gains import interval, upper
from scatterproof.analysis.verdict import BOUNDED, BROKEN, Evidence, judged, margin_of, verdict_table
from scatterproof.config.puzzles import cuts_json, cuts_of_json, protected_layers, puzzle_parts
from scatterproof.config.study import Study
from scatterproof.report.sections.verdicts import rests_on, sentences
from test_verdict import PASSED, attacks, controls

DRAWS = 10
FEW = {"layer": {"updates": 150}}


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Victims:
    return Victims.trained(PERCEPTRON, read_digits(), 1, tmp_path_factory.mktemp("victim"))


def drawn(count: int = DRAWS, images: int = 2000, **accuracies: float | list[float]) -> pd.DataFrame:
    """The same as rows of several victims, but of one victim's draws."""
    table = attacks(seeds=count, **accuracies)
    return table.assign(seed=table["victim_seed"], victim_seed=0, test_images=images)


def test_ten_draws_decide_and_nine_do_not() -> None:
    for count, verdict in ((10, "broken"), (9, "undecided")):
        row = verdict_table(drawn(count, fingerprint=0.8, layer=0.5, whitebox=0.9), controls(*PASSED)).iloc[0]
        assert (row["verdict"], row["basis"], row["seeds"]) == (verdict, "model", count)
    row = verdict_table(attacks(fingerprint=0.8, layer=0.5, whitebox=0.9), controls(*PASSED)).iloc[0]
    assert (row["verdict"], row["basis"]) == ("broken", "recipe")


def test_the_page_says_what_a_verdict_rests_on() -> None:
    table = verdict_table(drawn(fingerprint=0.8, layer=0.5, whitebox=0.9), controls(*PASSED))
    (row,) = table.itertuples(index=False)
    assert rests_on(row) == "10 draws of one model"
    assert any("holds for that model" in text for text in sentences(table))
    table = verdict_table(attacks(fingerprint=0.8, layer=0.5, whitebox=0.9), controls(*PASSED))
    assert rests_on(next(table.itertuples(index=False))) == "5 victims"
    assert not any("holds for that model" in text for text in sentences(table))


def test_an_attack_is_chosen_on_one_half_of_the_draws_and_counts_on_the_other() -> None:
    """Each of two attacks is lucky on one half: chosen there, it counts where it is not."""
    lucky = [0.9 if number % 2 else 0.3 for number in range(DRAWS)]
    table = drawn(fingerprint=lucky, refine=[1.2 - each for each in lucky], layer=0.5)
    rows, basis = with_units(table)
    assert basis == Basis(MODEL, 2000)
    best = chosen(rows, "blocks", halves=True)
    assert best["accuracy"].tolist() == pytest.approx([0.3] * DRAWS)


def test_few_test_images_leave_a_small_gain_undecided_however_equal_the_draws() -> None:
    for images, verdict in ((200, "undecided"), (50_000, "broken")):
        row = verdict_table(drawn(images=images, fingerprint=0.55, layer=0.5, whitebox=0.9), controls(*PASSED)).iloc[0]
        assert row["verdict"] == verdict
        assert row["gain"] == pytest.approx(0.05)


@pytest.mark.parametrize("without", [0.5, 0.9])
def test_a_gain_at_the_margin_is_decided_wrongly_at_most_as_often_as_it_says(without: float) -> None:
    """2,000 studies of 500 test images on which the two sides are right independently of each other."""
    rng, images, true = np.random.default_rng(0), 500, 0.01
    wrong, wrong_without_luck = {BROKEN: 0, BOUNDED: 0}, 0
    for _ in range(2000):
        luck = (rng.random(images) < without + true).mean() - (rng.random(images) < without).mean()
        on = [pd.Series(without + luck + rng.normal(0, 0.004, DRAWS)) for _ in range(5)]
        off = pd.Series(np.full(DRAWS, without))
        attack, *forms = (Basis(MODEL, images).less(each, off) for each in on)
        told = dict(zip(("told", "told+train", "told+core", "told+free"), forms, strict=True))
        headroom = np.full(DRAWS, 0.051)
        assert margin_of(headroom) == pytest.approx(0.0102)
        verdict = judged(Evidence(attack, {}, told, None, headroom, np.full(DRAWS, 0.8), np.ones(DRAWS), least=DRAWS))
        if verdict in wrong:
            wrong[verdict] += 1
        plain = Basis().less(on[0], off)
        wrong_without_luck += interval(plain)[1] > 0.0102 or upper(plain) < 0.0102
    assert max(wrong.values()) <= 0.06 * 2000, wrong
    assert wrong_without_luck > 0.3 * 2000, "the luck of the test images is what is counted"


def test_every_draw_has_its_own_shuffle_images_and_key() -> None:
    study = Study.model_validate(
        {
            "study": "drawn",
            "attacks": {"draws": 3, "grids": [{"defences": ["none", "rescale"]}], "threats_per_job": 4},
            "victim": {"seeds": [0]},
        }
    )
    parts = puzzle_parts(study)
    cuts = [cut for part in ("attacks.0", "attacks.1") for cut in parts[part]]
    assert [cut.draw for cut in cuts] == [0, 0, 1, 1, 2, 2]
    assert len({cut.file for cut in cuts}) == 6
    assert cuts_of_json(cuts_json(cuts)) == cuts
    ((_, layers),) = protected_layers(study).values()
    assert layers == [(study.attacked_size, draw) for draw in range(3)]
    once = study.model_copy(update={"attacks": study.attacks.model_copy(update={"draws": 1})})
    assert puzzle_parts(once)["attacks.0"] == cuts[:2], "the first draw stays as it is where more are asked for"
    assert "draw" not in cuts_json(cuts[:2])


def test_the_pirates_images_are_drawn_anew(victims: Victims) -> None:
    data = victims.dataset
    assert data.redrawn(0) is data
    one, other = (data.redrawn(draw).pirate for draw in (1, 2))
    assert not one.labels.equal(other.labels)
    assert one.labels.bincount().equal(data.pirate.labels.bincount())


@pytest.mark.slow
def test_one_checkpoint_has_a_verdict(victims: Victims) -> None:
    grid = {"attacks": ["fingerprint"], "images": [20], "knows": ["labels"]}
    rows = verdicts(victims, 32, **FEW, draws=DRAWS, grids=[grid, grid | {"defences": ["home"]}])
    assert rows["basis"].tolist() == ["model"] * 2
    assert rows["verdict"].tolist() == ["broken", "not broken yet"], rows.T.to_string()
    assert rows["seeds"].tolist() == [DRAWS] * 2
