"""What a task does with signals, requeues and copies of itself; no cluster is needed to see it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit.fencing import Start, fence, grant, last_start, revoke, run_file, seconds_held
from snakemake_executor_plugin_submitit.shared_files import read_json, write_json
from snakemake_executor_plugin_submitit.task_file import NAME, read_task, write_tasks

# A program that counts: on SIGUSR2 or SIGTERM it saves where it is and ends, and it goes on from there.
COUNTING = """
import pathlib, signal, sys, time
state, out = pathlib.Path("state"), pathlib.Path("out")
asked = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, lambda *_: asked.append(1))
count = int(state.read_text()) if state.exists() else 0
with out.open("a") as file:
    while count < int(sys.argv[1]):
        count += 1
        print(count, file=file, flush=True)
        state.write_text(str(count))
        time.sleep(0.1)
        if asked:
            sys.exit(75)
"""


def write_task(folder: Path, *programs: list[str], **settings: Any) -> None:
    cells = [
        {"name": f"c{n}", "log": str(folder / f"c{n}.log"), "env": {}, "argv": argv} for n, argv in enumerate(programs)
    ]
    (folder / NAME).unlink(missing_ok=True)
    write_tasks(folder, [{"cells": cells} | settings])


def start(folder: Path, **env: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "snakemake_executor_plugin_submitit.task", str(folder), "0"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment |= {"SUBMITIT_LOCAL_JOB_ID": "7"} | env
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def counting(folder: Path, until: int = 30) -> list[str]:
    (folder / "counting.py").write_text(COUNTING)
    return [sys.executable, "counting.py", str(until)]


def counted(folder: Path) -> list[int]:
    path = folder / "out"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_the_log_is_written_while_the_program_runs(tmp_path: Path) -> None:
    write_task(tmp_path, ["bash", "-c", "echo early; sleep 2; echo late"])
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "c0.log").exists() and "early" in (tmp_path / "c0.log").read_text())
    assert process.poll() is None
    assert process.wait(10) == 0
    assert (tmp_path / "c0.log").read_text().splitlines()[1:] == ["early", "late"]
    assert read_json(tmp_path / "0.0.json")["exit"] == 0


def test_a_program_that_saves_on_usr2_is_requeued_and_goes_on(tmp_path: Path) -> None:
    write_task(tmp_path, counting(tmp_path))
    process = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 5)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(10) == 144
    assert not (tmp_path / "0.0.json").exists()
    assert start(tmp_path).wait(20) == 0
    assert counted(tmp_path) == list(range(1, 31))
    assert read_json(tmp_path / "0.0.json")["start"] == 2


def test_a_program_without_a_handler_survives_usr2(tmp_path: Path) -> None:
    write_task(tmp_path, ["bash", "-c", "sleep 3; echo done"], signal_delay_s=4)
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "c0.log").exists())
    time.sleep(0.5)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(10) == 0
    assert (tmp_path / "c0.log").read_text().endswith("done\n")
    assert read_json(tmp_path / "0.0.json")["exit"] == 0


@pytest.mark.parametrize(
    ("settings", "said"), [({"requeue": False}, "switched off"), ({"max_requeues": 0}, "after 0 requeues")]
)
def test_requeueing_has_an_end(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    write_task(tmp_path, counting(tmp_path), **settings)
    process = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 2)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(10) == 1
    assert said in read_json(tmp_path / "0.0.json")["interrupted"]


def test_a_terminated_task_leaves_no_result(tmp_path: Path) -> None:
    """SLURM knows whether it was cancelled or will be started again; a failure on file would end it for good."""
    write_task(tmp_path, counting(tmp_path))
    process = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    assert not (tmp_path / "0.0.json").exists()


def test_a_failing_cell_does_not_keep_the_next_from_running(tmp_path: Path) -> None:
    write_task(tmp_path, ["false"], ["echo", "hello"])
    assert start(tmp_path).wait(20) == 1
    assert [read_json(tmp_path / f"0.{n}.json")["exit"] for n in (0, 1)] == [1, 0]


def test_a_program_that_cannot_be_started_is_a_failure(tmp_path: Path) -> None:
    write_task(tmp_path, ["/does/not/exist"])
    assert start(tmp_path).wait(20) == 1
    assert "FileNotFoundError" in (tmp_path / "c0.log").read_text()


def test_a_revoked_task_never_runs(tmp_path: Path) -> None:
    write_task(tmp_path, ["touch", "ran"])
    assert revoke(tmp_path, 0, "its controller was killed")
    assert start(tmp_path).wait(20) == 75
    assert not (tmp_path / "ran").exists()


def test_a_started_task_cannot_be_revoked(tmp_path: Path) -> None:
    write_task(tmp_path, ["true"])
    assert start(tmp_path).wait(20) == 0
    assert not revoke(tmp_path, 0, "too late")


def test_two_jobs_for_one_task_are_one_too_many(tmp_path: Path) -> None:
    write_task(tmp_path, ["bash", "-c", "echo x >> ran; sleep 2"])
    first, second = start(tmp_path), start(tmp_path, SUBMITIT_LOCAL_JOB_ID="8")
    assert sorted([first.wait(20), second.wait(20)]) == [0, 75]
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_copy_left_running_makes_way_for_the_newer_start(tmp_path: Path) -> None:
    """As where a node is cut off with its processes alive, and SLURM starts the same job elsewhere."""
    write_task(tmp_path, counting(tmp_path, until=80))
    old = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 2)
    new = start(tmp_path)
    assert old.wait(20) == 75
    assert new.wait(20) == 0
    assert counted(tmp_path) == list(range(1, 81))


def test_a_start_that_fell_silent_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {"job_id": "7", "node": "another", "pid": 1, "created": 0.0}
    run_file(tmp_path, 0, 1).write_text(json.dumps(elsewhere))
    os.utime(run_file(tmp_path, 0, 1), (time.time() - 60, time.time() - 60))
    one = Start(tmp_path, 0, "7")
    assert one.take()
    assert last_start(tmp_path, 0)[0] == 2
    assert not one.superseded()


def test_a_start_is_counted_from_its_allocation_on_its_prolog_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(int(time.time()) - 100))
    one = Start(tmp_path, 0, "7")
    assert one.take()
    one.end()
    assert 100 <= seconds_held(tmp_path, 0)[0] < 120


def test_the_time_limit_of_this_machine_starts_with_the_first_cell(tmp_path: Path) -> None:
    write_task(tmp_path, ["sleep", "60"], limit_s=2, signal_delay_s=1)
    assert start(tmp_path).wait(20) == 1
    assert read_json(tmp_path / "0.0.json")["interrupted"] == "TIMEOUT"


def test_a_program_that_saves_at_the_time_limit_goes_on(tmp_path: Path) -> None:
    write_task(tmp_path, counting(tmp_path), limit_s=3, signal_delay_s=1)
    assert start(tmp_path).wait(20) == 144
    assert start(tmp_path).wait(20) == 0
    assert counted(tmp_path) == list(range(1, 31))


def test_a_fenced_task_makes_way_and_starts_no_more(tmp_path: Path) -> None:
    write_task(tmp_path, counting(tmp_path, until=200))
    running = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 2)
    fence(tmp_path, 0, "given up")
    assert running.wait(20) == 75
    reached = counted(tmp_path)
    assert start(tmp_path).wait(20) == 75
    assert counted(tmp_path) == reached


def test_what_has_succeeded_is_not_run_again(tmp_path: Path) -> None:
    write_task(tmp_path, ["bash", "-c", "echo x >> a"], ["bash", "-c", "echo x >> b; test -e mended"])
    assert start(tmp_path).wait(20) == 1
    (tmp_path / "mended").touch()
    assert start(tmp_path).wait(20) == 0
    assert (tmp_path / "a").read_text() == "x\n"
    assert (tmp_path / "b").read_text() == "x\nx\n"


def capped(folder: Path, limit_s: float, earlier_s: float = 0.0) -> None:
    """A counting task under a budget that a first start has held its GPUs in for so long."""
    write_task(folder, counting(folder, 300), gpus=1, limit_s=limit_s, capped=True, signal_delay_s=4, gpu_names=["7"])
    if earlier_s:
        now = time.time()
        run_file(folder, 0, 1).write_text(json.dumps({"job_id": "7", "created": now - earlier_s, "waits": True}))
        for name, moment in {"0.run1.holds": now - earlier_s, "0.run1.ended": now}.items():
            (folder / name).touch()
            os.utime(folder / name, (moment, moment))


def test_under_a_budget_starts_share_the_limit_and_end_by_themselves(tmp_path: Path) -> None:
    capped(tmp_path, limit_s=30, earlier_s=24)
    process = start(tmp_path)
    assert process.wait(15) == 1
    assert read_json(tmp_path / "0.0.json")["interrupted"].startswith("BUDGET, ")
    assert len(counted(tmp_path)) > 5, "it ran for what was left, and saved"


def test_a_start_for_which_nothing_is_left_does_not_begin(tmp_path: Path) -> None:
    capped(tmp_path, limit_s=30, earlier_s=29)
    assert start(tmp_path).wait(10) == 1
    assert read_json(tmp_path / "0.0.json")["interrupted"].startswith("BUDGET, ")
    assert not counted(tmp_path)


def test_a_start_for_which_no_cell_is_left_keeps_their_results(tmp_path: Path) -> None:
    """As where the node fails between the last result and the end of the job."""
    capped(tmp_path, limit_s=30, earlier_s=29)
    write_json(tmp_path / "0.0.json", {"exit": 0})
    assert start(tmp_path).wait(10) == 0
    assert read_json(tmp_path / "0.0.json") == {"exit": 0}


def test_a_start_that_was_granted_the_limit_has_it_again(tmp_path: Path) -> None:
    capped(tmp_path, limit_s=30, earlier_s=29)
    grant(tmp_path, 0, 2)
    process = start(tmp_path)
    wait_for(lambda: len(counted(tmp_path)) >= 5)
    process.send_signal(signal.SIGUSR2)
    assert process.wait(10) == 144, "what is left is enough for another start"
    assert not (tmp_path / "0.0.json").exists()


def test_a_task_reads_its_own_line_of_a_submission_that_is_written_once(tmp_path: Path) -> None:
    tasks = [{"cells": [{"name": "é" * number}], "gpus": number} for number in range(5)]
    write_tasks(tmp_path, tasks)
    write_tasks(tmp_path, [{"cells": []}])  # tried again
    assert [read_task(tmp_path, number) for number in range(5)] == tasks
    with pytest.raises(IndexError):
        read_task(tmp_path, 5)


SAVING = "trap 'echo saved >> saved; exit 1' USR2; [ ! -e saved ] || exit 0; touch ready; while sleep 0.1; do :; done"


@pytest.mark.parametrize(
    "shell",
    [
        SAVING,
        f"trap 'touch cleaned' EXIT; {SAVING}",
        f"trap 'touch cleaned' EXIT; {SAVING.replace('USR2', '15 12')}",
        "bash saving.sh",
        "(trap 'exit 3' TERM; bash saving.sh) & wait $!",
    ],
)
def test_a_trap_of_a_rules_shell_fires(tmp_path: Path, shell: str) -> None:
    """bash can't trap a signal that was ignored when it started."""
    (tmp_path / "saving.sh").write_text(SAVING)
    write_task(tmp_path, ["bash", "-c", f"set -euo pipefail; {shell}"])
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "ready").exists())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 144
    assert start(tmp_path).wait(20) == 0
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_who_begins_to_listen_only_after_usr2_came_gets_it_then(tmp_path: Path) -> None:
    """SLURM may send it a minute early."""
    write_task(tmp_path, ["bash", "-c", f"touch early; sleep 2; {SAVING}"], signal_delay_s=20)
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "early").exists())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 144
    assert (tmp_path / "saved").read_text() == "saved\n"


def test_a_failure_of_a_program_that_never_listened_is_its_own(tmp_path: Path) -> None:
    write_task(tmp_path, ["bash", "-c", "touch early; sleep 2; exit 3"], signal_delay_s=20)
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "early").exists())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 3
    assert read_json(tmp_path / "0.0.json")["exit"] == 3


@pytest.mark.parametrize(
    "shell",
    [
        "trap 'touch cleaned' EXIT; touch ready; sleep 3; echo done",
        "trap 'sleep 0.12; : 12' EXIT; touch ready; sleep 3; : 120 12; echo done",
        "touch ready; (sleep 3; echo done) | cat",
        f"{sys.executable} -c 'import time, pathlib; pathlib.Path(\"ready\").touch(); time.sleep(3)'; echo done",
    ],
)
def test_what_does_not_listen_for_usr2_never_notices_it(tmp_path: Path, shell: str) -> None:
    write_task(tmp_path, ["bash", "-c", f"set -euo pipefail; {shell}"], signal_delay_s=6)
    process = start(tmp_path)
    wait_for(lambda: (tmp_path / "ready").exists())
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == 0
    assert (tmp_path / "c0.log").read_text().endswith("done\n")
