"""What rules do within their job, on a real SLURM: steps of their own, traps, groups, in folders with odd names."""

import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from sweeps import Sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]
SAVING = "trap 'echo saved >> state.NAME; exit 1' USR2; [ ! -e state.NAME ] || exit 0; while sleep 0.2; do :; done"
RULES = """
rule all:
    input: "step", "steps", "saved.shell", "saved.step"
    localrule: True
rule step:
    output: "step"
    resources: mem_mb=300, runtime=5
    shell: "timeout 60 srun hostname > {output}"
rule steps:
    output: "steps"
    threads: 2
    resources: mem_mb=300, runtime=5
    shell: "timeout 60 srun --overlap -n 2 --ntasks-per-node=2 bash -c 'echo $SLURM_PROCID' | sort > {output}"
rule saves:
    output: "saved.shell"
    resources: mem_mb=300, runtime=1
    shell: "touch {output}; bash saving.shell.sh"
rule saves_in_a_step:
    output: "saved.step"
    resources: mem_mb=300, runtime=1
    shell: "touch {output}; srun bash saving.step.sh"
"""
GROUP = """
rule all:
    input: expand("out/{i}.txt", i=range(3))
    localrule: True
rule make:
    output: "out/{i}.txt"
    group: "g"
    resources: mem_mb=300, runtime=5
    shell: "date +%s.%N > {output}; sleep 2; date +%s.%N >> {output}"
"""
PLAIN = """
rule all:
    input: expand("out/{i}.txt", i=[1, 2])
    localrule: True
rule make:
    output: "out/{i}.txt"
    resources: mem_mb=300, runtime=5
    shell: "echo {wildcards.i} > {output}"
"""


def test_steps_start_within_a_rule_and_whoever_listens_saves_before_the_time_limit(tmp_path: Path) -> None:
    for name in ("shell", "step"):
        (tmp_path / f"saving.{name}.sh").write_text(SAVING.replace("NAME", name))
    sweep = Sweep(tmp_path, RULES, "--submitit-signal-delay", "20")
    assert sweep.run(timeout=500) == 0, sweep.log
    assert (tmp_path / "steps").read_text() == "0\n1\n"
    assert [(tmp_path / f"state.{name}").read_text() for name in ("shell", "step")] == ["saved\n"] * 2


def test_a_group_with_room_for_one_member_runs_one_at_a_time(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, GROUP, "--group-components", "g=3", "--resources", "mem_mb=300")
    assert sweep.run(timeout=300) == 0, sweep.log
    spans = sorted(tuple(map(float, path.read_text().split())) for path in (tmp_path / "out").iterdir())
    assert len(spans) == 3
    assert all(before[1] <= after[0] for before, after in pairwise(spans)), spans


@pytest.mark.parametrize("name", ["100%a %j", "back\\slash %A", "it's"])
def test_a_projects_path_may_have_any_name(tmp_path: Path, name: str) -> None:
    sweep = Sweep(tmp_path / name, PLAIN)
    assert sweep.run(timeout=200) == 0, sweep.log
    assert [(sweep.folder / f"out/{i}.txt").read_text() for i in (1, 2)] == ["1\n", "2\n"]
    assert len(list(sweep.folder.glob(".submitit/jobs/*/*_[01]_0_log.out"))) == 2


def test_where_squeue_fails_for_ever_sacct_tells_how_a_job_ended(tmp_path: Path) -> None:
    site = tmp_path / "bin"
    site.mkdir()
    (site / "squeue").write_text("#!/bin/bash\necho \"squeue: unrecognized option '--me'\" >&2; exit 1\n")
    (site / "squeue").chmod(0o755)
    cancelled = PLAIN.replace("echo {wildcards.i} > {output}", "scancel $SLURM_JOB_ID; sleep 60")
    sweep = Sweep(tmp_path / "project", cancelled, "--submitit-lost-after", "10")
    assert sweep.run(timeout=200, env={"PATH": f"{site}{os.pathsep}{os.environ['PATH']}"}) == 1
    assert sweep.log.count("squeue has failed for 10 s") == 1
    assert "CANCELLED" in sweep.log
    left = subprocess.run(["squeue", "--me", "-h"], capture_output=True, text=True, check=True)
    assert not left.stdout
