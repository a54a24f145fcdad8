"""The whole line, run by Snakemake on a tiny study: what it leaves, what it reruns, what it survives."""

import io
import os
import re
import shutil
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

import workflow
from scatterproof.running.files import read_table
from workflow import FIGURES, RESULTS, TABLES, TIMED, TINY, Finished

HEAD = ["study", "victim_seed", "layer", "block_size", "keep"]
COSTS = ["device", "device_minutes", "gpu_minutes"]


@pytest.fixture(scope="module")
def no_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose torch cannot be imported."""
    folder = tmp_path_factory.mktemp("no_torch")
    (folder / "torch.py").write_text("raise RuntimeError('torch was imported')\n")
    return folder


def read(finished: Finished, name: str) -> pd.DataFrame:
    return read_table(str(finished.folder / RESULTS / "tables" / f"{name}.csv"))


def test_it_leaves_tables_figures_and_a_page(finished: Finished) -> None:
    folder = finished.folder / RESULTS
    assert {path.stem for path in (folder / "tables").iterdir()} == {*TABLES, *TIMED}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        f"{n}.{k}" for n in FIGURES for k in ("svg", "pdf", "png")
    }
    for name in FIGURES:
        assert "</svg>" in (folder / "figures" / f"{name}.svg").read_text()
        with Image.open(folder / "figures" / f"{name}.png") as image:
            assert min(image.info["dpi"]) > 299
            image.verify()
    assert "</html>" in (folder / "report" / "index.html").read_text()
    assert f"The report is {RESULTS}/report/index.html" in finished.output
    assert not [path for path in finished.folder.rglob("*") if path.suffix in (".tmp", ".part")]
    assert not list(folder.rglob("checkpoint.pt"))


def test_columns_stand_in_the_order_of_the_design(finished: Finished) -> None:
    for name in (*TABLES, "breakeven", "crossing"):
        assert list(read(finished, name))[:5] == HEAD, name
    for name in ("victim", "prune", "shuffle", "search", "plateau", "retraining"):
        frame = read(finished, name)
        assert list(frame)[-3:] == COSTS, name
        assert frame["gpu_minutes"].isna().all(), name
        assert (frame["device_minutes"] > 0).all(), name
        assert frame["device"].str.startswith("cpu").all(), name


def test_tables_hold_every_victim_block_size_and_draw(finished: Finished) -> None:
    victims = {("victim", 0), ("victim", 1), ("copy_free", 0)}
    prune, shuffle, victim = (read(finished, name) for name in ("prune", "shuffle", "victim"))
    assert {
        (str(name), int(seed)) for name, seed in zip(victim["victim"], victim["victim_seed"], strict=True)
    } == victims
    assert len(prune) == len(victims) * 2 * 3 * 2 * 2  # block sizes, shares, repeats, corrections
    assert len(shuffle) == len(victims) * 2 * 2
    key = ["victim", "victim_seed", "block_size", "keep"]
    assert not prune.duplicated([*key, "repeat", "correction"]).any()
    assert not shuffle.duplicated([*key, "moved", "repeat"]).any()
    assert set(read(finished, "theory")["block_size"].dropna()) >= {16, 60}


def test_tables_hold_every_search_and_what_it_had_reached_when(finished: Finished) -> None:
    search, trajectory = read(finished, "search"), read(finished, "trajectory")
    middle = ["threat", "attack", "fitness", "population", "images", "budget", "seed"]
    reached = ["generation", "evaluations", "best_fitness", "test_images", "accuracy"]
    assert list(search) == [*HEAD, "victim", *middle, *reached, *COSTS]
    kinds = search[["attack", "fitness", "keep", "threat"]].drop_duplicates().to_numpy().tolist()
    assert sorted(kinds) == [
        *(["genetic", "accuracy", keep, f"layer-{keep:g}-8-labels"] for keep in (0.3, 1.0)),
        *(["hill_climbing", "accuracy", keep, f"layer-{keep:g}-8-labels"] for keep in (0.3, 1.0)),
        ["reinforce", "loss", 1.0, "layer-1-8-labels"],
    ]
    assert set(search["victim"]) == {"victim"} and set(search["victim_seed"]) == {0}
    assert set(search["block_size"]) == {16} and set(search["images"]) == {8}
    assert (search["population"].notna() == (search["attack"] == "genetic")).all()
    for _, rows in search.groupby(["attack", "keep"]):
        assert rows["evaluations"].is_monotonic_increasing and rows["evaluations"].iloc[-1] == 60
        assert rows["best_fitness"].is_monotonic_increasing and rows["device_minutes"].is_monotonic_increasing
    assert search["accuracy"].between(0, 1).all()
    renamed = search.rename(columns={"device_minutes": "minutes"})
    assert set(trajectory) == {*HEAD, "victim", *middle, "minutes", "evaluations", "test_images", "accuracy", "device"}
    searched = trajectory[trajectory["budget"].notna()]
    pd.testing.assert_frame_equal(searched, renamed[list(trajectory)], check_dtype=False)
    assert set(trajectory[trajectory["budget"].isna()]["attack"]) == {"fingerprint", "layer"}
    assert not list((finished.folder / RESULTS / "search").glob("*.work"))


def test_attacks_are_scored_step_by_step_against_the_same_blocks_in_their_places(finished: Finished) -> None:
    attacks = read(finished, "attacks")
    threats = ["layer-0.5-0-none", "layer-0.5-8-none", "layer-1-0-none", "layer-1-8-none", "layer-1-8-labels"]
    threats += ["layer-1-8-none-rescale-10", "layer-1-8-none-home-0.3-drawn"]
    last = attacks[attacks["last"]]
    assert set(last["victim"]) == {"victim"}
    by_role = dict(iter(last.groupby("role")))
    assert sorted(by_role["blocks"]["threat"]) == sorted(by_role["ceiling"]["threat"]) == sorted(threats)
    assert sorted(by_role["withheld"]["attack"]) == ["layer", *["nothing"] * 7]
    assert sorted(by_role["told"]["attack"]) == ["told", "told+core", "told+train"]
    fingerprint = by_role["blocks"]
    assert set(fingerprint["attack"]) == {"fingerprint"}
    assert (attacks[attacks["role"] == "blocks"].groupby(["victim", "threat"])["step"].max() >= 1).all()
    undefended = fingerprint[fingerprint["defence"] == "none"]
    whole = undefended[undefended["keep"] == 1].merge(read(finished, "victim"), on=["victim", "victim_seed"])
    assert (whole["known_places_accuracy"] == whole["accuracy_y"]).all()
    assert (whole["relative_accuracy"] == whole["accuracy_x"] / whole["accuracy_y"]).all()
    assert last["withheld_accuracy"].notna().all()
    assert (fingerprint["position_accuracy"] <= fingerprint["row_accuracy"]).all()
    assert (fingerprint["cost_over_retraining"] > 0).all()


def test_every_threat_has_a_verdict_and_every_attack_its_controls(finished: Finished) -> None:
    verdicts, controls = read(finished, "verdict"), read(finished, "controls")
    assert len(verdicts) == 8, "seven threats, and one hijack by a pirate who holds all blocks"
    assert verdicts["threat"].str.contains("+stream", regex=False).sum() == 1
    assert set(verdicts["verdict"]) <= {"undecided", "invalid"}, "one seed decides nothing"
    assert controls[["attack", "control", "shuffles"]].to_numpy().tolist() == [
        ["fingerprint", "planted", 1],
        ["fingerprint", "random", 10],
        *([form, "told-planted", 1] for form in ("told", "told+train", "told+core")),
        ["hijack-adaptive", "planted", 1],
        ["hijack-adaptive", "random", 10],
        ["hijack-adaptive", "labelled", 1],
        ["hijack-adaptive", "topology", 10],
    ]


def test_the_plateau_is_measured_on_the_victims_searched(finished: Finished) -> None:
    plateau = read(finished, "plateau")
    assert set(plateau["victim"]) == {"victim"} and set(plateau["victim_seed"]) == {0}
    assert plateau[["correct_share", "images", "fitness"]].drop_duplicates().shape[0] == len(plateau) == 2 * 2 * 2
    assert set(plateau["draws"]) == {12} and set(plateau["keep"]) == {1.0}


def test_the_stream_is_hijacked_with_and_without_blocks(finished: Finished) -> None:
    stream = read(finished, "stream")
    assert list(stream.columns[:6]) == [*HEAD, "victim"]
    assert list(stream.columns[-3:]) == ["device", "device_minutes", "gpu_minutes"]
    assert stream["seed"].tolist() == [0, 1] * 3
    plain = stream[(stream["obfuscation"] == "none") & (stream["keep"] == 0)]
    assert (plain[["column_ari", "row_ari"]] == 1).all(axis=None)
    assert stream["accuracy"].notna().tolist() == [False] * 4 + [True] * 2


def test_attacks_are_set_against_every_training(finished: Finished) -> None:
    retraining, breakeven, crossings = (read(finished, name) for name in ("retraining", "breakeven", "crossing"))
    epochs = retraining.groupby(["source", "recipe", "victim", "victim_seed"])["epoch"].agg(list).to_dict()
    assert epochs == {
        ("own", "own", "victim", 0): [1, 2],
        ("own", "own", "victim", 1): [1, 2],
        ("own", "own", "copy_free", 0): [1],
        ("recipe", "short", "victim", 0): [1],
        ("pirate", "longer", "victim", 0): [1, 2, 3],
    }
    assert set(retraining["images"]) == {1000, 8}
    own = retraining[retraining["source"] == "own"].sort_values(["victim", "victim_seed", "epoch"])
    curve = read(finished, "curve").sort_values(["victim", "victim_seed", "epoch"])
    assert own["minutes"].tolist() == curve["minutes"].tolist()
    kinds = breakeven[breakeven["victim"] == "victim"].drop_duplicates(["what", "name", "keep"])["what"]
    assert kinds.value_counts().to_dict() == {"attack": 7, "own": 1, "recipe": 1, "pirate": 1}
    assert (breakeven["reached"] <= breakeven["runs"]).all() and breakeven["comparable"].all()
    assert (breakeven["minutes"].notna() == (breakeven["reached"] > 0)).all()
    assert len(crossings) == 12 * 3 and set(crossings["ahead"]) <= {"never", "until", "throughout"}


def test_all_blocks_in_place_give_exactly_the_victims_accuracy(finished: Finished) -> None:
    prune, victim = read(finished, "prune"), read(finished, "victim")
    whole = prune[prune["keep"] == 1].merge(victim, on=["victim", "victim_seed"], suffixes=("", "_victim"))
    assert len(whole) == 3 * 2 * 2 * 2
    assert (whole["accuracy"] == whole["accuracy_victim"]).all()


def test_a_puzzle_is_the_same_wherever_it_is_cut(finished: Finished) -> None:
    found: dict[tuple[str, str, str], list[bytes]] = {}
    for kind in ("puzzles", "answers"):
        for path in (finished.folder / RESULTS / kind / "victim" / "seed0").glob("*/*/*.safetensors"):
            found.setdefault((kind, path.parent.name, path.name), []).append(path.read_bytes())
    assert len(found["answers", "b16", "layer-1-8-none.safetensors"]) == 4, "grid, attacks, fineness, devices held"
    assert {len(set(copies)) for copies in found.values()} == {1}


def test_every_stage_is_in_the_ledger(finished: Finished) -> None:
    cost, summary = read(finished, "cost"), read(finished, "cost_summary")
    assert set(cost["state"]) <= {"COMPLETED", "RUNNING"}
    assert {
        "data",
        "victim",
        "defences",
        "ceilings",
        "blocks",
        "prune",
        "shuffle",
        "theory",
        "search",
        "plateau",
        "attacks",
        "fineness",
        "stream",
        "retraining",
        "report",
    } <= set(summary["stage"])
    assert (cost["rule"] == "train_victim").sum() == 3
    assert (cost["rule"] == "train_recipes").sum() == 1
    cut = cost[cost["rule"] == "cut_puzzle"]["job"].str.split(".", n=2).str[2].value_counts().to_dict()
    assert cut == {
        "grid": 3,
        "fineness": 1,
        "attacks.0": 1,
        "attacks.1": 1,
        "attacks.2": 1,
        "attacks.3": 1,
        **dict.fromkeys(("layer-0.3-8-labels", "layer-1-8-labels", "layer-1-8-none"), 1),
    }, "the plateau and a search share a threat"
    groups, waste = read(finished, "cost_groups"), read(finished, "cost_waste")
    names = {by: set(rows["name"]) for by, rows in groups.groupby("by")}
    searches, attacks = {"genetic", "hill_climbing", "reinforce"}, {"fingerprint", "nothing", "layer", "hijack"}
    told = {"told", "told+train", "told+core"}
    assert names["attack"] == {"(none)", *searches, *attacks, *told}
    assert names["victim"] == {"(none)", "victim", "copy_free"} and names["rule"] == set(cost["rule"])
    total = summary.set_index("stage").loc["total", "device_minutes"]
    for _, rows in groups.groupby("by"):
        assert rows["device_minutes"].sum() == pytest.approx(total)
    assert waste.empty


def test_the_command_tells_the_same_as_the_table(finished: Finished) -> None:
    command = [Path(sys.executable).with_name("scatterproof"), "cost", "--configfile", "tiny.yaml", "--csv"]
    done = subprocess.run(command, cwd=finished.folder, capture_output=True, text=True, check=True)
    told = pd.read_csv(io.StringIO(done.stdout)).set_index("stage")
    table = read(finished, "cost_summary").set_index("stage")
    stages = [stage for stage in table.index if stage not in ("report", "total")]  # the report came after the table
    pd.testing.assert_frame_equal(told.loc[stages], table.loc[stages], check_dtype=False)


def test_a_second_run_has_nothing_to_do_and_parsing_needs_no_torch(finished: Finished, no_torch: Path) -> None:
    status, output = workflow.snakemake(finished.folder, TINY, path=no_torch)
    assert status == 0, output
    assert "Nothing to be done" in output
    assert workflow.jobs(output) == {}


def test_a_change_reruns_only_what_depends_on_it(finished: Finished, tmp_path: Path, no_torch: Path) -> None:
    workflow.copy(finished.folder, tmp_path)
    study = deepcopy(TINY)
    study["prune"]["repeats"] = 3
    status, output = workflow.snakemake(tmp_path, study, "-n", path=no_torch)
    assert status == 0, output
    after = ["tabulate_prune", "tabulate_thresholds", "draw_figures", "tabulate_costs", "build_report", "all"]
    assert workflow.jobs(output) == {"evaluate_prune": 9} | dict.fromkeys(after, 1)


@pytest.mark.parametrize(
    ("section", "keys", "rules"),
    [
        (
            "search",
            {"genetic": {"elite": 0.5}},
            {"search_placements": 2, "score_search": 2, "tabulate_search": 1}
            | {"tabulate_retraining": 1, "tabulate_verdicts": 1},
        ),
        (
            "retraining",
            {"recipes": {"short": {"epochs": 2}}, "pirate_images": [8, 9]},
            {"train_recipes": 2, "tabulate_retraining": 1, "tabulate_verdicts": 1},
        ),
        ("plateau", {"draws": 13}, {"measure_plateau": 1, "tabulate_plateau": 1}),
    ],
)
def test_attacking_or_retraining_otherwise_trains_no_victim_and_cuts_nothing(
    finished: Finished, no_torch: Path, section: str, keys: dict[str, Any], rules: dict[str, int]
) -> None:
    study = TINY | {section: TINY[section] | keys}
    status, output = workflow.snakemake(finished.folder, study, "-n", path=no_torch)
    assert status == 0, output
    after = ["draw_figures", "tabulate_costs", "build_report", "all"]
    assert workflow.jobs(output) == rules | dict.fromkeys(after, 1)


def test_one_more_threat_runs_nothing_finished_again(finished: Finished, no_torch: Path) -> None:
    study = deepcopy(TINY)
    study["attacks"]["grids"].append({"images": [6]})
    study["search"]["grids"].append(study["search"]["grids"][0] | {"keep": [0.5]})
    status, output = workflow.snakemake(finished.folder, study, "-n", path=no_torch)
    assert status == 0, output
    jobs = workflow.jobs(output)
    work = {rule: count for rule, count in jobs.items() if not rule.startswith(("tabulate", "control"))}
    once = ["attack_puzzle", "score_attack", "search_placements", "score_search", "draw_figures", "build_report", "all"]
    assert work == {"cut_puzzle": 2} | dict.fromkeys(once, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"block_sizes": [16, 60, 30]},
        {"further_victims": TINY["further_victims"] | {"wide": {"width": 1 / 32, "seeds": [0]}}},
    ],
)
def test_more_of_a_study_trains_no_victim_again(
    finished: Finished, tmp_path: Path, no_torch: Path, change: dict[str, Any]
) -> None:
    workflow.copy(finished.folder, tmp_path)
    status, output = workflow.snakemake(tmp_path, deepcopy(TINY) | change, "-n", path=no_torch)
    assert status == 0, output
    assert workflow.jobs(output).get("train_victim", 0) == len(change.get("further_victims", {"copy_free": {}})) - 1


def test_no_key_of_the_demo_leaks_into_a_study(tmp_path: Path, no_torch: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "demo.yaml").write_text("study: demo\nno_such_key: 1\n")
    status, output = workflow.snakemake(tmp_path, TINY, "-n", path=no_torch)
    assert status == 0, output


def test_a_checkpoint_path_may_hold_the_seed(tmp_path: Path, no_torch: Path) -> None:
    study = deepcopy(TINY) | {"further_victims": {}}
    study["victim"] |= {"kind": "checkpoint", "checkpoint": "mine.{seed}.safetensors"}
    status, output = workflow.snakemake(tmp_path, study, "-n", path=no_torch)
    assert status == 0, output


def test_a_failing_cell_leaves_the_others_finished(finished: Finished, tmp_path: Path) -> None:
    folder = workflow.copy(finished.folder, tmp_path) / RESULTS
    puzzle = folder / "puzzles" / "victim" / "seed0" / "grid" / "b16" / "layer-1-8-none.safetensors"
    before = puzzle.stat()
    puzzle.write_bytes(puzzle.read_bytes()[:1000])
    os.utime(puzzle, ns=(before.st_atime_ns, before.st_mtime_ns))
    cells = folder / "cells" / "shuffle"
    gone = [cells / "victim.0.0.csv", cells / "victim.1.0.csv", folder / "tables" / "shuffle.csv"]
    for path in (*gone, folder / "report" / "index.html"):
        path.unlink()
    status, output = workflow.snakemake(tmp_path, TINY)
    assert status != 0
    assert (cells / "victim.1.0.csv").exists(), output
    assert not (cells / "victim.0.0.csv").exists()
    assert "error in evaluate_shuffle" in output
    assert str(puzzle.relative_to(tmp_path)) in output
    assert not (folder / "tables" / "shuffle.csv").exists()
    assert not (folder / "report" / "index.html").exists()


def test_a_second_controller_is_refused_by_name(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / RESULTS).mkdir(parents=True)
    shutil.copy2(finished.folder / RESULTS / "dataset.safetensors", tmp_path / RESULTS)
    process = workflow.start(tmp_path, TINY)
    try:
        lock = tmp_path / RESULTS / ".controller"
        while not (lock.exists() and lock.read_text()):
            assert process.poll() is None, (tmp_path / "out.txt").read_text()
            time.sleep(0.05)
        status, output = workflow.snakemake(tmp_path, TINY)
        assert process.poll() is None, "the first was disturbed"
    finally:
        workflow.kill(process, tmp_path)
    assert status != 0
    assert re.search(rf"^{RESULTS} is being worked on by process {process.pid} on \S+$", output, re.MULTILINE), output
    assert "Traceback" not in output


def test_snakemakes_own_report(finished: Finished, tmp_path: Path) -> None:
    page = tmp_path / "snakemake.html"
    status, output = workflow.snakemake(finished.folder, TINY, "--report", str(page))
    assert status == 0, output
    text = page.read_text()
    for name in (*FIGURES, "threshold.csv", "cost_summary.csv"):
        assert name in text
