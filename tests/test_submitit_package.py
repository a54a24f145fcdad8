"""The plugin by itself: built, it holds all of its modules, and imports nothing of scatterproof."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "src/snakemake_executor_plugin_submitit"


def test_it_builds_by_itself(tmp_path: Path) -> None:
    copy = tmp_path / "plugin"
    shutil.copytree(PLUGIN, copy, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path, copy]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("snakemake_executor_plugin_submitit-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = next(name for name in names if name.endswith("METADATA"))
        described = archive.read(metadata).decode()
    assert {f"snakemake_executor_plugin_submitit/{path.name}" for path in PLUGIN.glob("*.py")} <= names
    assert "Requires-Dist: submitit" in described
    assert "# snakemake-executor-plugin-submitit" in described


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
