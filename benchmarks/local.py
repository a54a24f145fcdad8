"""Python cells of one second on this machine, in forks of one process, against Snakemake's own local executor.

    python benchmarks/local.py [--check] [--cells 200] [--cores 2]

Each cell imports torch and computes for one second of its core's time. Our executor runs them with a fork server that
has imported torch once; Snakemake's own starts a Python for each. Both run the same cells, as many at once as there are
cores. The target is 1.3 times the time of the computing alone.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SNAKEFILE = """
rule all:
    input: [f"out/{i}.txt" for i in range(int(config["cells"]))]
    localrule: True
rule cell:
    output: "out/{i}.txt"
    script: "cell.py"
"""
CELL = """
import time
import torch

begun = time.process_time()  # what Python has taken before is start-up, not the cell's second
while time.process_time() - begun < 1.0:
    torch.ones(64, 64) @ torch.ones(64, 64)
open(snakemake.output[0], "w").close()
"""
GENERAL = ["--scheduler", "greedy", "--max-jobs-per-timespan", "100000/1s", "--quiet", "all"]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--check", action="store_true")
    options.add_argument("--cells", type=int, default=200)
    options.add_argument("--cores", type=int, default=2)
    asked = options.parse_args()
    ours = ["--executor", "submitit", "--submitit-cluster", "local", "--jobs", str(asked.cores)]
    ours += ["--submitit-fork-server", "--submitit-preload", "torch"]
    forked = measure("forked", ours, asked.cells, asked.cores)
    started = measure("snakemake", ["--cores", str(asked.cores)], asked.cells, asked.cores)
    print(f"forked_ratio {forked:.2f} x of the computing alone (target 1.3)")
    print(f"snakemake_ratio {started:.2f} x of the computing alone")
    print(f"forked_over_snakemake {started / forked:.2f} x faster")
    if asked.check and forked > 1.3:
        sys.exit("missed: at most 1.3 times the time of the computing alone")


def measure(name: str, executor: list[str], cells: int, cores: int) -> float:
    """Seconds of a whole run, its start and end included, over those that the cells alone would take."""
    with tempfile.TemporaryDirectory(prefix=f"local-{name}-") as folder:
        root = Path(folder)
        (root / "Snakefile").write_text(SNAKEFILE)
        (root / "cell.py").write_text(CELL)
        command = [sys.executable, "-m", "snakemake", *executor, *GENERAL, "--config", f"cells={cells}"]
        begun = time.monotonic()
        done = subprocess.run(command, cwd=root, capture_output=True, text=True)
        seconds = time.monotonic() - begun
        if done.returncode or len(list(root.glob("out/*.txt"))) != cells:
            sys.exit(f"{name}: {done.stdout}{done.stderr}")
    print(f"{name}_cells {cells} cells of one second on {cores} cores")
    print(f"{name}_seconds {seconds:.1f} s")
    return seconds * cores / cells


if __name__ == "__main__":
    main()
