"""The tests on SLURM cannot be skipped: not by a mark, not by a missing one, not where there is no SLURM."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = sorted((ROOT / "tests/slurm").glob("*.py"))


def test_none_of_them_skips_itself() -> None:
    assert len(TESTS) > 5
    for path in TESTS:
        words = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not words & {"skip", "skipif", "xfail", "importorskip", "SkipTest", "skipTest"}, path


def test_all_of_them_are_marked() -> None:
    """`make test-slurm` takes those that are marked: one that is not would never run."""
    for path in TESTS:
        body = ast.parse(path.read_text()).body
        if any("pytestmark = " in text and "pytest.mark.slurm" in text for text in map(ast.unparse, body)):
            continue
        for node in body:
            tests = isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            if tests or (isinstance(node, ast.ClassDef) and node.name.startswith("Test")):
                assert "pytest.mark.slurm" in map(ast.unparse, node.decorator_list), (path, node.name)


def test_without_a_slurm_they_fail(tmp_path: Path) -> None:
    for name in ("bash", "hostname", "date", "id", "grep"):  # neither SLURM nor a way to install it
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "slurm",
        "tests/slurm/test_control.py",
    ]
    environment = os.environ | {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout
    assert "These tests need a SLURM that they can start on this machine." in done.stdout
    assert "skipped" not in done.stdout
    assert "passed" not in done.stdout
