"""What the report says of the searches, from small tables whose truth is known."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import report_tables as made_up
from scatterproof.analysis import statistics
from scatterproof.config.study import Study
from scatterproof.report.figures import plateau as plateau_figure
from scatterproof.report.figures.searches import draw_search, draw_trajectory
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections.searches import aligned, final, sentences, table_head, table_rows

CHANCE, OWN = 0.1, 0.9
COSTS = (10, 20, 50)
VICTIMS = pd.DataFrame({"victim": ["victim"] * 3, "victim_seed": range(3), "accuracy": OWN, "chance": CHANCE})


def searches(
    ends: float = CHANCE,
    spread: float = 0.0,
    starts: float = CHANCE,
    attack: str = "genetic",
    seeds: int = 3,
    runs: int = 4,
    **about: Any,
) -> pd.DataFrame:
    """A kind of search: test accuracy from `starts` to `ends`, runs scattered by `spread`, as it is read from CSV."""
    shift = iter(spread * np.random.default_rng(0).standard_normal(seeds * runs))
    rows = []
    for victim_seed, seed in product(range(seeds), range(runs)):
        ending = ends + next(shift)
        for i, evaluations in enumerate(COSTS):
            rows.append(
                {"study": "s", "victim_seed": victim_seed, "layer": "fc", "block_size": 16, "keep": 0.5}
                | {"victim": "victim", "threat": "layer-0.5-12-labels", "attack": attack, "fitness": "loss"}
                | {"population": 10.0 if attack == "genetic" else np.nan, "images": 12, "budget": 50, "seed": seed}
                | {"generation": i + 1, "evaluations": evaluations, "best_fitness": -2.0 + 0.1 * i}
                | {"accuracy": starts if i == 0 else ending, "device": "cpu: x"}
                | {"device_minutes": 0.01 * evaluations, "gpu_minutes": np.nan}
                | about
            )
    return made_up.marked("search", pd.DataFrame(rows))


def together(*tables: pd.DataFrame) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def said(table: pd.DataFrame, retraining: float = 2.0) -> str:
    return " ".join(sentences(table, VICTIMS, retraining))


# The table


def test_each_kind_of_search_is_one_row_of_its_last_evaluations() -> None:
    table = together(
        searches(0.3, starts=0.1), searches(0.4, population=20.0), searches(0.2, attack="random", starts=0.15)
    )
    found = final(table.sample(frac=1, random_state=0))
    assert len(found) == 3 and (found["runs"] == 12).all() and (found["evaluations"] == 50).all()
    rows = {(row["attack"], row["population"]): row for row in found.to_dict("records")}
    assert set(rows) == {("genetic", "10"), ("genetic", "20"), ("random", "")}
    assert rows["genetic", "10"]["accuracy"] == pytest.approx(0.3)
    assert rows["genetic", "10"]["gain"] == pytest.approx(0.2)
    assert rows["random", ""]["gain"] == pytest.approx(0.05)
    assert rows["random", ""]["fitness_start"] == pytest.approx(-2)
    assert rows["random", ""]["fitness_end"] == pytest.approx(-1.8)
    assert rows["random", ""]["minutes"] == pytest.approx(0.5)


def test_intervals_hold_the_mean_and_a_single_run_has_none() -> None:
    (row,) = final(searches(0.5, spread=0.05)).to_dict("records")
    assert row["accuracy_low"] < row["accuracy"] < row["accuracy_high"]
    assert row["gain_low"] < row["gain"] < row["gain_high"]
    (one,) = final(searches(0.5, seeds=1, runs=1)).to_dict("records")
    assert np.isnan([one[f"{name}_{end}"] for name in ("accuracy", "gain") for end in ("low", "high")]).all()
    text = said(searches(0.5, seeds=1, runs=1))
    assert "[" not in text and "nan" not in text.lower() and "test accuracy 50.0 %" in text


def test_a_search_that_begins_late_is_read_from_its_own_first_row() -> None:
    late = searches(0.6, attack="random").query("evaluations > 10")
    found = final(together(searches(0.6), late)).set_index("attack")
    assert found.loc["genetic", "gain"] == pytest.approx(0.5) and found.loc["random", "gain"] == pytest.approx(0)


def test_rows_of_the_page_have_a_cell_for_each_head() -> None:
    table = together(searches(0.3, spread=0.02), searches(0.2, attack="reinforce", seeds=1, runs=1))
    rows = table_rows(table, 2.0)
    assert [row[4] for row in rows] == ["genetic search of 10 (no control)", "PPO (no control)"]
    assert all(len(row) == len(table_head()) and all(isinstance(cell, str) for cell in row) for row in rows)
    assert rows[1][7:9] == ("20.0 %", "+10.0") and rows[1][-2:] == ("0.25", "1")
    assert rows[0][5:7] == ("cross-entropy", "12") and "[" in rows[0][7]
    assert {row[-2] for row in table_rows(table, float("nan"))} == {""}


# Sentences

TALK = {"fitness": "accuracy", "budget": 10_000}


def as_in_the_talk(ends: float, **about: Any) -> pd.DataFrame:
    """A genetic search by accuracy whose last row is that of 10,000 evaluations."""
    table = searches(ends, **({"runs": 4} | TALK | about))
    return table.assign(evaluations=table["evaluations"].replace(50, 10_000))


def test_a_genetic_search_stuck_at_chance_reproduces_the_talk() -> None:
    text = said(as_in_the_talk(CHANCE + 0.005, spread=0.002))
    assert "50 % of them held, 10,000 evaluations by accuracy: the genetic search (no control), with as many" in text
    assert "stays within 2 points of chance: the talk's result is reproduced" in text


def test_a_genetic_search_that_leaves_chance_does_not_reproduce_it() -> None:
    text = said(as_in_the_talk(0.5, spread=0.02))
    assert "does not stay within 2 points of chance as the talk's does" in text and "is reproduced" not in text


@pytest.mark.parametrize(
    "table",
    [searches(CHANCE), searches(CHANCE, **TALK), as_in_the_talk(CHANCE, seeds=1, runs=1)],
    ids=["by the loss", "too few evaluations", "a single run"],
)
def test_nothing_is_reproduced_by_another_search_than_the_talks(table: pd.DataFrame) -> None:
    assert "is reproduced" not in said(table) and "every search stays within 2 points of chance" in said(table)


def test_nothing_is_reproduced_on_a_victim_near_chance() -> None:
    poor = VICTIMS.assign(accuracy=CHANCE + 0.05)
    assert "is reproduced" not in " ".join(sentences(as_in_the_talk(CHANCE), poor, 2.0))


def test_every_gain_counts_not_only_that_of_the_highest() -> None:
    high = searches(0.5, spread=0.3, starts=0.5, seeds=1)
    text = said(together(high, searches(0.45, spread=0.01, population=100.0)))
    assert "1 of 2 kinds of search, of 4 runs or more, gain on images they never saw, most of all genetic" in text
    assert "most of all genetic search of 100 (no control) on 12 images" in text


def test_a_gain_that_may_be_luck_is_not_called_one() -> None:
    assert "no search is shown to gain" in said(searches(0.5, spread=0.3, starts=0.6))
    assert "no search is shown to gain" in said(searches(0.5, seeds=1, runs=1))


def test_each_victim_share_fitness_and_budget_has_its_sentence() -> None:
    table = together(searches(), searches(keep=1.0), searches(fitness="accuracy"), searches(0.5, budget=99))
    found = sentences(table, VICTIMS, 2.0)
    assert [text.split(":")[0] for text in found[1:-1]] == [
        "victim, blocks of 16 x 16, 50 % of them held, 50 evaluations by accuracy",
        "victim, blocks of 16 x 16, 50 % of them held, 50 evaluations by cross-entropy",
        "victim, blocks of 16 x 16, 50 % of them held, 99 evaluations by cross-entropy",
        "victim, blocks of 16 x 16, 100 % of them held, 50 evaluations by cross-entropy",
    ]
    assert "took 0.5 minutes for 50 evaluations; training one victim takes 2." in found[-1]
    assert len(sentences(table, VICTIMS, float("nan"))) == len(found) - 1


def test_runs_stand_at_the_same_evaluations_once_aligned() -> None:
    table = searches(0.3, attack="reinforce", seeds=1, runs=2)
    table.loc[(table["seed"] == 1) & (table["evaluations"] == 20), "evaluations"] = 21
    found = aligned(table)
    counts = found.groupby("repeat")["evaluations"].apply(list)
    assert counts[0] == counts[1] == [10, 20, 21, 50]
    carried = found[(found["repeat"] == 0) & (found["evaluations"] == 21)]
    assert carried["accuracy"].item() == table[(table["seed"] == 0) & (table["evaluations"] == 20)]["accuracy"].item()


# Figures


def drawn(path: Path) -> str:
    """A figure's text; it must be XML, with a picture beside it."""
    assert path.with_suffix(".png").stat().st_size > 1000
    return made_up.words_of(path)


SPREAD = together(
    searches(0.3, 0.02), searches(0.4, population=20.0), searches(0.2, attack="random"), searches(fitness="accuracy")
)


@pytest.mark.parametrize(
    "table",
    [SPREAD, searches(seeds=1, runs=1), searches(attack="reinforce").query("evaluations < 50 or seed == 0")],
    ids=["several", "one run", "costs that differ between runs"],
)
@pytest.mark.parametrize("retraining", [2.0, float("nan")])
def test_figures_are_drawn(table: pd.DataFrame, retraining: float, tmp_path: Path) -> None:
    text = drawn(draw_search(table, tmp_path / "search.svg"))
    assert "blocks of 16 x 16, 50 % of them held, by cross-entropy" in text
    text = drawn(draw_trajectory(table, VICTIMS, retraining, tmp_path / "trajectory.svg"))
    assert ("training one victim" in text) == (retraining > 0)
    assert "chance" in text


def test_figures_name_every_search_and_panel(tmp_path: Path) -> None:
    text = drawn(draw_search(SPREAD, tmp_path / "search.svg"))
    names = [f"{name} (no control)" for name in ("genetic search of 10", "genetic search of 20", "random search")]
    for label in (*names, "by accuracy", "by cross-entropy", "victim, blocks of 16 x 16, 50 % of them held"):
        assert label in text


def test_no_searches_are_drawn_as_such(tmp_path: Path) -> None:
    empty = SPREAD[:0]
    assert "nothing was measured" in drawn(draw_search(empty, tmp_path / "search.svg"))
    assert "nothing was measured" in drawn(draw_trajectory(empty, VICTIMS, 2.0, tmp_path / "trajectory.svg"))


def test_only_runs_of_equal_images_and_budget_share_a_panel(tmp_path: Path) -> None:
    few = together(searches(0.3), searches(0.2, attack="random"))
    more = together(searches(0.3, images=99, population=50.0), searches(0.3, budget=99, attack="annealing"))
    text = drawn(draw_search(together(few, more), tmp_path / "search.svg"))
    assert "genetic search of 10" in text and "random search" in text
    assert "genetic search of 50" not in text and "simulated annealing" not in text


# The page

PLATEAU = pd.DataFrame(
    {"victim": "victim", "victim_seed": 0, "block_size": 16, "keep": 1.0, "fitness": fitness, "images": images}
    | {"correct_share": share, "snr": 0.1}
    | {"auc": 0.5 + gain, "auc_low": 0.45 + gain}
    for fitness, images in product(("accuracy", "loss"), (10, 30))
    for share, gain in ((0.0, 0.0), (0.5, 0.2 if fitness == "loss" else 0.0), (0.9, 0.3 if fitness == "loss" else 0.0))
)


def test_the_plateau_is_said_on_the_most_images() -> None:
    by_accuracy, by_loss = plateau_figure.sentences(PLATEAU)
    assert (
        "victim, blocks of 16 x 16, 100 % of them held, accuracy on 30 images" in by_accuracy
        and "at no share of blocks right measured" in by_accuracy
    )
    assert "at 2 of 3 shares of blocks right (50 %, 90 %)" in by_loss
    assert "most clearly with 90 % right, 80 times in 100" in by_loss


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    prune, victims = made_up.prune_table(), made_up.victim_table()
    prune = prune[prune["block_size"] == 16]
    return {
        "victim": victims,
        "prune": prune,
        "shuffle": made_up.shuffle_table().query("block_size == 16"),
        "threshold": statistics.threshold(prune, victims),
        "theory": made_up.theory(),
        **made_up.cost_tables(0.64),
    }


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize("with_plateau", [False, True])
def test_the_page_has_the_section_only_where_the_study_searched(
    tables: dict[str, pd.DataFrame], search: bool, with_plateau: bool, tmp_path: Path
) -> None:
    more = {"search": SPREAD} if search else {}
    more |= {"plateau": PLATEAU} if with_plateau else {}
    study = Study.model_validate({"study": "made-up", "block_sizes": [16]})
    text = build_page(tables | more, {}, provenance(study, tables, "x", tmp_path))
    for name, there in (("search", search), ("plateau", with_plateau)):
        assert (text.count(f'id="{name}"'), text.count(f'href="#{name}"')) == (int(there), 2 * int(there))
    assert ("What each search had reached" in text) == search
    assert ("genetic search of 20 (no control)</td>" in text) == search
    assert ("more often than a coin would" in text) == with_plateau
    assert "nan" not in text.lower().split("<pre>")[0].replace("provenance", "")
