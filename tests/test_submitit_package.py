"""The plugin by itself: built, it holds all of its modules, imports nothing of scatterproof, and runs a workflow."""

import ast
import email
import json
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from collections.abc import Mapping
from email.message import Message
from pathlib import Path

import pytest
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

PLUGIN = Path(__file__).parents[1] / "src/snakemake_executor_plugin_submitit"
FOREIGN = """
rule all:
    input: "squares.txt", "grouped.txt"
    localrule: True
rule shell:
    output: "cells/{i}.txt"
    resources: runtime=5, mem_mb=200
    shell: "echo {wildcards.i} >> began; while [ ! -e go ]; do sleep 0.1; done; echo {wildcards.i} > {output}"
rule script:
    input: expand("cells/{i}.txt", i=range(3))
    output: "squares.txt"
    params: power=2
    script: "squares.py"
rule first:
    output: temp("half.txt")
    group: "pair"
    shell: "echo 1 > {output}"
rule second:
    input: "half.txt"
    output: "grouped.txt"
    group: "pair"
    shell: "cat {input} {input} > {output}"
"""
SCRIPT = """
from pathlib import Path

numbers = [int(Path(path).read_text()) for path in snakemake.input]
Path(snakemake.output[0]).write_text(f"{sorted(number**snakemake.params.power for number in numbers)}")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PLUGIN, folder / "plugin", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, folder / "plugin"], check=True)
    (built,) = folder.glob("snakemake_executor_plugin_submitit-*.whl")
    return built


def described(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith("METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_it_builds_by_itself(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"snakemake_executor_plugin_submitit/{path.name}" for path in PLUGIN.glob("*.py")} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert (PLUGIN / "LICENSE").read_text() == (PLUGIN.parents[1] / "LICENSE").read_text()


def test_it_says_what_the_catalog_of_plugins_shows(wheel: Path) -> None:
    """https://snakemake.github.io/snakemake-plugin-catalog, source/collect_plugins.py and its templates."""
    found = described(wheel)
    assert found["Name"] == "snakemake-executor-plugin-submitit"
    assert found["Summary"] and found["Author"] and found["License-Expression"] == "MIT"
    assert {"snakemake", "plugin", "executor", "slurm"} <= set(found["Keywords"].split(","))
    assert {one.partition(",")[0] for one in found.get_all("Project-URL", [])} == {"Documentation"}
    text = str(found.get_payload())
    assert text.startswith("# snakemake-executor-plugin-submitit\n\nA [Snakemake]"), "two lines are left out there"
    needed = " ".join(found.get_all("Requires-Dist", []))
    assert "submitit" in needed and "scatterproof" not in needed and "torch" not in needed


def test_the_catalog_can_list_its_settings() -> None:
    """It writes what it is told of them as JSON, but for types."""
    for setting in ExecutorPluginRegistry().get_plugin("submitit").get_settings_info():
        json.dumps({key: value for key, value in setting.items() if key != "type"})


def test_it_needs_nothing_of_this_project() -> None:
    for path in PLUGIN.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "scatterproof" for name in names), path


def test_a_task_starts_without_importing_what_it_does_not_need() -> None:
    code = "import sys, snakemake_executor_plugin_submitit.task; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"snakemake", "submitit", "torch", "numpy", "snakemake_interface_common"} & set(done.stdout.split())


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new virtual environment with the plugin and what it needs, from the package index."""
    folder = tmp_path_factory.mktemp("alone")
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "-q", wheel], check=True, env=outside())
    return folder / "bin"


def outside() -> Mapping[str, str]:
    """The environment without what leads to this project's packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}


def controller(alone: Path, project: Path) -> "subprocess.Popen[str]":
    path = f"{alone}{os.pathsep}{os.environ['PATH']}"
    command = [alone / "snakemake", "--executor", "submitit", "--submitit-cluster", "local", "--jobs", "4"]
    return subprocess.Popen(
        command, cwd=project, env={**outside(), "PATH": path}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1800)  # pip fetches some sixty packages
def test_in_an_environment_of_its_own_it_runs_a_foreign_workflow_and_goes_on_after_a_kill(
    alone: Path, tmp_path: Path
) -> None:
    for absent in ("scatterproof", "torch"):
        looked = subprocess.run([alone / "python", "-c", f"import {absent}"], env=outside(), capture_output=True)
        assert b"ModuleNotFoundError" in looked.stderr
    (tmp_path / "Snakefile").write_text(FOREIGN)
    (tmp_path / "squares.py").write_text(SCRIPT)
    first = controller(alone, tmp_path)
    began = tmp_path / "began"
    while first.poll() is None and not (began.exists() and len(began.read_text().split()) == 3):
        time.sleep(0.1)
    assert first.poll() is None, first.communicate()[0]
    first.kill()
    first.communicate()
    (tmp_path / "go").touch()
    second = controller(alone, tmp_path)
    said = second.communicate(timeout=600)[0]
    assert second.returncode == 0, said
    assert said.count("going on with job") >= 3, said
    assert sorted(began.read_text().split()) == ["0", "1", "2"], "no cell ran twice"
    assert (tmp_path / "squares.txt").read_text() == "[0, 1, 4]"
    assert (tmp_path / "grouped.txt").read_text() == "1\n1\n"
    assert not (tmp_path / "half.txt").exists()
