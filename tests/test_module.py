"""A workflow of someone else's that uses ours as a module: its own rules, folders and configuration beside ours."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from workflow import ROOT, environment

SNAKEFILE = f"""
from scatterproof.running.forked_scripts import fork_scripts

configfile: "mine.yaml"

module scatterproof:
    snakefile: "{ROOT}/Snakefile"
    config: config["scatterproof"]

use rule * from scatterproof as scatterproof_*

onstart:
    fork_scripts()

rule count_victims:
    default_target: True
    input: "results/theirs/tables/victim.csv"
    output: "victims.txt"
    shell: "tail -n +2 {{input}} | wc -l > {{output}}"
"""
STUDY: dict[str, Any] = {
    "study": "theirs",
    "dataset": {"kind": "digits"},
    "victim": {"width": 1 / 64, "dropout": 0.0, "seeds": [0, 1], "train": {"epochs": 1, "augment": "none"}},
    "block_sizes": [16],
}


def snakemake(folder: Path, study: dict[str, Any], *more: str) -> tuple[int, str]:
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "mine.yaml").write_text(yaml.safe_dump({"scatterproof": study, "ours": 1}))
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "2", *more],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
def test_a_foreign_workflow_uses_ours_as_a_module(tmp_path: Path) -> None:
    status, log = snakemake(tmp_path, STUDY)
    assert status == 0, log
    assert (tmp_path / "victims.txt").read_text() == "2\n"


def test_what_is_wrong_with_its_part_is_said_by_its_files_name(tmp_path: Path) -> None:
    status, log = snakemake(tmp_path, STUDY | {"victm": {}}, "-n")
    assert status == 1
    assert "mine.yaml: victm: unknown key (nearest: victim)" in log and "Traceback" not in log
