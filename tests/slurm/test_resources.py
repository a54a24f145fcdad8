"""What SLURM gives for each resource that a rule names; what is refused or ignored is named, and goes no further."""

import json
from pathlib import Path

import pytest
from sweeps import Sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

RULES = """
import json
CASES = json.load(open("cases.json"))
rule all:
    input: expand("out/{i}.txt", i=list(CASES))
    localrule: True
for name, asked in CASES.items():
    rule:
        name: f"r_{name}"
        output: f"out/{name}.txt"
        threads: 2
        resources: **({} if "mem" in asked else {"mem_mb": 300}) | {"runtime": 5} | asked
        shell: "scontrol show job -o $SLURM_JOB_ID > {output}"
"""
GIVEN: dict[str, tuple[dict[str, object], list[str]]] = {
    "model": ({"gpu_model": "h100"}, ["NumCPUs=2", "TresPerNode=gres:gpu:h100:1"]),
    "models": ({"gpu_model": "h100", "gpu": 2}, ["TresPerNode=gres:gpu:h100:2", "gres/gpu=2"]),
    "gres": ({"gres": "gpu:h100:2", "cpus_per_gpu": 3}, ["NumCPUs=6", "gres/gpu=2"]),
    "per_gpu": ({"gpu": 1, "cpus_per_gpu": 4}, ["NumCPUs=4", "gres/gpu=1"]),
    "default_cpus": ({"cpus_per_task": -1}, ["NumCPUs=1"]),
    "threads": ({"cpus_per_task": 0, "gpu": 0}, ["NumCPUs=2"]),
    "memory": ({"mem_mb_per_cpu": 200}, ["MinMemoryCPU=200M"]),
    "units": ({"mem": "1GB", "runtime": "2h"}, ["MinMemoryNode=1000M", "TimeLimit=02:00:00"]),
    "anyhow": ({"nodes": 1, "tasks": 1, "tasks_per_gpu": 1, "gpu": 1, "gpus": 1}, ["NumTasks=1", "NumNodes=1"]),
    "partition": (
        {"slurm_partition": "cpu", "slurm_account": "root", "qos": "normal"},
        ["Partition=cpu", "QOS=normal"],
    ),
    "extra": ({"slurm_extra": "--nodelist=gpu2"}, ["ReqNodeList=gpu2"]),
}
REFUSED = {
    "several": {"nodes": 2},
    "tasks": {"tasks_per_gpu": 2, "gpu": 1},
    "ranks": {"mpi": "srun", "tasks": 4},
    "elsewhere": {"clusters": "other"},
    "step": {"nvidia_gpu": 1},
    "both": {"gpu_model": "h100", "gres": "gpu:1"},
}
IGNORED = {
    "units_of_memory": {"mem_gib": 4},
    "alike": {"partition": "cpu"},
    "option": {"reservation": "x"},
    "maker": {"gpu": 1, "gpu_manufacturer": "nvidia"},
    "no_gpu": {"cpus_per_gpu": 4},
}


def sweep(folder: Path, cases: dict[str, dict[str, object]], *args: str) -> Sweep:
    found = Sweep(folder, RULES, *args)
    (folder / "cases.json").write_text(json.dumps(cases))
    return found


def test_slurm_gives_what_is_asked_for_and_the_rest_is_named(tmp_path: Path) -> None:
    asked = {name: resources for name, (resources, _) in GIVEN.items()}
    project = sweep(tmp_path, asked | REFUSED | IGNORED)
    assert project.run(timeout=240) == 1
    for name, (_, given) in GIVEN.items():
        job = (tmp_path / f"out/{name}.txt").read_text()
        assert all(text in job for text in given), (name, job)
    for name in REFUSED:
        assert not (tmp_path / f"out/{name}.txt").exists()
        assert f"rule r_{name}, resource " in project.log.split("Submitted")[0], "before anything is submitted"
    for name in IGNORED:
        assert (tmp_path / f"out/{name}.txt").exists()
        said = [line for line in project.log.splitlines() if line.startswith(f"rule r_{name}, resource ")]
        assert len(said) == 1 and "ignored: " in said[0], "once"


def test_without_keep_going_all_faults_are_one_message_and_nothing_is_submitted(tmp_path: Path) -> None:
    project = sweep(tmp_path, {"model": {"gpu_model": "h100"}} | REFUSED)
    command = [word for word in project.command() if word != "--keep-going"]
    project.command = lambda *_: command  # type: ignore[method-assign]
    assert project.run(timeout=120) == 1
    for name in REFUSED:
        assert project.log.count(f"rule r_{name}, resource ") == 1
    assert "Submitted" not in project.log
    assert not (tmp_path / ".submitit").exists()
