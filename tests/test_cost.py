"""The job's own record, and the ledger made of such records."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from report_tables import records_table, victim_table
from scatterproof.cost.ledger import (
    COST_COLUMNS,
    SUMMARY_COLUMNS,
    LedgerError,
    cost_summary,
    cost_table,
    read_records,
    retraining_minutes,
)
from scatterproof.cost.measure import measured

CPU, GPU = "cpu: AMD EPYC 9654", "cuda: NVIDIA H200"


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
    costs = cost_table(read_records(tmp_path))
    assert list(costs.columns) == COST_COLUMNS
    assert costs.loc[costs["wasted"], "state"].tolist() == ["FAILED"]
    failed = costs[costs["wasted"]].iloc[0]
    assert failed["allocated_gpu_minutes"] == pytest.approx(failed["elapsed_s"] / 60)
    assert costs["queue_s"].isna().all() and set(costs["source"]) == {"measured"}


def test_a_killed_attempt_is_lost_and_the_next_one_counts(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib\n"
        "from scatterproof.cost.measure import measured\n"
        f"with measured(pathlib.Path(sys.argv[1]), 'victim', 'do_victim', 'victim/seed0', '{GPU}'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert cost_table(read_records(tmp_path))["state"].tolist() == ["LOST"]
    run_job(tmp_path)
    costs = cost_table(read_records(tmp_path))
    assert costs["state"].tolist() == ["LOST", "COMPLETED"] and costs["attempt"].tolist() == [1, 2]
    assert costs["wasted"].tolist() == [True, False]
    assert np.isnan(costs["elapsed_s"][0]) and np.isnan(costs["allocated_gpu_minutes"][0])


def test_a_job_that_is_running_is_not_lost(tmp_path: Path) -> None:
    with measured(tmp_path, "victim", "train_victim", "a", CPU):
        assert read_records(tmp_path)["state"].tolist() == ["RUNNING"]
        costs = cost_table(read_records(tmp_path))
    assert not costs["wasted"].any() and costs["elapsed_s"].isna().all()


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
    assert read_records(tmp_path)["state"].tolist() == [state]


def test_names_that_look_alike_are_different_jobs(tmp_path: Path) -> None:
    for job in ("a/b", "a_b", "a", "a.1", "a.1"):
        run_job(tmp_path, job=job)
    records = read_records(tmp_path)
    assert dict(zip(records["job"], records["attempt"], strict=True)) == {"a/b": 1, "a_b": 1, "a": 1, "a.1": 2}


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1, "state": "DONE"}', "cut off"])
def test_a_corrupt_record_is_named_and_kept(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rule" / "job.1.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(LedgerError, match=r"job\.1\.json"):
        read_records(tmp_path)
    assert path.read_text() == text


@pytest.mark.parametrize("key", ["pid", "started", "elapsed_s", "device_minutes"])
def test_a_record_without_a_key_is_corrupt(tmp_path: Path, key: str) -> None:
    run_job(tmp_path)
    path = next(tmp_path.glob("*/*.json"))
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}))
    with pytest.raises(LedgerError, match=f"{path.name}.*'{key}'"):
        read_records(tmp_path)


def test_no_records_make_empty_tables(tmp_path: Path) -> None:
    costs = cost_table(read_records(tmp_path))
    assert list(costs.columns) == COST_COLUMNS and costs.empty
    assert cost_summary(costs, 1.0)["stage"].tolist() == ["total"]


def test_the_summary_knows_stages_waste_and_retraining() -> None:
    retraining = retraining_minutes(victim_table())
    assert retraining == pytest.approx(0.64)
    summary = cost_summary(cost_table(records_table()), retraining).set_index("stage")
    assert ["stage", *summary.columns] == SUMMARY_COLUMNS
    assert summary.index.tolist() == ["victim", "blocks", "prune", "shuffle", "theory", "total"]
    victim = summary.loc["victim"]
    assert (victim["jobs"], victim["attempts"]) == (10, 12)
    assert victim["device_minutes"] == pytest.approx(2 * sum(45 + s for s in range(5)) / 60)
    assert victim["over_retraining"] == pytest.approx(victim["device_minutes"] / 0.64)
    assert victim["overhead_minutes"] == pytest.approx(10 * 4 / 60)
    assert summary["queue_minutes"].isna().all() and summary["gpu_minutes"].isna().all()
    assert cost_summary(cost_table(records_table()), float("nan"))["over_retraining"].isna().all()


SPANS = st.floats(0.01, 1e5)


@st.composite
def histories(draw: st.DrawFn) -> pd.DataFrame:
    template = records_table().iloc[-1].to_dict()
    rows = []
    for number in range(draw(st.integers(1, 6))):
        stage = draw(st.sampled_from(["victim", "prune", "shuffle", "defence"]))
        for attempt in range(1, draw(st.integers(1, 4)) + 1):
            state = draw(st.sampled_from(["COMPLETED", "FAILED", "LOST"]))
            spans = dict.fromkeys(
                ("elapsed_s", "cpu_s", "device_minutes"), float("nan") if state == "LOST" else draw(SPANS)
            )
            device, gpus = draw(st.sampled_from([(CPU, 0), (GPU, 1)]))
            row = {"stage": stage, "rule": f"do_{stage}", "job": str(number), "attempt": attempt, "state": state}
            rows.append(template | row | spans | {"device": device, "gpus": gpus})
    return pd.DataFrame(rows)


@settings(deadline=None, max_examples=50)
@given(histories(), st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_order_and_no_attempt_is_lost_or_doubled(
    records: pd.DataFrame, random: "np.random.Generator"
) -> None:
    order = list(range(len(records)))
    random.shuffle(order)
    costs, shuffled = cost_table(records), cost_table(records.iloc[order])
    pd.testing.assert_frame_equal(costs, shuffled)
    summary = cost_summary(costs, 2.0)
    pd.testing.assert_frame_equal(summary, cost_summary(shuffled.iloc[order], 2.0))
    assert costs["attempt_name"].is_unique and len(costs) == len(records)
    stages, total = summary.iloc[:-1], summary.iloc[-1]
    assert total["attempts"] == stages["attempts"].sum() == len(records)
    assert total["jobs"] == stages["jobs"].sum()
    for column in ("allocated_gpu_minutes", "cpu_minutes", "device_minutes", "gpu_minutes"):
        assert np.isclose(stages[column].sum(), total[column]) or np.isnan(total[column])
