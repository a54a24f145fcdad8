"""The literal `snakemake --profile slurm`, from a clean clone after the one documented install step.

With two victims, not ten, and a few of the threats, trained and attacked for a few steps: every rule runs, and
`make demo` runs all of it elsewhere.
"""

import csv
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sweeps import sacct

ROOT = Path(__file__).parents[2]
FEWER = """
victim: {seeds: [0], train: {epochs: 2}}
further_victims: {copy_free: {seeds: [0]}}
prune: {repeats: 1}
shuffle: {repeats: 1}
search:
  grids:
    - {attacks: [genetic, random], populations: [10], keep: [0.5, 1.0], evaluations: 40}
    - {attacks: [reinforce], fitness: [loss], evaluations: 40}
plateau: {draws: 10}
attacks:
  grids:
    - {attacks: [fingerprint, probe], images: [50], knows: [labels]}
    - {images: [50], defences: [home], ceilings: [told]}
  probe: {updates: 8}
fineness: {block_sizes: [32, 64]}
stream:
  grids:
    - {observed: [0.0], held: [1.0], hijacks: [adaptive]}
retraining:
  recipes: {short: {epochs: 1}, small_batches: {epochs: 1}}
  pirate_recipes: {longer: {epochs: 3}}
"""


@pytest.mark.slurm
@pytest.mark.timeout(1200)
def test_the_demo_runs_to_its_report_with_a_gpu_for_every_job_that_computes(
    tmp_path: Path, cluster: Callable[..., None]
) -> None:
    cluster(NODES="1")  # two jobs at once are what two cores are good for
    clone = tmp_path / "scatterproof"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    subprocess.run(["make", "install"], cwd=clone, check=True, stdout=subprocess.DEVNULL)
    (clone / "fewer.yaml").write_text(FEWER)
    environment = os.environ | {"PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"}
    with (tmp_path / "log.txt").open("w") as log:
        command = ["snakemake", "--profile", "slurm", "--configfile", "config/demo.yaml", "fewer.yaml"]
        done = subprocess.run(command, cwd=clone, env=environment, stdout=log, stderr=log)
    assert done.returncode == 0, (tmp_path / "log.txt").read_text()
    results = clone / "results/demo"
    assert (results / "report/index.html").stat().st_size > 10_000
    names = {path.name for path in (clone / ".submitit/jobs").iterdir()}
    time.sleep(5)
    rows = [line.split("|") for line in sacct("-D", "--name", ",".join(names), "-o", "JobName,State,AllocTRES")]
    assert len(rows) >= 30
    assert {state for _, state, _ in rows} == {"COMPLETED"}
    without = ("tap_stream", "protect_layer")
    assert all(("gres/gpu=1" in tres) != name.startswith(without) for name, _, tres in rows), "but those two"
    rules = {name.rpartition("-")[0] for name, _, _ in rows}
    assert {
        "train_victim",
        "protect_layer",
        "cut_puzzle",
        "evaluate_prune",
        "evaluate_shuffle",
        "search_placements",
    } <= rules
    for table in ("victim", "prune", "shuffle", "search", "plateau"):
        with (results / f"tables/{table}.csv").open() as file:
            found = list(csv.DictReader(file))
        assert found
        assert all(row["device"].startswith("cpu") and not row["gpu_minutes"] for row in found)
    cluster()
