"""Scripts as forks of one process that has imported torch: as right as those that are started, and sooner at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workflow import environment

SNAKEFILE = """
from scatterproof.running.forked_scripts import fork_scripts

onstart:
    fork_scripts()

rule all:
    input: expand("out/{i}.txt", i=range(config["cells"]))
    localrule: True
rule cell:
    output: "out/{i}.txt"
    benchmark: "out/{i}.tsv"
    threads: 2
    script: "cell.py"
"""
COMPUTES = """
import os, sys
assert "torch" in sys.modules and __name__ == "__main__"
assert open("/proc/self/comm").read() == "cell\\n"
import numpy, random, torch
assert torch.get_num_threads() == 2 == int(os.environ["OMP_NUM_THREADS"])
drawn = torch.rand(1).item()
torch.manual_seed(0)
model = torch.nn.Linear(300, 300, dtype=torch.float64)
for step in range(3):
    loss = model(torch.ones(400, 300, dtype=torch.float64)).square().mean()
    loss.backward()
with open(snakemake.output[0], "w") as file:
    file.write(f"{loss.item()!r} {model.weight.grad.sum().item()!r} {numpy.random.random()} {random.random()} {drawn}")
"""
FAILS = """
import os, signal, sys
cell = int(snakemake.wildcards.i)
if cell == 0:
    sys.exit("stopped by itself")
if cell == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if cell == 2:
    raise ValueError("of no use")
open(snakemake.output[0], "w").close()
"""


def command(folder: Path, script: str, cells: int, snakefile: str = SNAKEFILE) -> list[str]:
    (folder / "cell.py").write_text(script)
    (folder / "Snakefile").write_text(snakefile)
    return [sys.executable, "-m", "snakemake", "--cores", "4", "--keep-going", "--config", f"cells={cells}"]


def run(folder: Path, script: str, cells: int, snakefile: str = SNAKEFILE) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    done = subprocess.run(
        command(folder, script, cells, snakefile),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_fork_computes_what_a_started_python_computes_and_draws_numbers_of_its_own(tmp_path: Path) -> None:
    status, log = run(tmp_path, COMPUTES, 2)
    assert status == 0, log
    first, second = ((tmp_path / f"out/{i}.txt").read_text().split() for i in range(2))
    assert first[:2] == second[:2]
    assert not set(first[2:]) & set(second[2:])
    assert (tmp_path / "out/0.tsv").read_text().count("\n") == 2

    (tmp_path / "out/0.txt").unlink()
    started = SNAKEFILE.replace("    fork_scripts()", "    pass")
    status, log = run(tmp_path, COMPUTES.replace("assert", "pass #"), 2, started)
    assert status == 0, log
    assert (tmp_path / "out/0.txt").read_text().split()[:2] == first[:2], "bit for bit"


def test_a_script_that_fails_fails_alone_and_says_why(tmp_path: Path) -> None:
    status, log = run(tmp_path, FAILS, 4)
    assert status == 1
    assert (tmp_path / "out/3.txt").exists()
    assert "stopped by itself" in log and "ValueError: of no use" in log
    assert "SIGKILL" in log or "-9" in log


def test_where_the_process_that_forks_has_died_another_takes_its_place(tmp_path: Path) -> None:
    kills = 'import os\nif snakemake.wildcards.i == "0": os.kill(os.getppid(), 9)\nopen(snakemake.output[0], "w")'
    status, log = run(tmp_path, kills, 6)
    assert status == 1
    assert len(list((tmp_path / "out").glob("*.txt"))) >= 4, "all but those that were under way with it"
    status, log = run(tmp_path, 'open(snakemake.output[0], "w")', 6)
    assert status == 0, log


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(tmp_path: Path, how: int) -> None:
    """Ctrl-C goes to the whole group, and ends forks, too; the process that forks ends with Snakemake."""
    waits = "import os, time; open(f'pid.{os.getpid()}.{os.getppid()}', 'w').close(); time.sleep(60)"
    process = subprocess.Popen(
        command(tmp_path, waits, 2), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while len(list(tmp_path.glob("pid.*"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, how)
    assert process.wait(30) in (1, -how)
    left = {int(number) for path in tmp_path.glob("pid.*") for number in path.name.split(".")[1:]}
    assert len(left) == 3
    end = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in left):
        assert time.monotonic() < end, left
        time.sleep(0.1)
