"""A site's and a user's own ways on a real SLURM: banners, sbatch's defaults, formats, helpers by source_path."""

import os
import subprocess
from pathlib import Path

import pytest
from sweeps import Sweep, kill, wait_for

pytestmark = pytest.mark.slurm
CELLS = """
rule all:
    input: expand("out/{i}.txt", i=[1, 2])
    localrule: True
rule make:
    output: "out/{i}.txt"
    params: helper=workflow.source_path("helper.sh")
    resources: mem_mb=300, runtime=5
    shell: "echo ran >> runs.{wildcards.i}; bash {params.helper} > {output};"
        " scontrol show job $SLURM_JOB_ID >> {output}"
"""


def project(folder: Path, helper: str = "echo helped", runtime: str = ", runtime=5") -> Sweep:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "helper.sh").write_text(f"{helper}\n")
    return Sweep(folder, CELLS.replace(", runtime=5", runtime))


def runs(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in folder.glob("runs.*"))


def test_an_sbatch_with_a_banner_submits_once_and_ctrl_c_ends_its_jobs(tmp_path: Path) -> None:
    site = tmp_path / "bin"
    site.mkdir()
    sbatch = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (site / "sbatch").write_text(f'#!/bin/bash\necho "   Welcome to cluster 7"\nexec {sbatch} "$@"\n')
    (site / "sbatch").chmod(0o755)
    path = {"PATH": f"{site}{os.pathsep}{os.environ['PATH']}"}
    sweep = project(tmp_path / "project")
    assert sweep.run(env=path, timeout=90) == 0, sweep.log
    assert sweep.log.count("Submitted make-") == 1
    assert runs(sweep.folder) == 2

    interrupted = project(tmp_path / "interrupted", "sleep 60")
    process = interrupted.start(env=path)
    wait_for(lambda: runs(interrupted.folder) == 2, 60, "running jobs")
    process.send_signal(2)
    process.wait(60)
    left = ["squeue", "--me", "-h", "-r", "-t", "R,PD", "-o", "%j"]
    wait_for(lambda: not subprocess.run(left, capture_output=True, text=True).stdout.strip(), 30, "end of the jobs")


def test_the_users_defaults_and_formats(tmp_path: Path) -> None:
    sweep = project(tmp_path, runtime="")
    environment = {"SBATCH_PARTITION": "cpu", "SBATCH_TIMELIMIT": "7", "SBATCH_MEM_PER_CPU": "99999999"}
    environment |= {"SQUEUE_FORMAT": "%i", "SQUEUE_STATES": "COMPLETED", "SACCT_FORMAT": "User", "SINFO_FORMAT": "%t"}
    assert sweep.run(env=environment, timeout=90) == 0, sweep.log
    given = (tmp_path / "out/1.txt").read_text()
    assert "Partition=cpu " in given
    assert "TimeLimit=00:07:00" in given
    assert "ignored for the jobs: SBATCH_MEM_PER_CPU" in sweep.log


def test_running_jobs_with_a_copied_source_go_on_unless_it_has_changed(tmp_path: Path) -> None:
    sweep = project(tmp_path, "until [ -e go ]; do sleep 0.2; done; echo old")
    process = sweep.start()
    wait_for(lambda: runs(tmp_path) == 2, 60, "running jobs")
    kill(process)
    process = sweep.start()
    wait_for(lambda: sweep.log.count("going on with job") == 2, 60, "jobs that are taken up")
    kill(process)
    (tmp_path / "helper.sh").write_text("until [ -e go ]; do sleep 0.2; done; echo new\n")
    process = sweep.start()
    wait_for(lambda: runs(tmp_path) == 4, 90, "jobs with the new helper")
    (tmp_path / "go").touch()
    assert process.wait(90) == 0, sweep.log
    assert sweep.log.count("going on with job") == 2
    assert sweep.log.count("is out of date and is cancelled: changed: code, params") == 2
    assert [(tmp_path / f"out/{i}.txt").read_text().splitlines()[0] for i in (1, 2)] == ["new", "new"]
