"""The recommended setting: the cheapest that is bounded, else the best not broken yet, borne out by other victims."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from report_tables import words_of
from scatterproof.analysis.columns import COLUMNS
from scatterproof.analysis.frontier.points import NONE, SETTING, WHOLE, frontier_table
from scatterproof.analysis.frontier.recommendation import in_brief, recommended_verdicts
from scatterproof.command.main import main
from scatterproof.config.settings.ceilings import FORMS
from scatterproof.config.settings.defences import defence_of
from scatterproof.report.figures.frontier import draw_frontier, spread
from scatterproof.report.opening import opening
from scatterproof.report.sections.verdicts import sentences
from scatterproof.running.files import write_csv, write_text
from test_verdict import attacks

THREAT = "layer-1-100-labels"
VICTIM, WITHOUT = 0.9, 0.5
NOISE = [0.002, -0.002, 0.001, -0.001, 0.0, 0.001, -0.002, 0.002, 0.0, -0.001]
HOME = {share: {"name": "home", "share": share} for share in (0.1, 0.2, 0.3, 1.0)}


def tables(seeds: int, **settings: Any) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Attacks, controls and costs. settings: by a name the defence, its cost, and what the fingerprint and each form of
    the told ceiling gain: one number or one for each seed; a form that is None was not run."""
    rows, checked, costs = [], [], []
    for defence, cost, gain, told in settings.values():
        made = defence_of(defence)
        name = f"{THREAT}-{made.label}"
        gains = np.broadcast_to(np.asarray(gain, dtype=float), seeds)
        reached = [float(each) for each in WITHOUT + gains + np.resize(NOISE, seeds)]
        table = attacks(seeds, name, fingerprint=reached, layer=WITHOUT, whitebox=VICTIM)
        forms = [] if told is None else list(FORMS)
        ceilings = table[table["attack"] == "fingerprint"]
        for form in forms:
            values = ceilings["victim_seed"].map(lambda seed, told=told: WITHOUT + told + NOISE[seed % len(NOISE)])
            rows.append(ceilings.assign(attack=form, role="told", accuracy=values))
        rows.append(table)
        rows[-len(forms) - 1 :] = [
            each.assign(defence=made.name, defence_params=made.words) for each in rows[-len(forms) - 1 :]
        ]
        checked += [{"victim": "victim", "threat": name, "attack": each, "control": "planted", "passed": True}
                    for each in ("fingerprint", *forms)]  # fmt: skip
        costs += [{"victim": "victim", "layer": "0", "block_size": 16, "defence": made.name, "victim_seed": seed}
                  | {"defence_params": made.words, "trusted_flops_share": cost} for seed in range(seeds)]  # fmt: skip
    return pd.concat(rows, ignore_index=True), pd.DataFrame(checked), pd.DataFrame(costs)


def recommended(seeds: int, **settings: Any) -> str:
    (text,) = set(recommended_verdicts(*tables(seeds, **settings))["recommendation"])
    return str(text)


def test_the_cheapest_bounded_setting_is_confirmed_on_victims_that_did_not_choose_it() -> None:
    text = recommended(
        10,
        dear=(HOME[0.3], 0.4, 0.0, 0.0),
        cheap=(HOME[0.2], 0.25, 0.0, 0.0),
        cheapest_but_broken=(HOME[0.1], 0.1, 0.2, 0.2),
        cheaper_but_only_not_broken=(defence_of("rescale").model_dump(), 0.0, -0.1, 0.3),
    )
    assert text.startswith("home (share=0.2, choice=drawn): bounded; confirmed on 5 victims that did not choose it;")
    assert "at 25 % of the layer's operations" in text and "of 90.0 %" in text


@pytest.mark.parametrize("seeds", [5, 9])
def test_victims_that_chose_a_setting_do_not_confirm_it(seeds: int) -> None:
    text = recommended(seeds, one=(HOME[0.2], 0.25, 0.0, 0.0))
    assert "bounded; unconfirmed: judged on the victims that chose it" in text


def test_where_nothing_is_bounded_the_least_that_a_pirate_ends_with_is_recommended_with_a_warning() -> None:
    text = recommended(10, cheap=(HOME[0.1], 0.1, 0.012, 0.4), dear=(HOME[0.3], 0.4, 0.002, 0.4))
    assert text.startswith("home (share=0.3, choice=drawn): not broken yet: do not rely on it; confirmed on 5 victims")


def test_a_setting_that_other_victims_break_is_not_recommended() -> None:
    lucky = [0.0 if seed % 2 == 0 else 0.2 for seed in range(10)]
    text = recommended(10, one=(HOME[0.2], 0.25, lucky, 0.0), broken=(HOME[0.1], 0.1, 0.2, 0.2))
    assert text.startswith("none: home (share=0.2, choice=drawn) is bounded on the 5 victims that chose it, and ")


def test_other_victims_that_show_less_lower_the_claim() -> None:
    told = [0.0 if seed % 2 == 0 else 0.2 for seed in range(10)]
    attacked, checked, costs = tables(10, one=(HOME[0.2], 0.25, 0.0, 0.0))
    form = attacked["role"] == "told"
    more = attacked["victim_seed"].map(dict(enumerate(told)))
    attacked.loc[form, "accuracy"] = attacked["accuracy"] + more
    (text,) = set(recommended_verdicts(attacked, checked, costs)["recommendation"])
    assert "not broken yet: do not rely on it; confirmed on 5" in str(text) and "bounded" not in str(text)


def test_none_is_said_where_nothing_holds() -> None:
    assert recommended(10, one=(HOME[0.1], 0.1, 0.2, 0.2)) == "none: no setting is bounded or not broken yet"


def test_threats_that_no_defence_was_tried_against_have_no_recommendation() -> None:
    attacked, checked, costs = tables(10, one=(HOME[0.1], 0.1, 0.0, 0.0))
    plain = attacked[attacked["role"] != "told"].assign(
        threat="layer-0.5-100-labels", keep=0.5, defence="none", defence_params=""
    )
    everything = pd.concat([attacked, plain], ignore_index=True)
    verdicts = recommended_verdicts(everything, checked, costs).set_index("keep")
    assert pd.isna(verdicts["recommendation"][0.5]) and "bounded" in verdicts["recommendation"][1.0]
    assert list(frontier_table(verdicts.reset_index(), costs)["keep"].unique()) == [1.0]


def test_the_first_screen_says_in_brief_what_is_recommended_beside_the_threat_without_a_defence() -> None:
    given = {"one": (HOME[0.1], 0.1, 0.2, 0.2), "other": (HOME[0.3], 0.4, 0.0, 0.0), "plain": ("none", 0.0, 0.4, None)}
    verdicts = recommended_verdicts(*tables(5, **given))
    (group,) = opening({"verdict": verdicts}, 16).groups
    (advised,) = [cells for cells in group.rows if "recommended" in cells[-1]]
    assert "home" not in advised[0]
    assert advised[-1].endswith("recommended: home (share=0.3, choice=drawn): bounded; unconfirmed</small>")


@pytest.mark.parametrize(
    ("text", "brief"),
    [
        ("none: no setting is bounded or not broken yet", "none"),
        (
            "frozen: not broken yet: do not rely on it; confirmed on 5 victims; at no cost",
            "frozen: not broken yet; confirmed",
        ),
    ],
)
def test_a_recommendation_in_brief(text: str, brief: str) -> None:
    assert in_brief(text) == brief


def test_draws_of_one_model_confirm_nothing() -> None:
    attacked, checked, costs = tables(20, one=(HOME[0.2], 0.25, -0.1, -0.1))
    drawn = attacked.assign(seed=attacked["victim_seed"], victim_seed=0, test_images=10_000)
    (text,) = set(recommended_verdicts(drawn, checked, costs.assign(victim_seed=0))["recommendation"])
    assert "unconfirmed" in str(text)


@pytest.mark.parametrize(("cost", "words"), [(0.0, "at no cost to a trusted party"), (1.3, "the whole layer or more")])
def test_the_cost_is_in_words(cost: float, words: str) -> None:
    assert words in recommended(5, one=(HOME[0.2], cost, 0.0, 0.0))


def test_the_words_promise_nothing() -> None:
    text = recommended(10, one=(HOME[0.2], 0.2, 0.0, 0.0)) + recommended(5, one=(HOME[0.2], 0.2, -0.1, 0.3))
    assert not {"safe", "secure", "protected", "protects"} & set(text.replace(":", " ").split())


def test_the_frontier_holds_every_setting_no_defence_and_the_whole_layer() -> None:
    made = tables(10, one=(HOME[0.1], 0.1, 0.2, 0.2), other=(HOME[0.3], 0.4, 0.0, 0.0), plain=("none", 0.0, 0.4, None))
    verdicts = recommended_verdicts(*made)
    frontier = frontier_table(verdicts, made[2]).set_index("point")
    assert list(frontier.reset_index().columns.sort_values()) == sorted(COLUMNS["frontier"])
    assert sorted(frontier.index) == sorted([SETTING, SETTING, NONE, WHOLE])
    whole = frontier.loc[WHOLE]
    assert (whole["trusted_flops_share"], whole["gain"]) == (1.0, 0.0)
    assert whole["ends_with"] == pytest.approx(WITHOUT)
    assert frontier.loc[NONE, "trusted_flops_share"] == 0.0
    assert list(frontier.loc[SETTING, "trusted_flops_share"]) == [0.1, 0.4]


def test_the_figure_names_every_point_and_says_what_it_is_of(tmp_path: Path) -> None:
    made = tables(5, one=(HOME[0.1], 0.1, 0.2, 0.2), other=(HOME[0.3], 0.4, 0.0, 0.0), plain=("none", 0.0, 0.4, None))
    other_threat = [table.replace({"threat": {"labels": "logits"}, "knows": {"labels": "logits"}}, regex=True) for
                    table in made[:2]]  # fmt: skip
    attacked, checked = (pd.concat(pair, ignore_index=True) for pair in zip(made[:2], other_threat, strict=True))
    frontier = frontier_table(recommended_verdicts(attacked, checked, made[2]), made[2])
    words = words_of(draw_frontier(frontier, tmp_path / "frontier.svg"))
    for name in ("no defence", "home-0.1-drawn", "home-0.3-drawn", "the whole layer at home"):
        assert words.count(name) == 4, "two panels for each of two threats"
    assert words.count("blocks of 16 x 16") == 4 and words.count("n = 5") == 4
    assert "the victim itself" in words and "the best without blocks" in words
    assert (tmp_path / "frontier.png").exists()


def test_names_keep_a_gap_and_their_order() -> None:
    costs = np.array([0.0, 0.0, 1.0, 40.0, 100.0, 100.0, 100.0])
    places = spread(costs, 3.0)
    assert (np.diff(places) >= 3.0 - 1e-9).all() and places[-1] == 100 and places[3] == 40


def test_page_and_command_say_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    attacked, checked, costs = tables(10, one=(HOME[0.2], 0.25, 0.0, 0.0))
    verdicts = recommended_verdicts(attacked, checked, costs)
    said = "home (share=0.2, choice=drawn): bounded; confirmed on 5 victims that did not choose it"
    assert any("Recommended against victim, blocks of 16 x 16, 100 %" in text and said in text
               for text in map(str, sentences(verdicts)))  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write_text("config/tiny.yaml", "study: tiny\n")
    write_csv("results/tiny/tables/verdict.csv", verdicts)
    assert main(["verdict", "--configfile", "config/tiny.yaml"]) == 0
    assert f"recommended against victim, block 16, {THREAT}:\n  {said}" in capsys.readouterr().out


@pytest.mark.parametrize("of", ["one setting", "all"])
def test_the_figure_is_drawn_where_no_attack_counts(tmp_path: Path, of: str) -> None:
    """As where its controls failed: that point has no gain."""
    made = tables(5, one=(HOME[0.1], 0.1, 0.2, 0.2), plain=("none", 0.0, 0.4, None))
    frontier = frontier_table(recommended_verdicts(*made), made[2])
    hit = frontier["point"] == SETTING if of == "one setting" else frontier["point"] != ""
    frontier.loc[hit, ["gain", "ci_low", "ci_high", "told_most"]] = np.nan
    words = words_of(draw_frontier(frontier, tmp_path / "frontier.svg"))
    assert words.count("home-0.1-drawn") == 2
