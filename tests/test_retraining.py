"""Attacks against retraining, from small tables whose truth is known."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_tables as made_up
from scatterproof.analysis import statistics
from scatterproof.analysis.breakeven import breakeven_table, expected_minutes, passages, retraining_table
from scatterproof.analysis.crossing import crossing, crossing_table, envelope, mean_curves
from scatterproof.config.study import Study
from scatterproof.report.figures.retraining import draw_retraining
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections.retraining import sentences, table_head, table_rows
from scatterproof.report.sections.talk_cost import talk_costs, talk_head, talk_rows, talk_sentences

CHANCE, OWN, DEVICE = 0.1, 0.8, "cpu: x"
VICTIMS = pd.DataFrame(
    {"study": "s", "victim_seed": seed, "layer": "fc", "block_size": 16, "keep": 1.0, "victim": "victim"}
    | {"accuracy": OWN, "chance": CHANCE, "device": DEVICE, "device_minutes": 4.0, "gpu_minutes": np.nan}
    for seed in range(3)
)
NO_CONTROLS = pd.DataFrame(columns=["victim", "threat", "attack", "control", "passed"])
CURVE = (0.3, 0.5, 0.7, 0.8)  # 25 % of 0.8 after an epoch, 50 % after two, 75 % after three, 95 % after four


def training(accuracies: tuple[float, ...] = CURVE, epoch: float = 1.0, seeds: int = 3, **about: Any) -> pd.DataFrame:
    """Epochs of a training, each of `epoch` minutes (seeds differ by a hundredth)."""
    return pd.DataFrame(
        {"victim": "victim", "victim_seed": seed, "recipe": "short", "source": "recipe", "images": 40}
        | {"epoch": i + 1, "minutes": (i + 1) * epoch * (1 + 0.01 * (seed - 1)), "train_loss": 1.0}
        | {"accuracy": accuracy, "device": DEVICE}
        | about
        for seed, (i, accuracy) in product(range(seeds), enumerate(accuracies))
    )


def own(accuracies: tuple[float, ...] = CURVE, epoch: float = 1.0) -> pd.DataFrame:
    """The victims' own curves, as `tables/curve.csv` has them."""
    table = training(accuracies, epoch).drop(columns=["recipe", "source", "images", "device"])
    return table.assign(study="s", layer="fc", block_size=16, keep=1.0)


def attack(
    ends: tuple[float, ...] = (0.2, 0.4, 0.6), minute: float = 0.1, seeds: int = 3, **about: Any
) -> pd.DataFrame:
    """Two searches on each victim seed, whose accuracy is `ends` after 10, 20, ... evaluations, ten in a `minute`."""
    return pd.DataFrame(
        {"study": "s", "victim_seed": victim_seed, "layer": "fc", "block_size": 16, "keep": 0.5, "victim": "victim"}
        | {"attack": "annealing", "threat": "layer-0.5-12-labels", "fitness": "loss", "population": np.nan}
        | {"images": 12, "budget": 50, "seed": seed, "minutes": minute * (i + 1) * (1 + 0.02 * seed)}
        | {"evaluations": 10 * (i + 1), "accuracy": accuracy, "device": DEVICE}
        | about
        for victim_seed, seed, (i, accuracy) in product(range(seeds), range(2), enumerate(ends))
    )


def table_of(*parts: pd.DataFrame, curves: pd.DataFrame | None = None) -> pd.DataFrame:
    """tables/retraining.csv of the victims' own curves and these trainings."""
    return retraining_table(VICTIMS, own() if curves is None else curves, parts, 40)


def levels(
    *parts: pd.DataFrame, searches: pd.DataFrame | None = None, curves: pd.DataFrame | None = None
) -> pd.DataFrame:
    """tables/breakeven.csv."""
    return made_up.marked("breakeven", breakeven_table(table_of(*parts, curves=curves), searches, VICTIMS))


def at(table: pd.DataFrame, level: float, what: str, name: str | None = None) -> Any:
    rows = table[(table["level"] == level) & (table["what"] == what)]
    (row,) = rows[rows["name"] == name].itertuples() if name else rows.itertuples()
    return row


# The tables


def test_epochs_of_every_training_are_rows_whose_minutes_add_up() -> None:
    pirate = training(source="pirate", recipe="longer", images=8, device="cuda: y")
    table = table_of(training((0.5,)), pirate)
    assert list(table)[:6] == ["study", "victim_seed", "layer", "block_size", "keep", "victim"]
    assert table["source"].value_counts().to_dict() == {"own": 12, "pirate": 12, "recipe": 3}
    assert set(table.loc[table["source"] == "own", "recipe"]) == {"own"} and set(table["keep"]) == {0.0}
    assert set(table["layer"]) == {"fc"} and set(table["block_size"]) == {16} and set(table["study"]) == {"s"}
    last = table.groupby(["source", "victim_seed"])["minutes"].max()
    pd.testing.assert_series_equal(
        table.groupby(["source", "victim_seed"])["device_minutes"].sum(), last, check_names=False
    )
    on_gpu = table["device"] == "cuda: y"
    assert table.loc[on_gpu, "gpu_minutes"].equals(table.loc[on_gpu, "device_minutes"].rename("gpu_minutes"))
    assert table.loc[~on_gpu, "gpu_minutes"].isna().all()


def test_a_level_is_reached_where_accuracy_first_is() -> None:
    table = levels(searches=attack((0.2, 0.41, 0.3)))
    assert [at(table, level, "own").minutes for level in (0.25, 0.5, 0.75, 0.9, 0.95)] == pytest.approx([1, 2, 3, 4, 4])
    row = at(table, 0.5, "attack")
    assert row.minutes == pytest.approx(0.202) and (row.reached, row.runs) == (6, 6)
    assert row.ci_low <= row.minutes <= row.ci_high
    assert (row.params, row.name) == ("fitness=loss images=12 budget=50", "annealing")
    assert row.over_retraining == pytest.approx(0.101) and row.accuracy == pytest.approx(0.4)
    never = at(table, 0.75, "attack")
    assert (never.reached, never.runs) == (0, 6) and np.isnan([never.minutes, never.over_retraining]).all()


def test_each_victim_seed_has_levels_of_its_own() -> None:
    victims = VICTIMS.assign(accuracy=[0.4, 0.8, 0.8])
    retraining = retraining_table(victims, own(), [], 40)
    row = at(breakeven_table(retraining, None, victims), 0.95, "own")
    assert row.minutes == pytest.approx((2 * 0.99 + 4 + 4 * 1.01) / 3)


def test_runs_that_do_not_get_there_count_with_all_they_cost() -> None:
    half = pd.concat([attack((0.2, 0.5)).query("seed == 0"), attack((0.2, 0.2), minute=1.0).query("seed == 1")])
    row = at(levels(searches=half), 0.5, "attack")
    assert (row.reached, row.runs) == (3, 6) and row.minutes == pytest.approx((0.2 + 2.04) / 1)
    rare = pd.concat([half.query("seed == 1"), half.query("seed == 0 and victim_seed == 0")])
    row = at(levels(searches=rare), 0.5, "attack")
    assert row.reached == 1 and np.isnan(row.ci_high) and not np.isnan(row.ci_low)


def test_a_single_run_has_no_interval() -> None:
    row = at(levels(searches=attack((0.5,), seeds=1).query("seed == 0")), 0.5, "attack")
    assert row.minutes == pytest.approx(0.1) and np.isnan([row.ci_low, row.ci_high]).all()


def test_the_cheapest_recipe_of_each_level_is_the_measure() -> None:
    short, poor = training((0.5, 0.6), epoch=0.5), training((0.4,), epoch=0.1, recipe="poor")
    pirate = training((0.25, 0.4), epoch=0.2, source="pirate", recipe="longer", images=8)
    table = levels(short, poor, pirate, searches=attack())
    assert at(table, 0.5, "recipe", "poor").cheapest and not at(table, 0.5, "recipe", "short").cheapest
    assert at(table, 0.75, "recipe", "short").cheapest and not at(table, 0.75, "own").cheapest
    assert at(table, 0.95, "own").cheapest
    row = at(table, 0.5, "attack")
    assert row.over_retraining == pytest.approx(row.minutes / 2)
    assert row.over_recipe == pytest.approx(row.minutes / 0.1)
    assert row.over_pirate == pytest.approx(row.minutes / 0.4)
    assert np.isnan(at(table, 0.75, "attack").over_pirate)


def test_minutes_of_different_devices_are_not_divided() -> None:
    searches = pd.concat([attack(), attack(device="cuda: y")])
    table, crossings = levels(searches=searches), crossing_table(table_of(), searches, VICTIMS)
    here, there = (table[(table["what"] == "attack") & (table["device"] == d)] for d in (DEVICE, "cuda: y"))
    assert here["comparable"].all() and not there["comparable"].any()
    over = ["over_retraining", "over_recipe", "over_pirate"]
    assert there[over].isna().all(axis=None) and here["over_retraining"].notna().any()
    assert set(crossings.loc[crossings["device"] == "cuda: y", "ahead"]) == {""}
    texts = sentences(table)
    assert "is cheaper to 25, 50, 75 %" in texts[1] and texts[1].startswith(
        "victim on cpu: x, blocks of 16 x 16, 50 % of them held"
    )
    assert texts[4].startswith("victim on cuda: y, blocks") and "minutes of different devices are not comp" in texts[4]
    assert [row[0] for row in table_rows(table)] == ["victim on cpu: x"] * 5 + ["victim on cuda: y"] * 5
    assert {row[8] for row in table_rows(table)[5:]} == {"on another device"}


def test_levels_no_more_than_chance_are_left_out() -> None:
    victims = VICTIMS.assign(chance=0.4)
    table = breakeven_table(retraining_table(victims, own(), [], 40), attack(), victims)
    assert sorted(table["level"].unique()) == [0.75, 0.9, 0.95]


def test_a_victim_that_was_not_trained_here_has_no_curve_of_its_own() -> None:
    assert set(table_of(training(), curves=own()[:0])["source"]) == {"recipe"}
    table = levels(training(), curves=own()[:0], searches=attack())
    row = at(table, 0.5, "attack")
    assert np.isnan(row.over_retraining) and row.over_recipe == pytest.approx(0.101)
    assert "against the victim's own recipe: there was no such training." in " ".join(sentences(table))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_the_order_of_rows_changes_nothing_and_minutes_scale(seed: int, factor: float) -> None:
    kind = pd.concat([attack((0.2, 0.5)).query("seed == 0"), attack((0.1, 0.3)).query("seed == 1")]).assign(run=0)
    kind["run"] = kind["seed"]
    levels = dict.fromkeys(range(3), 0.4)
    whole = expected_minutes(passages(kind, levels))
    assert expected_minutes(passages(kind.sample(frac=1, random_state=seed), levels)) == whole
    scaled = expected_minutes(passages(kind.assign(minutes=factor * kind["minutes"]), levels))
    assert scaled == pytest.approx(tuple(factor * value for value in whole), nan_ok=True)


# Where an attack is overtaken


def line(*points: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(points, columns=["minutes", "mean"])


@pytest.mark.parametrize(
    ("searched", "trained", "expected"),
    [
        (line((1, 0.3), (2, 0.4)), line((3, 0.2), (4, 0.6)), ("until", 4, 0.4)),
        (line((1, 0.3), (2, 0.4)), line((3, 0.2), (4, 0.35)), ("throughout", np.nan, np.nan)),
        (line((5, 0.3)), line((3, 0.2), (4, 0.3)), ("never", np.nan, np.nan)),
        (line((1, 0.11)), line((3, 0.2)), ("never", np.nan, np.nan)),  # no better than chance
        (line((1, 0.3), (5, 0.7)), line((2, 0.5), (6, 0.8)), ("until", 6, 0.7)),  # it is ahead twice
    ],
)
def test_an_attack_is_overtaken_for_good(
    searched: pd.DataFrame, trained: pd.DataFrame, expected: tuple[str, float, float]
) -> None:
    assert tuple(crossing(searched, trained, 0.12)) == pytest.approx(expected, nan_ok=True)


def test_the_envelope_is_the_best_recipe_at_each_minute() -> None:
    parts = training((0.5, 0.6), epoch=0.5), training((0.4,), epoch=0.1, recipe="poor")
    retraining = table_of(*parts)
    found = envelope(mean_curves(retraining, None))
    assert found["mean"].is_monotonic_increasing
    named = found.drop_duplicates("name")
    assert named["name"].tolist() == ["poor", "short", "own"] and named["minutes"].tolist() == pytest.approx(
        [0.1, 0.5, 3]
    )


def test_each_attack_meets_each_curve() -> None:
    pirate = training((0.25,), source="pirate", recipe="longer", images=8)
    table = crossing_table(table_of(training((0.5, 0.6), epoch=0.15), pirate), attack(), VICTIMS)
    found = {row.against: row for row in table.itertuples()}
    assert {against: row.ahead for against, row in found.items()} == {
        "own": "until", "recipe": "until", "pirate": "throughout",
    }  # fmt: skip
    assert found["own"].minutes == pytest.approx(3) and found["own"].level == pytest.approx(0.6 / OWN)
    assert found["recipe"].accuracy < found["own"].accuracy


# Words


def test_what_is_cheaper_dearer_and_not_reached_is_said_of_each_curve() -> None:
    dear = training((0.3, 0.75), epoch=0.05, source="pirate", recipe="longer", images=8)
    table = levels(dear, training((0.1,)), searches=attack())
    first, by_own, by_recipe, by_pirate = sentences(table)
    assert first.startswith("In 6 of 15 comparisons below an attack is shown to be cheaper")
    assert by_own.startswith(
        "victim, blocks of 16 x 16, 50 % of them held, against the victim's own recipe: an attack is cheaper to "
    )
    name = "simulated annealing (no control) by cross-entropy on 12 labelled images"
    assert f"cheaper to 25, 50, 75 % (75 %: {name} in 0.303 [" in by_own
    assert "the own recipe in 3 [" in by_own and "no attack reached 90, 95 %" in by_own
    assert "against the cheapest recipe tried: an attack is cheaper to 25, 50, 75 %" in by_recipe
    assert "the cheapest attack is dearer to 25, 50, 75 % (25 %:" in by_pirate
    assert "'longer' on 8 labelled images in 0.05 [" in by_pirate


def test_none_is_said_where_none_is_cheaper() -> None:
    table = levels(searches=attack(minute=10))
    assert sentences(table)[0] == "No attack is shown to be cheaper than any of these trainings to any level."
    assert sentences(levels()) == ["No attack was made: there is nothing to set against retraining here."]


def test_without_intervals_nothing_is_told_apart() -> None:
    single = attack(seeds=1).query("seed == 0")
    text = " ".join(sentences(levels(searches=single)))
    assert "attack and training are not told apart to 25, 50, 75 %" in text and "is cheaper to" not in text


def test_only_an_attack_may_reach_a_level() -> None:
    pirate = training((0.25,), source="pirate", recipe="longer", images=8)
    text = sentences(levels(pirate, searches=attack()))[3]
    assert "only an attack reached 50, 75 %" in text and "neither reached 90, 95 %" in text


def test_rows_of_the_page_have_a_cell_for_each_head() -> None:
    rows = table_rows(levels(searches=attack()))
    assert len(rows) == 5 and all(len(row) == len(table_head()) for row in rows)
    name = "simulated annealing (no control) by cross-entropy on 12 labelled images"
    assert rows[0][:6] == ("victim", "16 x 16", "50 %", "", "25 %", name)
    assert rows[0][7] == "6 of 6" and rows[0][-3:] == ("0.1", "", "")
    assert rows[4][5:8] == ("none", "", "") and rows[4][9] == rows[0][10] == "not tried"


# The talk's '27x'

THEORY = made_up.theory()
SEARCH = made_up.marked(
    "search",
    attack(attack="genetic", fitness="accuracy", population=100.0, images=100, budget=1000, seconds=np.nan).rename(
        columns={"minutes": "device_minutes"}
    ),
)


def test_the_talks_claim_is_recomputed_at_our_cost() -> None:
    (cost,) = costs = talk_costs(SEARCH, VICTIMS)
    assert cost["seconds"] == pytest.approx(0.6 * 1.01) and cost["training"] == 4 and cost["runs"] == 6
    rows = {row[0]: row[1:] for row in talk_rows(costs, THEORY)}
    assert rows["evaluations"] == ("10,000", "10,000", "10,000")
    assert rows["seconds for each"] == ("", "30", "0.61")
    assert rows["minutes of the search"] == ("5,000", "5,000", "101")
    assert rows["minutes of training"] == ("150", "150", "4")
    assert rows["search over training"] == ("27x", "33.3x", "25x")
    assert all(len(row) + 1 == len(talk_head(costs)) for row in rows.values())
    (text,) = talk_sentences(costs, THEORY)
    assert (
        text.startswith("The talk's evaluation takes 30 s.")
        and "0.61 s (victim, blocks of 16 x 16, 50 % of them held: 6 " in text
    )
    assert "runs of the genetic search (no control) with 1,000 evaluations), " in text
    assert "so that 10,000 take 101 minutes, 25x the 4 of training one victim on the same device." in text


def test_each_share_held_has_its_cost_and_the_largest_budget_counts() -> None:
    more = SEARCH.assign(budget=2000, device_minutes=2 * SEARCH["device_minutes"])
    costs = talk_costs(pd.concat([SEARCH, more, SEARCH.assign(keep=1.0)]), VICTIMS)
    held = [(str(cost["setting"]).partition("16, ")[2], cost["budget"]) for cost in costs]
    assert held == [("50 % of them held", 2000), ("100 % of them held", 1000)]
    assert costs[0]["seconds"] == pytest.approx(2 * costs[1]["seconds"])


@pytest.mark.parametrize("other", [{"images": 12}, {"population": 10.0}, {"fitness": "loss"}, {"attack": "random"}])
def test_another_search_than_the_talks_says_nothing_of_its_cost(other: dict[str, Any]) -> None:
    costs = talk_costs(SEARCH.assign(**other), VICTIMS)
    assert costs == [] and "was not made here" in talk_sentences(costs, THEORY)[0]
    assert [row[1:] for row in talk_rows(costs, THEORY)][-1] == ("27x", "33.3x")


def test_the_talks_claim_is_not_made_of_two_devices() -> None:
    costs = talk_costs(SEARCH.assign(device="cuda: y"), VICTIMS)
    assert np.isnan(costs[0]["training"]) and talk_rows(costs, THEORY)[-1][-1] == ""
    assert "x of the" not in talk_sentences(costs, THEORY)[0]


# Figure and page


def drawn(path: Path) -> str:
    assert path.with_suffix(".png").stat().st_size > 1000
    return made_up.words_of(path)


def test_the_figure_has_a_panel_for_each_share_and_names_all_curves(tmp_path: Path) -> None:
    pirate = training((0.25,), source="pirate", recipe="longer", images=8)
    searches = pd.concat([attack(), attack(keep=1.0), attack(attack="genetic", population=10.0)])
    retraining = table_of(training((0.5, 0.6), epoch=0.5), pirate)
    text = drawn(draw_retraining(retraining, searches, VICTIMS, NO_CONTROLS, tmp_path / "retraining.svg"))
    for label in ("16 x 16, 50 % of them held", "16 x 16, 100 % of them held", "own recipe", "cheapest recipe tried"):
        assert label in text
    for label in ("images alone", "simulated annealing", "genetic search", "overtaken by retraining", "chance"):
        assert label in text


@pytest.mark.parametrize("curves", [own(), own()[:0]], ids=["own curve", "nothing trained"])
def test_a_study_without_searches_is_drawn_too(curves: pd.DataFrame, tmp_path: Path) -> None:
    table = levels(curves=curves)
    text = drawn(draw_retraining(table_of(curves=curves), None, VICTIMS, NO_CONTROLS, tmp_path / "retraining.svg"))
    assert ("nothing was measured" in text) == curves.empty
    assert table_rows(table) == []


def test_the_page_sets_attacks_against_retraining_only_where_it_has_the_table(tmp_path: Path) -> None:
    prune, victims = made_up.prune_table(), made_up.victim_table()
    prune = prune[prune["block_size"] == 16]
    whole = {
        "victim": victims,
        "prune": prune,
        "shuffle": made_up.shuffle_table().query("block_size == 16"),
        "threshold": statistics.threshold(prune, victims),
        "theory": THEORY,
        **made_up.cost_tables(0.64),
    }
    study = Study.model_validate({"study": "made-up", "block_sizes": [16]})
    levels(searches=attack()).to_csv(tmp_path / "breakeven.csv", index=False)
    more = whole | {"breakeven": pd.read_csv(tmp_path / "breakeven.csv")}
    for found, expected in ((whole, 0), (more, 1)):
        text = build_page(found, {}, provenance(study, found, "x", tmp_path))
        assert (text.count('id="retraining"'), text.count('href="#retraining"')) == (expected, 2 * expected)
        assert ("33.3x</td>" in text) == ("know the\nsame" in text) == bool(expected)
        assert "nan" not in text.lower().split("<pre>")[0].replace("provenance", "")
