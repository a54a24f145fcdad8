"""Tasks of this machine as forks of one process: as right as those that are started, and sooner at work."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.fencing import fence
from snakemake_executor_plugin_submitit.forks import LOG, ForkError, Forks
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.shared_files import read_json
from test_submitit_local import CELLS, run, sleeping, start, wait_for
from test_submitit_task import counted, counting, write_task

FORKED = "--submitit-fork-server"
SCRIPT = CELLS.replace('shell: "SHELL"', 'benchmark: "out/{i}.tsv"\n    threads: 2\n    script: "cell.py"')
THREADED = """
import os, sys, threading
import torch
from torch.utils.data import DataLoader, TensorDataset

assert torch.get_num_threads() == 2 == int(os.environ["OMP_NUM_THREADS"]), torch.get_num_threads()
torch.manual_seed(int(snakemake.wildcards.i))
matrix = torch.randn(700, 700, dtype=torch.float64)
product = matrix @ matrix.T
assert len(os.listdir("/proc/self/task")) > threading.active_count(), "no second thread has multiplied"
assert torch.allclose(product, (matrix[:, None, :8] @ matrix.T[:8]).squeeze(1) + matrix[:, 8:] @ matrix.T[8:])
model = torch.nn.Linear(700, 1, dtype=torch.float64)
optimizer = torch.optim.AdamW(model.parameters(), 0.01)
losses = []
for _ in range(2):
    for rows, in DataLoader(TensorDataset(product / 700), batch_size=100, num_workers=1):
        optimizer.zero_grad()
        loss = model(rows).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
assert losses[-1] < losses[0]
open(snakemake.output[0], "w").write(repr(losses))
"""


def wait_for_end(number: int, seconds: float = 60) -> None:
    """Until a process that is no child of ours has ended."""
    wait_for(lambda: not Path(f"/proc/{number}").exists(), seconds)


@pytest.mark.slow
def test_forked_cells_compute_in_several_threads_as_started_ones_do(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text(THREADED)
    status, log = run(tmp_path, "", FORKED, "--submitit-preload", "torch", cells=2, snakefile=SCRIPT)
    assert status == 0, log
    found = [(tmp_path / f"out/{i}.txt").read_text() for i in range(2)]
    assert found[0] != found[1]
    (tmp_path / "out/1.txt").unlink()
    status, log = run(tmp_path, "", cells=2, snakefile=SCRIPT)
    assert status == 0, log
    assert (tmp_path / "out/1.txt").read_text() == found[1], "the same numbers as of a Python of its own"


def test_modules_are_imported_once_for_all_tasks_and_forks_draw_their_own_numbers(tmp_path: Path) -> None:
    (tmp_path / "slow_module.py").write_text("open('imports', 'a').write('x')\nimport numpy")
    (tmp_path / "cell.py").write_text(
        "import slow_module, numpy, random, sys\n"
        "print('in', snakemake.wildcards.i, __name__)\n"
        "if snakemake.wildcards.i == '1': sys.exit('stopped')\n"
        "open(snakemake.output[0], 'w').write(f'{numpy.random.random()} {random.random()}')\n"
    )
    status, log = run(tmp_path, "", FORKED, "--submitit-preload", "slow_module", snakefile=SCRIPT)
    assert status == 1
    assert (tmp_path / "imports").read_text() == "x"
    texts = [(tmp_path / f"out/{i}.txt").read_text().split() for i in (0, 2, 3)]
    assert all(len(set(column)) == 3 for column in zip(*texts, strict=True))
    assert (tmp_path / "out/2.tsv").read_text().count("\n") == 2
    assert "stopped" in (tmp_path / ".submitit/logs/cell/1.log").read_text()
    assert "cell 1: FAILED (exit status 1)" in log


@pytest.mark.slow
def test_forks_outlive_a_killed_controller_and_are_taken_up_again(tmp_path: Path) -> None:
    shell = "echo x >> runs.{wildcards.i}; sleep 25; echo {wildcards.i} > {output}"
    process = start(tmp_path, shell, FORKED)
    wait_for(lambda: len(list(tmp_path.glob("runs.*"))) == 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    status, log = run(tmp_path, shell, FORKED)
    assert status == 0, log
    assert "going on with job" in log
    assert [(tmp_path / f"runs.{i}").read_text() for i in range(4)] == ["x\n"] * 4


@pytest.mark.slow
def test_ctrl_c_ends_forks(tmp_path: Path) -> None:
    process = start(tmp_path, "sleep 60; touch {output}", FORKED)
    wait_for(lambda: len(sleeping(tmp_path)) == 4)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 1
    wait_for(lambda: not sleeping(tmp_path), 20)


def test_a_module_that_cannot_be_imported_is_said_before_any_job_goes_out(tmp_path: Path) -> None:
    status, log = run(tmp_path, "touch {output}", FORKED, "--submitit-preload", "torhc")
    assert status == 1
    assert "--submitit-preload torhc: ModuleNotFoundError: No module named 'torhc'" in log
    assert "Traceback" not in log and not (tmp_path / "out").exists()


def test_on_a_cluster_there_is_no_fork_server() -> None:
    with pytest.raises(WorkflowError, match="--submitit-fork-server: True, expected --submitit-cluster local"):
        ExecutorSettings(fork_server=True)


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    made = Forks(tmp_path_factory.mktemp("server"), [])
    yield made
    made.close()


def test_a_task_that_saves_at_its_time_limit_is_started_again(tmp_path: Path, forks: Forks) -> None:
    program = " ".join(counting(tmp_path))
    write_task(tmp_path, ["sh", "-c", f"cd {tmp_path}; exec {program}"], limit_s=3, signal_delay_s=1, gpu_names=[])
    job, _, _ = forks.task(tmp_path, 0, 5, dict(os.environ)).partition(":")
    wait_for_end(int(job))
    assert counted(tmp_path) == list(range(1, 31))
    assert read_json(tmp_path / "0.0.json")["exit"] == 0
    assert read_json(tmp_path / "0.run1")["job_id"] == read_json(tmp_path / "0.run2")["job_id"] == job


def test_a_task_leads_a_group_and_has_what_it_was_given(tmp_path: Path, forks: Forks) -> None:
    code = "import os, json; print(json.dumps([os.getpgrp(), os.environ['MINE'], 'PATH' in os.environ]))"
    write_task(tmp_path, [sys.executable, "-c", code])
    job, _, created = forks.task(tmp_path, 0, 1, {"MINE": "yes"}).partition(":")
    wait_for_end(int(job))
    said = json.loads((tmp_path / "c0.log").read_text().splitlines()[-1])
    assert said == [int(job), "yes", False]
    assert float(created) > 0


def test_a_task_that_was_given_up_never_runs(tmp_path: Path, forks: Forks) -> None:
    write_task(tmp_path, ["touch", str(tmp_path / "ran")])
    fence(tmp_path, 0, "given up")
    job, _, _ = forks.task(tmp_path, 0, 1, dict(os.environ)).partition(":")
    wait_for_end(int(job))
    assert not (tmp_path / "ran").exists()


def test_where_a_server_has_died_that_is_said_and_another_takes_its_place(tmp_path: Path, forks: Forks) -> None:
    write_task(tmp_path, ["touch", str(tmp_path / "ran")])
    forks.process.kill()
    forks.process.wait()
    with pytest.raises(ForkError, match="the fork server has ended"):
        forks.task(tmp_path, 0, 1, dict(os.environ))
    job, _, _ = forks.task(tmp_path, 0, 1, dict(os.environ)).partition(":")
    wait_for_end(int(job))
    assert (tmp_path / "ran").exists()


def test_a_server_ends_with_its_controller_and_leaves_its_tasks(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from snakemake_executor_plugin_submitit.forks import Forks\n"
        "here = Path(sys.argv[1]); forks = Forks(here, [])\n"
        "print(forks.process.pid, forks.task(here, 0, 1, dict(os.environ)).partition(':')[0], flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    write_task(tmp_path, ["sh", "-c", f"sleep 3; touch {tmp_path}/ran"])
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    server, job = map(int, done.stdout.split())
    wait_for_end(server, 20)
    wait_for_end(job)
    assert (tmp_path / "ran").exists(), (tmp_path / LOG).read_text()
