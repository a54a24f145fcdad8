"""`scatterproof cost` on a ledger of 10,000 attempts, as a whole process, beside what one would do without it.

The study is made up, its files are real: an executor's journal of arrays of 500 tasks, one in ten of which was
preempted and started again; a record by every attempt that got as far as its work; and an `sacct` on PATH that answers
for the ids that it is asked for. It is a shell script with the answers in files: what a real slurmdbd takes to look
them up comes on top, for the peers as well.

Peers, in the same run, both for one number, the sum of ElapsedRaw x GPUs, without stages, waste or energy:

loop  one sacct for each task, piped into awk, as a script over a list of job ids does it; timed on a sample of tasks
      and extrapolated in proportion
awk   one sacct for all jobs, piped into awk: the least that any ledger must do

Times are medians of wall seconds; `cost.cpu` is user plus system time, of sacct too.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scatterproof.cost.sacct import FIELDS
from snakemake_executor_plugin_submitit.journal import Journal

TARGET_S = 3.0
ARRAY = 500
RULE, STUDY = "train_victim", Path("results/made_up")
STATES = ("COMPLETED", "COMPLETED", "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED by 0", "OUT_OF_MEMORY")
COST = ["cost", "--folder", str(STUDY), "--csv"]
SACCT = """\
#!/bin/sh
while [ $# -gt 0 ]; do case $1 in -j) ids=$2; shift;; esac; shift; done
cd '{folder}' && IFS=, && exec cat $ids
"""
SUM = (
    r"""awk -F '|' '{ if (match($5, /gres\/gpu=[0-9]+/)) sum += substr($5, RSTART + 9, RLENGTH - 9) * $9 }"""
    r""" END { printf "%.0f\n", sum }'"""
)
ASK = f"sacct -X -D -n -P -o {','.join(FIELDS)} -j"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"exit 1 above {TARGET_S} s, or where a sum is wrong")
    parser.add_argument("--attempts", type=int, default=10_000, help="attempts in the ledger")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each, in turn")
    parser.add_argument("--sample", type=int, default=200, help="tasks that the loop is timed on")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs, tasks, expected = make_study(folder, arguments.attempts)
        sample = tasks[:: max(1, len(tasks) // arguments.sample)][: arguments.sample]
        commands = {
            "cost": [str(Path(sys.executable).with_name("scatterproof")), *COST],
            "import": [sys.executable, "-c", "import scatterproof.command.main"],
            "awk": ["sh", "-c", f"{ASK} {','.join(jobs)} | {SUM}"],
            "loop": ["sh", "-c", f"for task in {' '.join(sample)}; do {ASK} $task; done | {SUM}"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        cpu: dict[str, list[float]] = {name: [] for name in commands}
        told = {}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                told[name], took, used = run(command, folder)
                seconds[name].append(took)
                cpu[name].append(used)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    head, *_, last = (line.split(",") for line in told["cost"].splitlines())
    total = dict(zip(head, last, strict=True))
    found, attempts = round(float(total["allocated_gpu_minutes"]) * 60), int(total["attempts"])
    show("attempts", attempts, "attempts")
    show("cost", median["cost"], f"s (target {TARGET_S})")
    show("cost.cpu", statistics.median(cpu["cost"]), "s")
    show("cost.worst", max(seconds["cost"]), "s")
    show("cost.import", median["import"], "s")
    loop = median["loop"] / len(sample) * len(tasks)
    show("peer.loop", loop, f"s (extrapolated from {len(sample)} of {len(tasks)} tasks)")
    show("peer.awk", median["awk"], "s")
    show("ratio.loop", loop / median["cost"], "x")
    show("ratio.awk", median["awk"] / median["cost"], "x")
    wrong = attempts != arguments.attempts or not found == int(told["awk"]) == expected
    show("sums.wrong", wrong, f"(0 no, 1 yes; {found} GPU-seconds, awk {told['awk'].strip()}, made {expected})")
    missed = median["cost"] > TARGET_S or wrong
    if missed:
        print("missed", file=sys.stderr)
    return int(arguments.check and missed)


def make_study(folder: Path, attempts: int) -> tuple[list[str], list[str], int]:
    """A study of so many attempts: the ids of its arrays, those of its tasks, and the GPU-seconds that it held."""
    answers, binaries = folder / "answers", folder / "bin"
    for path in (answers, binaries):
        path.mkdir()
    (binaries / "sacct").write_text(SACCT.format(folder=answers))
    (binaries / "sacct").chmod(0o755)
    book = Journal(folder / ".submitit" / "journal.sqlite")
    jobs, ids, made, held = [], [], 0, 0
    while made < attempts:
        job, name = str(1000 + len(jobs)), f"{RULE}-{len(jobs):012x}"
        lines: list[str] = []
        tasks = 0
        while made < attempts and tasks < ARRAY:
            starts = 2 if tasks % 10 == 9 and made + 2 <= attempts else 1
            lines += make_task(folder, f"{job}_{tasks}", name, made, starts)
            (answers / f"{job}_{tasks}").write_text("".join(lines[-starts:]))
            ids.append(f"{job}_{tasks}")
            made, tasks = made + starts, tasks + 1
        (answers / job).write_text("".join(lines))
        held += sum(int(line.split("|")[8]) for line in lines)
        journal_array(book, job, name, tasks)
        jobs.append(job)
    book.close()
    return jobs, ids, held


def make_task(folder: Path, task: str, name: str, number: int, starts: int) -> list[str]:
    """sacct's lines of a task, and the records of those of its starts that did not fail while Python imported."""
    lines = []
    for restart in range(starts):
        state = STATES[number % len(STATES)] if restart == starts - 1 else "PREEMPTED"
        start, seconds = 10_000 + 50 * number + 5000 * restart, 100 + number % 900
        tres = "billing=8,cpu=8,gres/gpu=1,mem=8G,node=1"
        times = f"{start - 60}|{start}|{start + seconds}|{seconds}|00:00:00"
        lines.append(f"{task}|{state}|gpu|node{number % 16}|{tres}|{times}|{name}\n")
        if number % 13:
            make_record(folder, task, name, restart, start + 2, seconds - 4, state)
    return lines


def make_record(folder: Path, task: str, name: str, restart: int, began: int, useful: int, state: str) -> None:
    record = {
        "version": 1,
        "stage": "victim",
        "rule": RULE,
        "job": f"victim.{task}",
        "attempt": restart + 1,
        "state": "COMPLETED" if state == "COMPLETED" else "FAILED",
        "node": "node",
        "pid": 7,
        "gpus": 1,
        "process_started": began,
        "started": "2026-01-01T00:00:00+00:00",
        "device": "cuda: NVIDIA H200",
        "wildcards": {"victim": "victim", "seed": task},
        "attacks": {},
        "partition": "gpu",
        "job_id": task,
        "job_name": name,
        "restart": restart,
        "elapsed_s": useful + 2.0,
        "useful_s": useful,
        "startup_s": 2.0,
        "cpu_s": 2.0 * useful,
        "mem_mb": 900.0,
        "device_minutes": useful / 60,
    }
    path = folder / STUDY / "records" / RULE / f"victim.{task}.{restart + 1}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2))


def journal_array(book: Journal, job: str, name: str, tasks: int) -> None:
    request = {"gpus": 1, "nodes": 1, "minutes": 60, "slurm_partition": "gpu"}
    submission = {"name": name, "rule": RULE, "attempt": 1, "cluster": "slurm", "request": json.dumps(request)}
    cell = {"cell": 0, "signature": "", "rule": RULE, "attempt": 1, "log": ""}
    cells = [
        cell
        | {"task": task, "key": f"{name}/{task}", "name": f"victim,{job}_{task}"}
        | {"outputs": [f"/project/{STUDY}/victim/seed{job}_{task}/model.safetensors"]}
        for task in range(tasks)
    ]
    book.intend(submission | {"folder": f"/jobs/{name}"}, cells)
    book.submitted(name, job, {task: f"{job}_{task}" for task in range(tasks)})


def run(command: list[str], folder: Path) -> tuple[str, float, float]:
    """What a command prints, its wall seconds and its CPU seconds."""
    environment = os.environ | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]}\n{done.stdout}{done.stderr}")
    return done.stdout, seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(name: str, value: float, unit: str) -> None:
    print(f"{name} {value:.5g} {unit}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
