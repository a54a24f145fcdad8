"""Statistics against known truths; figures and the page on synthetic tables."""

import subprocess
from collections import Counter
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_tables as made_up
from scatterproof.analysis import statistics
from scatterproof.analysis.columns import COLUMNS
from scatterproof.config.study import Study
from scatterproof.report import words
from scatterproof.report.captions import addresses
from scatterproof.report.figures import base as figures
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.report.sections import grid_words
from scatterproof.report.sections.verdicts import draw_verdict
from scatterproof.report.words import number, threshold_text
from test_stream_report import stream

STUDY = Study.model_validate(
    {
        "study": "made-up",
        "block_sizes": [16, 8, 32],
        "victim": {"seeds": [0, 1, 2, 3, 4]},
        "further_victims": {"copy_free": {}},
    }
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """The tables as a study leaves them, read back from CSV."""
    written = made_up.basic_tables()
    folder = tmp_path_factory.mktemp("tables")
    for name, table in written.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: pd.read_csv(folder / f"{name}.csv") for name in written}


def draw_all(tables: dict[str, pd.DataFrame], folder: Path, retraining: float = 0.64) -> dict[str, Path]:
    victims, block = tables["victim"], 16
    return {
        "prune": figures.draw_prune(tables["prune"], victims, tables["threshold"], block, folder / "prune.svg"),
        "shuffle": figures.draw_shuffle(tables["shuffle"], victims, block, folder / "shuffle.svg"),
        "threshold": figures.draw_threshold(tables["threshold"], folder / "threshold.svg"),
        "curve": figures.draw_curve(tables["curve"], folder / "curve.svg"),
        "cost": figures.draw_cost(tables["cost_summary"], retraining, folder / "cost.svg"),
        "theory": figures.draw_theory(tables["theory"], block, folder / "theory.svg"),
    }


@pytest.fixture(scope="module")
def drawn(tables: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return draw_all(tables, tmp_path_factory.mktemp("figures"))


@pytest.fixture(scope="module")
def page(tables: dict[str, pd.DataFrame], drawn: dict[str, Path]) -> str:
    return build_page(tables, drawn, provenance(STUDY, tables, "make demo", Path(__file__).parent))


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    rng, hits, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        values = 0.5 + 0.05 * rng.standard_normal((15, 1)) + 0.03 * rng.standard_normal((15, 4))
        low, high = np.percentile(statistics.bootstrap_means(values[None], 400)[:, 0], (2.5, 97.5))
        hits += low <= 0.5 <= high
    assert 0.86 <= hits / trials <= 0.99


def test_ragged_repeats_are_drawn_within_their_seed() -> None:
    values = np.array([[[1.0, np.nan, np.nan], [3.0, 3.0, 3.0]]])
    assert set(statistics.bootstrap_means(values)[:, 0]) == {1.0, 2.0, 3.0}


def test_a_resample_takes_the_same_repeats_at_every_point() -> None:
    table = np.random.default_rng(0).random((3, 4))
    means = statistics.bootstrap_means(np.stack([table, table + 1]))
    assert means[:, 1] == pytest.approx(means[:, 0] + 1)


def test_repeats_are_paired_by_number_where_a_point_lacks_some() -> None:
    means = statistics.bootstrap_means(np.array([[[0.0, 1.0, 2.0]], [[np.nan, 11.0, 12.0]]]))
    assert (means[means[:, 0] == 2, 1] == 12).all()
    assert (means[means[:, 0] == 0, 1] == 11.5).all()
    assert not np.isnan(means).any()


def test_the_threshold_of_nested_draws_covers_the_truth() -> None:
    rng, hits, trials = np.random.default_rng(0), 0, 200
    prune = pd.concat([linear_prune(0.8, seeds=1, keeps=(0.1, 0.45, 0.55, 1))[0].assign(repeat=n) for n in range(20)])
    _, victims = linear_prune(0.8, seeds=1)
    for _ in range(trials):
        shift = 0.05 * rng.standard_normal(20)  # of a repeat, at every share alike
        row = statistics.threshold(prune.assign(accuracy=prune["accuracy"] + shift[prune["repeat"]]), victims).iloc[0]
        hits += row["ci_low"] <= 0.5 <= row["ci_high"]
    assert 0.88 <= hits / trials <= 0.99


def test_one_seed_resamples_repeats_and_says_so() -> None:
    frame = pd.DataFrame({"victim_seed": 0, "repeat": [0, 1, 2], "keep": 0.5, "v": "a", "accuracy": [0.2, 0.3, 0.4]})
    row = statistics.curve(frame, ["v"]).iloc[0]
    assert (row["seeds"], row["repeats"], row["mean"]) == (1, 3, pytest.approx(0.3))
    assert 0.199 < row["ci_low"] < 0.3 < row["ci_high"] < 0.401
    assert statistics.curve(frame[:1], ["v"])[["ci_low", "ci_high"]].isna().all(axis=None)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.01, 1))
def test_the_crossing_is_the_first_point_at_the_level(heights: list[float], level: float) -> None:
    x, y = np.linspace(0.1, 1, len(heights)), np.array(heights)
    at = statistics.crossing(x, y[None], level)[0]
    if y.max() < level:
        assert at == np.inf
    elif y[0] >= level:
        assert at == x[0]
    else:
        assert np.interp(at, x, y) == pytest.approx(level, abs=1e-9)
        assert (y[x < at - 1e-12] < level).all()


def linear_prune(
    top: float, seeds: int = 2, keeps: tuple[float, ...] = (0.1, 0.3, 0.7, 1.0)
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A noiseless curve, accuracy = top * keep, of victims that are all 0.8 accurate."""
    head = {"study": "s", "layer": "l", "block_size": 8, "victim": "victim", "scatter": "layer", "correction": "none"}
    rows = [
        head | {"victim_seed": seed, "keep": keep, "repeat": 0, "accuracy": top * keep}
        for seed in range(seeds)
        for keep in keeps
    ]
    victims = pd.DataFrame({"victim": "victim", "victim_seed": range(seeds), "accuracy": 0.8, "chance": 0.1})
    return pd.DataFrame(rows), victims


def test_the_threshold_of_a_noiseless_curve_is_exact() -> None:
    row = statistics.threshold(*linear_prune(0.8)).iloc[0]
    assert row[["keep", "ci_low", "ci_high"]].to_numpy(dtype=float) == pytest.approx(0.5)
    assert row["seeds"] == 2 and list(row.index) == COLUMNS["threshold"]


@pytest.mark.parametrize(
    ("top", "text"), [(0.3, "> 100 %, not reached"), (9.0, "at most 10 %"), (0.8, "50.0 % [50.0, 50.0]")]
)
def test_a_threshold_outside_the_measured_shares_is_said_so(top: float, text: str) -> None:
    table = statistics.threshold(*linear_prune(top))
    assert threshold_text(next(table.itertuples()), 0.1, 1.0) == text


def test_a_victim_whose_half_is_chance_has_no_threshold() -> None:
    prune, victims = linear_prune(0.15)
    victims["accuracy"] = 0.15
    table = statistics.threshold(prune, victims)
    assert table[["keep", "ci_low", "ci_high"]].isna().all(axis=None)
    said = "".join(grid_words.thresholds({"threshold": table, "prune": prune, "victim": victims}, 8))
    assert "no more than chance" in said and "at most" not in said and "not reached" not in said
    assert "no more than chance" in threshold_text(next(table.itertuples()), 0.1, 1.0, chance=True)


def test_a_threshold_is_never_without_text() -> None:
    table = pd.DataFrame(list(product((0.1, 0.5, np.nan), repeat=3)), columns=["keep", "ci_low", "ci_high"])
    assert all(threshold_text(row, 0.1, 1.0, chance) for row in table.itertuples() for chance in (False, True))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(seed: int) -> None:
    prune, victims = made_up.prune_table(), made_up.victim_table()
    prune = prune[prune["block_size"] == 16]
    mixed = prune.sample(frac=1, random_state=seed)
    pd.testing.assert_frame_equal(statistics.threshold(prune, victims), statistics.threshold(mixed, victims))
    by = ["victim", "correction"]
    pd.testing.assert_frame_equal(statistics.curve(prune, by), statistics.curve(mixed, by))


def test_excess_over_chance_for_each_victim_and_pooled(tables: dict[str, pd.DataFrame]) -> None:
    excess = statistics.shuffled_excess(tables["shuffle"], tables["victim"])
    assert len(excess) == 2 * 3 * (5 + 1)
    biased = excess[(excess["victim"] == "victim") & (excess["victim_seed"] == "4")]
    assert not biased["within"].any() and (biased["excess"] > 0.02).all()
    assert excess[excess["victim"] == "copy_free"]["within"].all()
    pooled = excess[excess["victim_seed"] == "all"]
    assert (pooled["seeds"] == 5).all() and (pooled["ci_low"] < pooled["excess"]).all()


def said_of_excess(tables: dict[str, pd.DataFrame], shuffle: pd.DataFrame) -> str:
    return grid_words.excess(statistics.shuffled_excess(shuffle, tables["victim"]), statistics.draw_spread(shuffle))


def test_the_words_on_excess_say_what_was_measured(tables: dict[str, pd.DataFrame]) -> None:
    shuffle = tables["shuffle"]
    assert "not measured" in said_of_excess(tables, shuffle[shuffle["moved"] < 1])
    assert "not measured" in said_of_excess(tables, shuffle[shuffle["keep"] < 1])
    whole = shuffle[(shuffle["keep"] == 1) & (shuffle["moved"] == 1)]
    variances = whole.groupby(["victim", "block_size", "victim_seed"])["accuracy"].var()
    assert f"standard deviation of {100 * np.sqrt(variances.mean()):.1f} points" in said_of_excess(tables, shuffle)
    single = said_of_excess(tables, shuffle[shuffle["repeat"] == 0])
    assert "No draw was repeated" in single and "one or a few classes" not in single


def test_a_single_draw_off_chance_is_not_said_to_have_an_interval(tables: dict[str, pd.DataFrame]) -> None:
    shuffle = tables["shuffle"]
    one = shuffle[(shuffle["repeat"] == 0) & (shuffle["victim_seed"] == 4) & (shuffle["victim"] == "victim")]
    said = said_of_excess(tables, one)
    assert "without interval: victim seed 4" in said and "leaves 0 out" not in said


def test_only_all_displaced_counts_as_random_places(tables: dict[str, pd.DataFrame]) -> None:
    shuffle = tables["shuffle"]
    assert "as many in random places give" in grid_words.headline(tables, 16)[0]
    half = grid_words.headline(tables | {"shuffle": shuffle[shuffle["moved"] < 1]}, 16)[0]
    assert "with 50 % of them displaced give" in half and "random places" not in half


@pytest.mark.parametrize(("gain", "told"), [(1e-15, False), (0.0005, False), (0.002, True)])
def test_a_correction_is_mentioned_only_where_it_shows(
    tables: dict[str, pd.DataFrame], gain: float, told: bool
) -> None:
    prune = tables["prune"].assign(accuracy=0.3333)
    prune.loc[prune["correction"] == "scale", "accuracy"] += gain
    assert ("made up for" in grid_words.headline(tables | {"prune": prune}, 16)[0]) == told


def test_differing_epochs_are_warned_of(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    victims = tables["victim"]
    assert grid_words.epochs(victims) == ""
    differing = victims.assign(epochs=victims["epochs"].where(victims["victim"] == "victim", 8))
    text = build_page(tables | {"victim": differing}, {}, provenance(STUDY, tables, "x", tmp_path))
    assert "different numbers of epochs (victim: 12; copy free: 8). The comparison between them is" in text
    unknown = victims.assign(epochs=victims["epochs"].where(victims["victim"] == "victim"))
    assert "copy free: unknown" in grid_words.epochs(unknown)


def test_theory_has_a_titled_panel_for_each_layer_and_share(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    theory = pd.concat([tables["theory"], tables["theory"].assign(layer="the_head"), tables["theory"].assign(keep=0.2)])
    text = figures.draw_theory(theory, 16, tmp_path / "theory.svg").read_text()
    assert (
        sum(text.count(f">{layer}, blocks of 16 x 16, 10 % of them held<") for layer in ("classifier.0", "the_head"))
        == 2
    )
    assert text.count(">classifier.0, blocks of 16 x 16, 20 % of them held<") == 1


def test_an_empty_selection_is_drawn_as_such(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    empty = tables | {name: tables[name][:0] for name in ("curve", "prune", "shuffle", "threshold", "theory")}
    empty["cost_summary"] = tables["cost_summary"].query("stage == 'total'")
    drawn = draw_all(empty, tmp_path)
    for name in ("prune", "shuffle", "threshold", "theory"):
        assert "nothing was measured" in drawn[name].read_text()
    figures.draw_theory(tables["theory"], 999, tmp_path / "other.svg")


def test_corrections_are_named_alike_everywhere(page: str, drawn: dict[str, Path]) -> None:
    for label in words.CORRECTIONS.values():
        assert label in drawn["prune"].read_text() and f">{label}</th>" in page


def test_figures_are_the_same_bytes_each_time(
    tables: dict[str, pd.DataFrame], drawn: dict[str, Path], tmp_path: Path
) -> None:
    for name, again in draw_all(tables, tmp_path).items():
        for suffix in (".svg", ".pdf", ".png"):
            first, second = drawn[name].with_suffix(suffix).read_bytes(), again.with_suffix(suffix).read_bytes()
            assert len(first) > 3000 and first == second


def smallest(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """One victim, seed, block size, moved share and repeat; nothing trained, no talk's figure."""
    small = dict(tables)
    for name in ("victim", "curve", "prune", "shuffle"):
        one = tables[name][(tables[name]["victim"] == "victim") & (tables[name]["victim_seed"] == 0)]
        small[name] = one[one["block_size"] == 16]
    small["victim"] = small["victim"].assign(device_minutes=np.nan)
    small["curve"] = small["curve"][:0]
    small["prune"] = small["prune"][small["prune"]["repeat"] == 0]
    small["shuffle"] = small["shuffle"][(small["shuffle"]["repeat"] == 0) & (small["shuffle"]["moved"] == 1)]
    small["threshold"] = statistics.threshold(small["prune"], small["victim"])
    small["theory"] = tables["theory"][tables["theory"]["population"] != 100]
    small |= made_up.cost_tables(float("nan"))
    return small


def test_the_smallest_study_has_figures_and_a_page(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    small = smallest(tables)
    text = build_page(small, draw_all(small, tmp_path, float("nan")), provenance(STUDY, small, "x", tmp_path))
    assert "nan" not in text.lower().split("<pre>")[0].replace("provenance", "")
    assert "not in a git checkout" in text


def test_a_page_of_hijacks_alone_gives_their_verdict(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    """A study that serves a layer, and runs no other attack."""
    threats = ["layer-1-100-none+stream-0-1", "layer-0.25-100-none+stream-0.5-10-7labelled+relays=2-batch=64"]
    verdicts = pd.DataFrame(
        [
            {"study": "made-up", "layer": "classifier.0", "block_size": 16, "keep": keep, "victim": "copy_free"}
            | {"threat": threat, "images": 100, "knows": "none", "verdict": verdict, "basis": "recipe"}
            | {
                "activations": "none",
                "requests": 0,
                "defence": "none",
                "defence_params": "",
                "obfuscation": "relays" if "relays" in threat else "none",
            }
            | {"attack": "hijack-adaptive", "against": "nothing", "accuracy": 0.9, "withheld_accuracy": 0.1}
            | {
                "victim_accuracy": 0.95,
                "ends_with": 0.9,
                "ends_with_attack": "hijack-adaptive",
                "gain": 0.8,
                "ci_low": 0.7,
                "ci_high": 0.9,
                "margin": 0.02,
                "headroom": 0.85,
                "headroom_low": 0.84,
                "headroom_high": 0.86,
                "told": "ceiling not run",
                "told_accuracy": np.nan,
                "told_most": np.nan,
                "seeds": 5,
                "seeds_to_decide": np.nan,
                "minutes": 0.02,
            }
            | {"cost_over_retraining": 0.1, "controls": "passed", "device": made_up.DEVICE}
            for keep, threat, verdict in zip((1.0, 0.25), threats, ("broken", "undecided"), strict=True)
        ]
    )
    drawn = draw_verdict(verdicts, tmp_path / "verdict.svg")
    served = tables | {"stream": stream(), "verdict": verdicts}
    page = build_page(served, {"verdict": drawn}, provenance(STUDY, served, "x", tmp_path))
    assert "copy free, blocks of 16 x 16: under 0 of 2 threats the pirate ends with 95 %" in page
    assert "Verdicts: broken 1, undecided 1." in page
    grants = "100 % of them held, 100 unlabelled images; traffic of its own devices, 1 request"
    assert f"{grants}: the pirate ends with 90.0 of 95.0 % (hijack-adaptive, with the blocks); verdict: broken" in page
    assert (
        "traffic of its own devices and of 50 % of the links, 10 requests, 7 places leaked, relays=2 batch=64" in page
    )
    assert "which are not part of this study" not in page
    assert page.count('id="verdict"') == 1


class Page(HTMLParser):
    """Ids, links and open tags of a page; what is never closed by HTML's own rules is left out."""

    void = frozenset({"meta", "br", "link", "img", "hr", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_self_contained(page: str) -> None:
    parsed = Page(page)
    assert not parsed.open and len(parsed.ids) == len(set(parsed.ids))
    inside = [link for link in parsed.links if not link.startswith("https://")]
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in inside)
    assert parsed.tags["svg"] == 7 and not {"link", "img", "iframe"} & set(parsed.tags)
    assert "@import" not in page and "url(http" not in page
    assert page.count("<script") == page.count("<script>\n") == 1 and "fetch(" not in page, "it loads nothing"


def test_tables_and_figures_are_linked_where_their_files_lie(
    tables: dict[str, pd.DataFrame], drawn: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/prune.csv").write_text("")
    files = addresses([tmp_path / "tables/prune.csv", *drawn.values()], tmp_path / "report/index.html")
    assert files["prune.csv"] == "../tables/prune.csv"
    (tmp_path / "tables/alone.svg").write_text("")
    assert list(addresses([tmp_path / "tables/alone.svg"], tmp_path / "report/index.html")) == ["alone.svg"]
    page = build_page(tables, drawn, provenance(STUDY, tables, "x", tmp_path), files)
    linked = {link for link in Page(page).links if not link.startswith(("#", "https://"))}
    assert linked == set(files.values()) and len(linked) == 1 + 3 * len(drawn)
    (tmp_path / "report").mkdir()
    assert all((tmp_path / "report" / link).exists() for link in linked)


def test_the_page_has_the_numbers_of_every_table(page: str, tables: dict[str, pd.DataFrame]) -> None:
    text = Page(page).text
    accuracies = [tables["victim"]["accuracy"]]
    accuracies += [statistics.curve(tables["prune"], ["victim", "block_size", "correction"])["mean"]]
    accuracies += [statistics.curve(tables["shuffle"], ["victim", "block_size", "moved"])["mean"]]
    for accuracy in pd.concat(accuracies):
        assert f"{100 * accuracy:.1f} %" in text
    for value in tables["theory"][["value", "exact", "monte_carlo"]].to_numpy().ravel():
        assert number(value) in text
    for value in tables["cost_summary"]["device_minutes"]:
        assert f"{value:.3g}" in text
    assert "train_victim/victim/seed0.1" in text and "LOST" in text


def test_the_page_says_what_the_issue_asks(page: str) -> None:
    text = " ".join(Page(page).text.split())
    assert "victim, blocks of 16 x 16, 25 % of them held: in known places they give" in text
    assert (
        "reports 4.52e-4" in text and "2.72e-4 (or 2.90e-4" in text and "contains the exact value and excludes" in text
    )
    assert "5,000 minutes are 33.3x of 2.5 h; 27x would mean 3.09 h" in text
    assert text.count("The share of the largest class of the test images") == 1
    assert "not attacks" in text and "none of them is a GPU-minute" in text


def test_provenance_tells_a_changed_tree(tmp_path: Path) -> None:
    def commit() -> str:
        return str(provenance(STUDY, {}, "make demo", tmp_path)["facts"]["commit"])

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    assert commit() == "not in a git checkout"
    git("init")
    git("commit", "--allow-empty", "-m", "first")
    assert len(commit()) == 40
    (tmp_path / "new").touch()
    assert commit().endswith(", with uncommitted changes")
