"""The job's own record, the ledger made of such records, and its sums."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import report_tables as made_up
from scatterproof.analysis.columns import COLUMNS
from scatterproof.config.cost import CostConfig
from scatterproof.config.study import StudyError, parse_study
from scatterproof.cost.energy import price_warnings, reckon
from scatterproof.cost.ledger import OF_ATTEMPT, build_ledger, retraining_minutes, shares, shares_text
from scatterproof.cost.records import RecordError, read_records
from scatterproof.cost.stages import NONE, RULES, UNKNOWN
from scatterproof.cost.sums import cost_groups, cost_summary, group_sums, waste_table
from scatterproof.report.cost_words import sentences
from scatterproof.running.cost_record import measured

CPU, GPU = "cpu: AMD EPYC 9654", "cuda: NVIDIA H200"
ROOT = Path(__file__).resolve().parents[1]


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def run_job(folder: Path, job: str = "victim/seed0", device: str = CPU, stage: str = "victim") -> None:
    with measured(folder, stage, f"do_{stage}", job, device):
        pass


def test_a_job_writes_its_record_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "train_victim" / "victim%2Fseed0.1.json"
    with measured(tmp_path, "victim", "train_victim", "victim/seed0", CPU) as meter:
        before = json.loads(path.read_text())
        meter.device_minutes = 1.5
    after = json.loads(path.read_text())
    assert (before["state"], before["pid"], before["node"]) == ("RUNNING", os.getpid(), platform.node())
    assert (after["state"], after["version"], after["gpus"], after["device_minutes"]) == ("COMPLETED", 1, 0, 1.5)
    assert after["elapsed_s"] == pytest.approx(after["startup_s"] + after["useful_s"], abs=0.01)
    assert after["startup_s"] > 0 and after["cpu_s"] > 0 and after["mem_mb"] > 10


def test_a_failure_passes_through_and_is_wasted(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), measured(tmp_path, "prune", "evaluate_prune", "0", GPU):
        raise ZeroDivisionError
    run_job(tmp_path, stage="prune", job="0")
    costs = build_ledger(read_records(tmp_path))
    assert [list(row) for row in costs] == [OF_ATTEMPT] * 2
    (failed,) = [row for row in costs if row["wasted"]]
    assert (failed["state"], failed["waste"], failed["useful_minutes"]) == ("FAILED", "failed", 0)
    assert failed["allocated_gpu_minutes"] == pytest.approx(failed["elapsed_s"] / 60)
    assert column(costs, "queue_s") == [None, None] and set(column(costs, "source")) == {"measured"}


def test_a_killed_attempt_is_lost_and_the_next_one_counts(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "from scatterproof.running.cost_record import measured\n"
        f"with measured(pathlib.Path(sys.argv[1]), 'victim', 'do_victim', 'victim/seed0', '{GPU}'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert column(build_ledger(read_records(tmp_path)), "state") == ["LOST"]
    run_job(tmp_path)
    costs = build_ledger(read_records(tmp_path))
    assert column(costs, "state") == ["LOST", "COMPLETED"] and column(costs, "attempt") == [1, 2]
    assert column(costs, "waste") == ["lost", ""]
    assert costs[0]["elapsed_s"] is None and costs[0]["allocated_gpu_minutes"] is None


def test_a_job_that_is_running_is_not_lost(tmp_path: Path) -> None:
    with measured(tmp_path, "victim", "train_victim", "a", CPU):
        (running,) = build_ledger(read_records(tmp_path))
    assert (running["state"], running["wasted"], running["elapsed_s"]) == ("RUNNING", False, None)


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"process_started": 12.0}, "LOST"),  # the process id was given to another process since
        ({"node": "elsewhere", "pid": 2**30}, "RUNNING"),  # cannot be looked up from here
    ],
)
def test_a_running_record_is_judged_by_process_and_node(tmp_path: Path, change: dict[str, object], state: str) -> None:
    run_job(tmp_path)
    path = next(tmp_path.glob("*/*.json"))
    started = psutil.Process().create_time()
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"state": "RUNNING", "process_started": started} | change)
    )
    assert column(read_records(tmp_path), "state") == [state]


def test_names_that_look_alike_are_different_jobs(tmp_path: Path) -> None:
    for job in ("a/b", "a_b", "a", "a.1", "a.1"):
        run_job(tmp_path, job=job)
    records = read_records(tmp_path)
    assert {row["job"]: row["attempt"] for row in records} == {"a/b": 1, "a_b": 1, "a": 1, "a.1": 2}


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"version": 2}', '{"version": 1, "state": "DONE"}', "cut off", '{"version": 1, "cpu_s": NaN}'],
)
def test_a_corrupt_record_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rule" / "job.1.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(RecordError, match=r"job\.1\.json"):
        read_records(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("restart", "1"),
        ("attacks", ["genetic"]),
        ("attacks", {"genetic": "long"}),
        ("gpu_energy_j", "many"),
        ("started", "yesterday"),
    ],
)
def test_a_key_of_the_wrong_type_is_named(tmp_path: Path, key: str, value: object) -> None:
    run_job(tmp_path)
    path = next(tmp_path.glob("*/*.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(RecordError, match=f"{path.name}.*'{key}'"):
        read_records(tmp_path)


@pytest.mark.parametrize("key", ["pid", "started", "elapsed_s", "device_minutes"])
def test_a_record_without_a_key_is_corrupt(tmp_path: Path, key: str) -> None:
    run_job(tmp_path)
    path = next(tmp_path.glob("*/*.json"))
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(RecordError, match=f"{path.name}.*'{key}'"):
        read_records(tmp_path)


def test_no_records_make_empty_tables(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none") == build_ledger(read_records(tmp_path)) == []
    assert column(cost_summary([], 1.0), "stage") == ["total"]
    assert cost_groups([], 1.0) == waste_table([]) == []


def test_a_record_names_the_slurm_job_that_it_was_written_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    run_job(tmp_path, "outside")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURM_JOB_NAME", "train-ab")
    monkeypatch.setenv("SLURM_JOB_PARTITION", "gpu")
    run_job(tmp_path, "single")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    run_job(tmp_path, "task")
    found = {
        row["job"]: [row[key] for key in ("job_id", "job_name", "restart", "partition")]
        for row in read_records(tmp_path)
    }
    assert found == {
        "outside": [None] * 4,
        "single": ["17", "train-ab", 0, "gpu"],
        "task": ["12_3", "train-ab", 2, "gpu"],
    }


def test_a_record_tells_victim_and_attacks_and_their_minutes(tmp_path: Path) -> None:
    wildcards, attacks = {"victim": "copy_free", "seed": "0"}, ["genetic", "random"]
    with measured(tmp_path, "search", "search_placements", "copy_free.0", CPU, None, wildcards, attacks) as meter:
        assert read_records(tmp_path)[0]["attacks"] == {"genetic": None, "random": None}
        meter.attacks.update(genetic=3.0, random=1.0)
    (row,) = build_ledger(read_records(tmp_path))
    assert (row["victim"], row["attack"]) == ("copy_free", "genetic=0.75;random=0.25")


def test_every_rule_has_the_stage_that_its_script_records() -> None:
    """Also those whose jobs die before they can say so."""
    for path in (ROOT / "rules").glob("*.smk"):
        for block in path.read_text().split("\nrule ")[1:]:
            rule, script = block.partition(":")[0], block.partition("workflow/scripts/")[2].partition('"')[0]
            text = (ROOT / "workflow" / "scripts" / script).read_text()
            stage = text.partition('_job(snakemake, "')[2].partition('"')[0]
            assert rule in RULES, f"{rule}: not in cost/stages.py"
            assert RULES[rule].stage == stage, rule
            log = block.partition("log:")[2].partition("benchmark:")[0]  # named by the wildcards
            assert RULES[rule].of_victim == ("{{victim}}" in log), rule


def test_the_summary_knows_stages_waste_and_retraining() -> None:
    retraining = retraining_minutes(made_up.victim_table())
    assert retraining == pytest.approx(0.64)
    rows = cost_summary(made_up.costs(), retraining)
    assert set(rows[0]) == set(COLUMNS["cost_summary"])
    assert column(rows, "stage") == ["victim", "blocks", "prune", "shuffle", "theory", "total"]
    victim = rows[0]
    assert (victim["jobs"], victim["attempts"]) == (10, 12)
    assert victim["device_minutes"] == pytest.approx(2 * sum(45 + s for s in range(5)) / 60)
    assert victim["over_retraining"] == pytest.approx(victim["device_minutes"] / 0.64)
    assert victim["overhead_minutes"] == pytest.approx(10 * 4 / 60)
    assert victim["wasted_minutes"] == pytest.approx(49 / 60)
    assert {row["queue_minutes"] for row in rows} == {row["gpu_minutes"] for row in rows} == {None}
    assert {row["over_retraining"] for row in cost_summary(made_up.costs(), float("nan"))} == {None}


def test_useful_startup_and_wasted_minutes_make_up_what_elapsed() -> None:
    costs = [row for row in made_up.costs() if row["elapsed_s"] is not None]
    total = cost_summary(costs, 1.0)[-1]
    parts = (total["device_minutes"], total["overhead_minutes"], total["wasted_minutes"])
    assert sum(parts) == pytest.approx(total["elapsed_minutes"])


def test_retraining_is_of_the_victim_alone() -> None:
    victims = made_up.victim_table()
    assert retraining_minutes(victims[victims["victim"] != "victim"]) != retraining_minutes(victims)
    assert pd.isna(retraining_minutes(victims.assign(device_minutes=float("nan"))))


@given(st.dictionaries(st.sampled_from(["a", "b_c", NONE, UNKNOWN]), st.none() | st.floats(0, 1e6), min_size=1))
def test_shares_are_read_as_they_were_written(minutes: dict[str, float | None]) -> None:
    found = shares(shares_text(minutes))
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)
    known = [one for one in minutes.values() if one is not None]
    if len(known) == len(minutes) and sum(known):
        assert found == pytest.approx({name: (one or 0) / sum(known) for name, one in minutes.items()}, abs=1e-5)
    elif len(minutes) > 1:
        assert list(found) == ["+".join(sorted(minutes))]


def gpu_row(held: float | None, partition: str = "gpu", **more: Any) -> dict[str, Any]:
    """An attempt that held one GPU for so many minutes."""
    elapsed = None if held is None else 60 * held
    record = made_up.record("search", "search_placements", "victim.0", 30.0, gpus=1, device=GPU)
    (row,) = build_ledger([record | {"elapsed_s": elapsed, "cpu_s": 3600.0, "partition": partition} | more])
    return row


ASSUMED = CostConfig(gpu_watts=600, cpu_watts_per_core=10, pue=1.5, grid_gco2_per_kwh=400, prices={"gpu": 3})


def test_energy_and_co2_follow_from_what_is_assumed() -> None:
    (row,) = reckon([gpu_row(60.0)], ASSUMED)
    assert row["energy_kwh"] == pytest.approx(1.5 * (0.6 + 0.01)) and row["energy_source"] == "assumed"
    assert row["co2_g"] == pytest.approx(400 * row["energy_kwh"]) and row["price"] == 3


def test_measured_energy_goes_before_assumption() -> None:
    whole = gpu_row(60.0, gpu_energy_j=3.6e6, gpu_measured_s=3600.0)
    (row,) = reckon([whole], ASSUMED)
    assert (row["energy_kwh"], row["energy_source"]) == (pytest.approx(1.5 * 1.01), "nvml+assumed")
    (row,) = reckon([whole], CostConfig(cpu_watts_per_core=0))
    assert (row["energy_kwh"], row["energy_source"]) == (pytest.approx(1.0), "nvml")
    half = gpu_row(60.0, gpu_energy_j=3.6e6, gpu_measured_s=1800.0)
    (row,) = reckon([half], ASSUMED)
    assert row["energy_kwh"] == pytest.approx(1.5 * (1 + 0.3 + 0.01))
    (row,) = reckon([half], CostConfig(cpu_watts_per_core=0))
    assert row["energy_kwh"] is None  # nobody has said what the other half drew


def test_what_is_not_assumed_stays_unknown() -> None:
    (row,) = reckon([gpu_row(60.0)], CostConfig())
    assert [row[name] for name in ("energy_kwh", "energy_source", "co2_g", "price")] == [None] * 4
    assert reckon([gpu_row(60.0)], CostConfig(cpu_watts_per_core=5))[0]["energy_kwh"] is None
    assert reckon([gpu_row(None)], ASSUMED)[0]["price"] is None
    costs = reckon([gpu_row(60.0), gpu_row(None)], ASSUMED)
    total = cost_summary(costs, 1.0)[-1]
    assert total["energy_kwh"] is None and total["price"] is None and total["allocated_gpu_minutes"] == 60
    told = " ".join(sentences(costs, total, waste_table(costs), ASSUMED))
    assert "At least (1 of 2 attempts are unknown) 60 GPU-minutes" in told


def test_a_partition_without_a_price_makes_the_money_unknown_and_is_named() -> None:
    costs = reckon([gpu_row(60.0), gpu_row(30.0, "big")], ASSUMED)
    assert column(costs, "price") == [3, None]
    total = cost_summary(costs, 1.0)[-1]
    assert total["price"] is None
    assert price_warnings(costs, ASSUMED) == [
        "cost.prices: partition big held GPUs and has no price: what ran there has an unknown one"
    ]
    told = " ".join(sentences(costs, total, waste_table(costs), ASSUMED))
    assert "unknown; 3 EUR without 1 attempts" in told and told.startswith("90 GPU-minutes were allocated, by the jobs")
    typo = CostConfig(prices={"gpu": 3, "big": 5, "gqu": 4})
    assert price_warnings(costs, typo) == ["cost.prices.gqu: no attempt ran on such a partition (seen: big, gpu)"]


def test_what_held_no_gpu_costs_nothing_even_where_no_price_is_known() -> None:
    costs = made_up.costs(assumed=ASSUMED)
    assert {row["price"] for row in costs} == {0.0}
    assert price_warnings(costs, ASSUMED) == ["cost.prices.gpu: no attempt ran on such a partition (seen: local)"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"prices": {"gpu": -1}}, r"x\.yaml: cost\.prices\.gpu: .*greater than or equal to 0, got -1"),
        ({"prices": {"gpu": "three"}}, r"x\.yaml: cost\.prices\.gpu: .*number, got 'three'"),
        ({"prices": {"gpu": float("nan")}}, r"x\.yaml: cost\.prices\.gpu: .*finite"),
        ({"gpu_watts": -700}, r"x\.yaml: cost\.gpu_watts: .*got -700"),
        ({"pue": 0.9}, r"x\.yaml: cost\.pue: .*greater than or equal to 1, got 0\.9"),
        ({"watts": 3}, r"x\.yaml: cost\.watts: unknown key"),
    ],
)
def test_bad_assumptions_are_refused_by_key_and_value(section: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_study({"study": "a", "cost": section}, "x.yaml")


SPANS = st.floats(0.01, 1e5)


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = []
    for number in range(draw(st.integers(1, 6))):
        stage = draw(st.sampled_from(["victim", "prune", "shuffle", "stream"]))
        for attempt in range(1, draw(st.integers(1, 4)) + 1):
            state = draw(st.sampled_from(["COMPLETED", "FAILED", "LOST"]))
            spans = dict.fromkeys(("elapsed_s", "cpu_s", "device_minutes"), None if state == "LOST" else draw(SPANS))
            device, gpus = draw(st.sampled_from([(CPU, 0), (GPU, 1)]))
            attacks = draw(st.sampled_from([None, {}, {"a": 1.0}, {"a": 1.0, "b": 2.5}, {"a": None, "b": None}]))
            more = {"state": state, "device": device, "gpus": gpus, "attacks": attacks, **spans}
            rows.append(made_up.record(stage, f"do_{stage}", str(number), 9.0, attempt, **more))
    return rows


@settings(deadline=None, max_examples=50)
@given(histories(), st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_order_and_no_attempt_is_lost_or_doubled(
    records: list[dict[str, Any]], random: Any
) -> None:
    costs = made_up.costs(records, ASSUMED)
    shuffled = list(records)
    random.shuffle(shuffled)
    again = made_up.costs(shuffled, ASSUMED)
    assert costs == again
    random.shuffle(again)
    for table in (lambda rows: cost_summary(rows, 2.0), lambda rows: cost_groups(rows, 2.0), waste_table):
        assert table(costs) == table(again)
    assert len({row["attempt_name"] for row in costs}) == len(costs) == len(records)
    for by in ("stage", "rule", "attack", "victim"):
        groups, total = [sums for _, sums in group_sums(costs, by, 2.0)], cost_summary(costs, 2.0)[-1]
        if by in ("stage", "rule"):
            assert total["attempts"] == sum(column(groups, "attempts")) == len(records)
        for name in ("allocated_gpu_minutes", "cpu_minutes", "device_minutes", "gpu_minutes", "wasted_minutes"):
            known = [value for value in column(groups, name) if value is not None]
            assert (not known and total[name] is None) or sum(known) == pytest.approx(total[name])
