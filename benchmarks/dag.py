"""Parsing and dry-running a study of 10,000 jobs, beside as many jobs of empty rules, in one run.

Two peers, both one rule of cells and one that gathers them, run in turn with the study:

bare       a cell has an output and an empty shell command, nothing else: the least that Snakemake can do.
furnished  a cell has what the house demands of every rule (log, benchmark, conda, threads, resources, message), an
           empty script and one input that a third rule makes; no parameters, no package, no validation of a study.

What a directive costs a job, Snakemake charges to everyone who writes it, so the target holds for the furnished peer.
The ratio to the bare one is printed beside. Times are medians of wall seconds; `cpu` is user plus system time.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = 1.3
STUDY = """\
study: dag
dataset: {{kind: digits}}
victim: {{model: vgg16_bn, width: 0.0625}}
block_sizes: [16]
prune: {{keep: [0.5], repeats: {prune}, corrections: [none]}}
shuffle: {{keep: [0.5], moved: [1.0], repeats: {shuffle}}}
run: {{cells_per_job: 1}}
"""
BARE = """\
rule gather:
    input: [f"cells/{{i}}.csv" for i in range({cells})]

rule cell:
    output: "cells/{{i}}.csv"
    shell: ""
"""
FURNISHED = """\
rule gather:
    input: [f"cells/{{i}}.csv" for i in range({cells})]

rule source:
    output: "source"
    shell: ""

rule cell:
    input: rules.source.output
    output: "cells/{{i}}.csv"
    log: "logs/{{i}}.log"
    benchmark: "benchmarks/{{i}}.tsv"
    conda: "env.yaml"
    threads: 1
    resources: runtime=60, mem_mb=8000, gpu=1
    message: "cell {{wildcards.i}}"
    script: "empty.py"
"""
TRAP = """\
from pathlib import Path
Path({marker!r}).touch()
raise ImportError("torch is imported while the Snakefile is parsed")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"exit 1 above a ratio of {TARGET}, or on import of torch")
    parser.add_argument("--jobs", type=int, default=10_000, help="jobs of each dry-run")
    parser.add_argument("--rounds", type=int, default=3, help="dry-runs of each, in turn")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        commands = make_workflows(folder, arguments.jobs)
        torch = imports_torch(folder)
        wall: dict[str, list[float]] = {name: [] for name in commands}
        cpu: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                jobs, seconds, used = dry_run(command)
                if jobs != arguments.jobs:
                    raise SystemExit(f"{name}: {jobs} jobs, expected {arguments.jobs}")
                wall[name].append(seconds)
                cpu[name].append(used)
    show("jobs", arguments.jobs, "jobs")
    for name in commands:
        show(name, statistics.median(wall[name]), "s")
        show(f"{name}.cpu", statistics.median(cpu[name]), "s")
    ratios = {peer: statistics.median(wall["study"]) / statistics.median(wall[peer]) for peer in ("furnished", "bare")}
    show("ratio.furnished", ratios["furnished"], f"x (target {TARGET})")
    show("ratio.bare", ratios["bare"], "x")
    show("import.study", statistics.median(import_seconds() for _ in range(3)), "s")
    show("torch.imported", torch, "(0 no, 1 yes)")
    missed = ratios["furnished"] > TARGET or torch
    if missed:
        print("missed", file=sys.stderr)
    return int(arguments.check and missed)


def make_workflows(folder: Path, jobs: int) -> dict[str, list[str]]:
    """The command of each dry-run of so many jobs; results would go to folders of their own."""
    fixed = dry_run(study_command(folder, "small", 2))[0] - 2
    commands = {"study": study_command(folder, "study", jobs - fixed)}
    for name, text, others in (("furnished", FURNISHED, 2), ("bare", BARE, 1)):
        place = folder / name
        place.mkdir()
        (place / "Snakefile").write_text(text.format(cells=jobs - others))
        (place / "env.yaml").write_text("dependencies: [python]\n")
        (place / "empty.py").touch()
        commands[name] = ["--snakefile", str(place / "Snakefile"), "--directory", str(place)]
    return commands


def study_command(folder: Path, name: str, cells: int) -> list[str]:
    config = folder / f"{name}.yaml"
    config.write_text(STUDY.format(prune=cells // 2, shuffle=cells - cells // 2))
    (folder / name).mkdir()
    return ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(config), "--directory", str(folder / name)]


def dry_run(command: list[str], path: Path | None = None) -> tuple[int, float, float]:
    """Jobs, wall seconds and CPU seconds; `path` stands first where Python looks for packages."""
    environment = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    line = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "1", *command]
    done = subprocess.run(line, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    total = re.search(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)
    if done.returncode or total is None:
        raise SystemExit(f"{' '.join(line)}\n{done.stdout}{done.stderr}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return int(total[1]), seconds, used


def imports_torch(folder: Path) -> bool:
    """Whether a dry-run reaches for torch: one that leaves a mark stands in its place."""
    trap = folder / "trap"
    trap.mkdir()
    marker = trap / "imported"
    (trap / "torch.py").write_text(TRAP.format(marker=str(marker)))
    command = study_command(folder, "without_torch", 2)
    try:
        dry_run(command, trap)
    except SystemExit:
        if not marker.exists():
            raise
    return marker.exists()


def import_seconds() -> float:
    code = "import time; t = time.perf_counter(); import scatterproof.config.study; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.5g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
