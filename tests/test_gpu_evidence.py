"""`make gpu-evidence`: its study, at small width and on the CPU, and what it says without a GPU."""

import os
import subprocess
from copy import deepcopy
from pathlib import Path

import pandas as pd
import pytest
import yaml

import workflow
from scatterproof.command.main import main
from scatterproof.config.study import parse_study

CONFIG = yaml.safe_load((workflow.ROOT / "config/gpu-evidence.yaml").read_text())


def test_it_is_the_talks_net_in_the_talks_blocks_within_half_an_hour() -> None:
    study = parse_study(CONFIG, "gpu-evidence.yaml")
    assert (study.victim.model, study.victim.width, study.block_sizes) == ("vgg16", 1.0, [256])
    assert study.run.device == "cuda"
    assert study.budget.gpu_hours == 0.5


def test_without_a_gpu_it_says_so_before_anything_runs() -> None:
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(["make", "gpu-evidence"], cwd=workflow.ROOT, env=hidden, capture_output=True, text=True)
    assert done.returncode != 0
    assert "make gpu-evidence needs a GPU with CUDA: torch finds none here" in done.stderr
    assert "snakemake --cores" not in done.stdout


@pytest.mark.slow
def test_the_same_study_runs_small_on_a_cpu_and_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = deepcopy(CONFIG)
    study["dataset"] = {"kind": "digits"}
    study["victim"] |= {"width": 1 / 64, "train": study["victim"]["train"] | {"epochs": 3, "lr": 0.05}}
    study["block_sizes"] = [16]
    for grid in study["search"]["grids"]:
        grid |= {"populations": [10], "evaluations": 60}
    study["search"]["precision"] = "fp32"
    study["attacks"] |= {"control_shuffles": 10, "refine": {"sweeps": 2}, "blocks": {"updates": 20}}
    study["attacks"]["layer"] = {"updates": 20}
    study["attacks"]["grids"][1]["images"] = [200]
    study["attacks"]["grids"][2]["images"] = study["retraining"]["pirate_images"] = [50, 200]
    study["attacks"]["surrogate"] = {"updates": 20, "models": [{"width": 1 / 64}]}
    study["run"] |= {"device": "cpu", "threads": 1, "mem_mb": 4000}
    status, output = workflow.snakemake(tmp_path, study)
    assert status == 0, output
    monkeypatch.chdir(tmp_path)
    assert main(["publish", "--configfile", "tiny.yaml", "kept"]) == 0
    verdicts = pd.read_csv("kept/tables/verdict.csv")
    assert set(verdicts["keep"]) == {0.1, 0.25, 0.5, 1.0}
    assert set(verdicts["verdict"]) <= {"undecided", "invalid"}, "one victim decides nothing"
    assert {"fingerprint", "refine", "blocks", "layer", "surrogate"} <= set(
        pd.read_csv("kept/tables/attacks.csv")["attack"]
    )
    assert set(pd.read_csv("kept/tables/retraining.csv")["images"]) >= {50, 200}
    assert not pd.read_csv("kept/tables/stream.csv").empty
    assert pd.read_csv("kept/tables/victim.csv")["folded"].tolist() == ["classifier.0"]
    assert "study: gpu-evidence" in Path("kept/made.md").read_text()
