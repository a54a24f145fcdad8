"""A stand-in for SLURM's commands on a site of three clusters: `home`, the default one, `alpha` and `beta`.

Each counts its jobs from 12 on, so that numbers collide. `down` names clusters whose controllers do not answer;
accounting answers all the same. `says` replaces what sbatch prints; with `fails` it loses its answer. With `runs`, a
job runs here.
"""

import json
import os
import shlex
import sys
from itertools import dropwhile
from pathlib import Path
from typing import Any

COMMANDS = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr", "srun")
PARTITIONS = {"home": ["cpu"], "alpha": ["cpu", "gpu"], "beta": ["cpu", "long"]}
MOST = {"home": 1001, "alpha": 101, "beta": 11}


class Site:
    """The folder that the stand-ins live in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def make(cls, folder: Path) -> "Site":
        folder.mkdir()
        for name in COMMANDS:
            lines = [f"#!{sys.executable} -IS", "import sys", f"sys.path.insert(0, {str(Path(__file__).parent)!r})"]
            lines += ["from two_clusters import main", f"main({str(folder)!r}, {name!r}, sys.argv[1:])"]
            (folder / name).write_text("\n".join(lines) + "\n")
            (folder / name).chmod(0o755)
        return cls(folder)

    def read(self, name: str) -> list[Any]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add(self, name: str, value: Any) -> None:
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(value) + "\n")

    def calls(self, *commands: str) -> list[str]:
        """The command lines so far, of these commands alone if any are named."""
        lines = self.read("calls")
        return [shlex.join(line) for line in lines if not commands or line[0] in commands]

    def take_down(self, *names: str) -> None:
        (self.folder / "down").write_text(json.dumps(names) + "\n")

    def job(self, cluster: str, name: str, state: str = "RUNNING", number: int = 12, tasks: int = 1) -> None:
        """A job that the cluster has."""
        self.add("jobs", {"cluster": cluster, "number": number, "name": name, "state": state, "tasks": tasks})

    def cancelled(self) -> list[str]:
        """Arguments of every order to cancel that was taken."""
        return [shlex.join(line) for line in self.read("cancelled")]


def main(folder: str, command: str, arguments: list[str]) -> None:
    if command == "srun":  # a step, on a node
        step = list(dropwhile(lambda word: word.startswith("--"), arguments))
        os.execvp(step[0], step)
    site = Site(Path(folder))
    site.add("calls", [command, *arguments])
    cluster = arguments[arguments.index("-M") + 1] if "-M" in arguments else "home"
    if command == "sacctmgr":
        print("\n".join(sorted(PARTITIONS)))
        return
    if cluster not in PARTITIONS:
        sys.exit(f"{command}: error: '{cluster}' can't be reached now, or it is an invalid entry for --cluster.")
    down = (site.read("down") or [[]])[-1]
    if command == "sbatch":
        submit(site, arguments, down)
    elif command == "sacct":
        account(site, cluster, arguments)
    elif cluster in down:
        sys.exit(f"{command}: error: Unable to contact slurm controller (connect failure)")
    elif command == "scancel":
        site.add("cancelled", arguments)
    elif command == "sinfo":
        print(f"CLUSTER: {cluster}", *(f"partition={name}" for name in PARTITIONS[cluster]), sep="\n")
    elif command == "scontrol" and "config" in arguments:
        print(f"MaxArraySize = {MOST[cluster]}\nKillWait = {10 + MOST[cluster]} sec\nSlurmdTimeout = 0 sec")
    elif command == "squeue":
        queue(site, cluster, arguments)


def option(script: str, name: str) -> str:
    values = [line.split("=", 1)[1] for line in script.splitlines() if line.startswith(f"#SBATCH --{name}=")]
    return "".join(shlex.split(values[0])) if values else ""


def submit(site: Site, arguments: list[str], down: list[str]) -> None:
    script = Path(arguments[-1]).read_text()
    asked = option(script, "clusters").split(",")
    up = [name for name in asked if name not in down]
    if not up:
        sys.exit("sbatch: error: Can't run on any of the specified clusters")
    cluster = up[0] or "home"
    number = 12 + sum(job["cluster"] == cluster for job in site.read("jobs"))
    tasks = 1 + int(option(script, "array").split("-")[1].split("%")[0] or 0)
    site.job(cluster, option(script, "job-name"), number=number, tasks=tasks)
    if (site.folder / "runs").exists():
        for task in range(tasks):
            run(arguments[-1], cluster, number, task)
    if (site.folder / "fails").exists():
        sys.exit("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    says = (site.folder / "says").read_text() if (site.folder / "says").exists() else ""
    print(says or (f"{number};{cluster}" if up[0] else number))


def run(script: str, cluster: str, number: int, task: int) -> None:
    """One start of a job's task."""
    import subprocess  # half of what a stand-in's start would cost

    own = {"SLURM_JOB_ID": str(1000 + task), "SLURM_ARRAY_JOB_ID": str(number), "SLURM_ARRAY_TASK_ID": str(task)}
    environment = os.environ | own | {"SLURM_CLUSTER_NAME": cluster}
    subprocess.Popen(
        ["bash", script], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def queue(site: Site, cluster: str, arguments: list[str]) -> None:
    print(f"CLUSTER: {cluster}")
    for job in site.read("jobs"):
        if job["cluster"] != cluster:
            continue
        if "--name" in arguments:
            if arguments[arguments.index("--name") + 1] == job["name"]:
                print(job["number"])
            continue
        for task in range(job["tasks"]):
            print(f"{job['number']}_{task}|{job['state']}|n1|None|{job['name']}")


def account(site: Site, cluster: str, arguments: list[str]) -> None:
    """What `accounts` holds of a cluster: lists of the cluster's name and a line."""
    for name, line in site.read("accounts"):
        if name == cluster:
            print(line)
