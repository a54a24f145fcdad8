"""The journal joined with sacct: every attempt once, whatever SLURM says, forgets, or uses again."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scatterproof.cost.allocations import AllocationsError, allocations, read_tasks
from scatterproof.cost.sacct import parse_sacct
from snakemake_executor_plugin_submitit.journal import Journal

GPU = "billing=1,cpu=2,gres/gpu=1,mem=1500M,node=1"


def line(job: str, name: str, state: str = "COMPLETED", elapsed: int = 60, tres: str = GPU, start: int = 1010) -> str:
    return f"{job}|{state}|gpu|gpu1|{tres}|1000|{start}|{start + elapsed}|{elapsed}|00:30.500|{name}\n"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A submission of two tasks, with one GPU each, and one that was rejected."""
    path = tmp_path / "journal.sqlite"
    book = Journal(path)
    columns = {"rule": "search", "attempt": 1, "cluster": "slurm", "request": '{"gpus": 1, "minutes": 10}'}
    cell: dict[str, Any] = {
        "cell": 0,
        "key": "",
        "signature": "",
        "rule": "search",
        "outputs": [],
        "attempt": 1,
        "log": "",
    }
    cells = [cell | {"task": task, "name": f"s{task}"} for task in range(2)]
    book.intend(columns | {"name": "search-a", "folder": "/a"}, cells)
    book.submitted("search-a", "12", {0: "12_0", 1: "12_1"})
    (rejected,) = book.intend(columns | {"name": "search-b", "folder": "/b"}, cells[:1])
    book.change([{"id": rejected, "state": "REJECTED", "settled": 1}])
    book.close()
    return path


def test_every_attempt_is_a_row_and_requeued_ones_are_wasted(journal: Path) -> None:
    text = line("12_0", "search-a", "PREEMPTED", 40) + line("12_0", "search-a", "COMPLETED", 80, start=1100)
    found = allocations(read_tasks(journal), parse_sacct(text + line("12_1", "search-a", "CANCELLED by 0", 20)))
    assert found[["job", "attempt", "state", "elapsed_s", "wasted"]].to_numpy().tolist() == [
        ["s0", 1, "PREEMPTED", 40, True],
        ["s0", 2, "COMPLETED", 80, False],
        ["s1", 1, "CANCELLED", 20, True],
    ]
    assert found["allocated_gpu_minutes"].sum() == pytest.approx(140 / 60)
    assert set(found["source"]) == {"sacct"}
    assert found["queue_s"].tolist() == [10, 100, 10]
    assert found["cpu_minutes"].tolist() == pytest.approx([30.5 / 60] * 3)


def test_an_id_used_again_by_another_job_is_not_counted(journal: Path) -> None:
    text = line("12_0", "search-a") + line("12_0", "stranger", elapsed=9999) + line("12_1", "search-a")
    assert allocations(read_tasks(journal), parse_sacct(text))["elapsed_s"].tolist() == [60, 60]


def test_without_gpus_in_accounting_the_request_stands_in_and_says_so(journal: Path) -> None:
    text = line("12_0", "search-a", tres="billing=1,cpu=2,mem=1500M") + line("12_1", "search-a")
    found = allocations(read_tasks(journal), parse_sacct(text))
    assert found["source"].tolist() == ["requested", "sacct"]
    assert found["allocated_gpu_minutes"].tolist() == [1, 1]


def test_without_sacct_the_tasks_own_clock_stands_in(journal: Path) -> None:
    book = Journal(journal)
    (number, _) = [cell["id"] for cell in book.open_cells()]
    book.change([{"id": number, "state": "COMPLETED", "task_started": 100.0, "ended": 190.0}])
    book.close()
    found = allocations(read_tasks(journal), None)
    assert found["source"].tolist() == ["measured", "measured"]
    assert found["allocated_gpu_minutes"].tolist() == [1.5, 0]
    assert np.isnan(found["elapsed_s"].iloc[1])
    assert found["state"].tolist() == ["COMPLETED", "PENDING"]
    assert not found["wasted"].any()


def test_memory_and_cpu_time_are_read_in_all_their_forms() -> None:
    text = "".join(
        f"{n}|COMPLETED|p|n|cpu=1,mem={memory},node=1|1000|1001|1002|1|{cpu}|name|with|bars\n"
        for n, (memory, cpu) in enumerate(
            [("2G", "00:01"), ("512M", "01:00:00"), ("1.5T", "1-00:00:00"), ("", "INVALID")]
        )
    )
    found = parse_sacct(text + "garbage\n\n13_[4-9]|PENDING|p|n||1|Unknown|Unknown|0|00:00|name\n")
    assert found["mem_mb"].tolist()[:3] == [2048, 512, 1.5 * 1024**2]
    assert found["cpu_s"].tolist()[:3] == [1, 3600, 86400]
    assert found[["mem_mb", "cpu_s"]].iloc[3].isna().all()
    assert set(found["name"]) == {"name|with|bars"}


def test_a_journal_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with pytest.raises(AllocationsError, match=r"journal\.sqlite"):
        read_tasks(path)
    path.write_text("nothing of the kind" * 100)
    with pytest.raises(AllocationsError, match="left as it is"):
        read_tasks(path)
    assert path.read_text() == "nothing of the kind" * 100


attempts = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT"]), st.integers(0, 500)),
    max_size=12,
    unique_by=lambda one: (one[0], one[2]),
)


@given(attempts, st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_order_or_repetition(histories: list[tuple[int, str, int]], random: Any) -> None:
    tasks = pd.DataFrame(
        {
            "name": "a", "task": [0, 1], "job_id": ["1_0", "1_1"], "rule": "r", "cell": ["x", "y"], "cells": 1,
            "state": "RUNNING", "node": "", "submitted": 1.0, "task_started": np.nan, "ended": np.nan,
            "asked_gpus": 1.0,
        }
    )  # fmt: skip
    lines = [line(f"1_{task}", "a", state, elapsed, start=1010 + elapsed) for task, state, elapsed in histories]
    shuffled = lines + lines[: len(lines) // 2]
    random.shuffle(shuffled)
    once, again = (allocations(tasks, parse_sacct("".join(some))) for some in (lines, shuffled))
    expected = sum(elapsed for _, _, elapsed in histories)
    for found in (once, again):
        assert found["elapsed_s"].sum() == expected
        assert found.loc[found["source"] == "sacct", "elapsed_s"].count() == len(histories)
    wasted = sum(elapsed for _, state, elapsed in histories if state != "COMPLETED")
    assert once.loc[once["wasted"], "elapsed_s"].sum() == wasted
