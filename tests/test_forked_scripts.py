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
    threads: config["threads"]
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


def command(folder: Path, script: str, cells: int, snakefile: str = SNAKEFILE, threads: int = 2) -> list[str]:
    (folder / "cell.py").write_text(script)
    (folder / "Snakefile").write_text(snakefile)
    given = ["--config", f"cells={cells}", f"threads={threads}"]
    return [sys.executable, "-m", "snakemake", "--cores", str(4 * threads), "--keep-going", *given]


def run(
    folder: Path, script: str, cells: int, snakefile: str = SNAKEFILE, threads: int = 2, temporary: str = "/tmp"
) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    done = subprocess.run(
        command(folder, script, cells, snakefile, threads),
        cwd=folder,
        env=environment() | {"TMPDIR": temporary},
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
    heads, values = ((tmp_path / "out/0.tsv").read_text().splitlines()[line].split("\t") for line in (0, 1))
    assert float(dict(zip(heads, values, strict=True))["s"]) > 0

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


@pytest.mark.slow
def test_where_the_process_that_forks_has_died_another_takes_its_place(tmp_path: Path) -> None:
    kills = 'import os\nif snakemake.wildcards.i == "0": os.kill(os.getppid(), 9)\nopen(snakemake.output[0], "w")'
    status, log = run(tmp_path, kills, 12)
    assert status == 1
    assert len(list((tmp_path / "out").glob("*.txt"))) >= 8, "all but the four that were under way with it"
    assert "Scripts are started, not forked" not in log
    status, log = run(tmp_path, 'open(snakemake.output[0], "w")', 12)
    assert status == 0, log


@pytest.mark.slow
def test_many_short_scripts_at_once_all_succeed(tmp_path: Path) -> None:
    status, log = run(tmp_path, 'open(snakemake.output[0], "w")', 40, threads=1)
    assert status == 0, log


def test_a_script_ends_as_a_started_one_does(tmp_path: Path) -> None:
    """It has processes of its own, what it left open is written, and what it registered for its end is run."""
    script = """
import atexit, multiprocessing, sys
from pathlib import Path

import pytest
def double(number):
    return 2 * number
with multiprocessing.Pool(2) as pool:
    doubled = pool.map(double, [1, 2])
atexit.register(lambda: Path(snakemake.output[0] + ".ended").touch())
left_open = open(snakemake.output[0], "w")
left_open.write(f"{doubled} {sys.path[0] == str(Path(sys.argv[0]).parent)} {'' in sys.path}")
"""
    status, log = run(tmp_path, script, 1)
    assert status == 0, log
    assert (tmp_path / "out/0.txt").read_text() == "[2, 4] True False"
    assert (tmp_path / "out/0.txt.ended").exists()


def test_where_no_process_can_be_had_that_forks_scripts_are_started(tmp_path: Path) -> None:
    temporary = tmp_path / ("long" * 30)  # than the name of a socket may be
    temporary.mkdir()
    status, log = run(tmp_path, 'open(snakemake.output[0], "w")', 2, temporary=str(temporary))
    assert status == 0, log
    assert log.count("Scripts are started, not forked: OSError('AF_UNIX path too long')") == 1


def started(folder: Path, script: str) -> "subprocess.Popen[bytes]":
    """Snakemake, with two scripts at work."""
    script = f"import os\nopen(f'pid.{{os.getpid()}}.{{os.getppid()}}', 'w').close()\n{script}"
    process = subprocess.Popen(
        command(folder, script, 2),
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in a background
    )
    while len(list(folder.glob("pid.*"))) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    return process


def processes(folder: Path) -> set[int]:
    """The ids of the two scripts and of the process that forks."""
    left = {int(number) for path in folder.glob("pid.*") for number in path.name.split(".")[1:]}
    assert len(left) == 3
    return left


def wait_for_ends(numbers: set[int]) -> None:
    end = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < end, numbers
        time.sleep(0.1)


@pytest.mark.slow
def test_ctrl_c_ends_scripts_too(tmp_path: Path) -> None:
    process = started(tmp_path, "import time; time.sleep(60)")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 1
    wait_for_ends(processes(tmp_path))


@pytest.mark.slow
def test_the_process_that_forks_ends_with_snakemake_and_its_scripts(tmp_path: Path) -> None:
    process = started(tmp_path, "import time; time.sleep(5)")
    process.kill()
    process.wait(30)
    wait_for_ends(processes(tmp_path))


@pytest.mark.slow
def test_a_script_that_saves_at_sigterm_is_waited_for(tmp_path: Path) -> None:
    """As at the end of a job that Snakemake itself runs in, where all processes get it."""
    saves = (
        "import signal, time\nasked = []\nsignal.signal(signal.SIGTERM, lambda *_: asked.append(1))\n"
        "while not asked: time.sleep(0.1)\n"
        "time.sleep(2); open('saved.' + snakemake.wildcards.i, 'w'); open(snakemake.output[0], 'w')"
    )
    process = started(tmp_path, saves)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    assert len(list(tmp_path.glob("saved.*"))) == 2
    assert len(list(tmp_path.glob("out/*.txt"))) == 2, "none is taken for lost"
