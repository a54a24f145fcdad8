"""What sites and users set: banners on standard output, SBATCH_* and SQUEUE_*, an allocation around the controller."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from snakemake_executor_plugin_submitit import cancel, slurm
from snakemake_executor_plugin_submitit.sbatch_defaults import minutes_of, with_defaults
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import SlurmError, UnreadableError
from test_submitit_local import SNAKEMAKE

BANNER = "-----\n   Welcome to the Example Supercomputer 2\n--> Verifying your 3 home dirs...OK"
GROUP = """
rule all:
    input: "b.txt"
rule a:
    output: "a.txt"
    group: "g"
    shell: "echo a > {output}"
rule b:
    input: "a.txt"
    output: "b.txt"
    group: "g"
    shell: "echo WENT-$((40+2))-WRONG >&2; exit 3"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder first on PATH, for commands of a site's own."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def prints(site: Path, command: str, text: str) -> None:
    """A command that prints a text, and says in `COMMAND.env` in what environment."""
    path = site / command
    path.write_text(f"#!/bin/bash\nenv > {site}/{command}.env\nprintf '%s\\n' {shlex.quote(text)}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("answer", ["123", "123;cluster-1", "  123  "])
def test_the_number_of_a_job_is_the_line_that_is_one(site: Path, answer: str) -> None:
    prints(site, "sbatch", f"{BANNER}\n{answer}")
    assert slurm.sbatch("x.sh", "out") == "123"
    prints(site, "sbatch", f"{answer}\n{BANNER}")
    assert slurm.sbatch("x.sh", "out") == "123"


@pytest.mark.parametrize("answer", ["", "Submitted batch job 123", "12 3", "123\n124", "123;"])
def test_without_such_a_line_it_is_said_and_never_tried_again(site: Path, answer: str) -> None:
    prints(site, "sbatch", f"{BANNER}\n{answer}")
    with pytest.raises(UnreadableError, match="expected one line that is the number of a job") as error:
        slurm.sbatch("x.sh", "out")
    assert not error.value.transient


def test_a_banner_before_other_answers_is_no_job_and_no_partition(site: Path) -> None:
    for command, text in {"squeue": "77", "sacct": "78_3", "sinfo": "partition=gpu\npartition=cpu"}.items():
        prints(site, command, f"{BANNER}\n{text}")
    assert slurm.find("name", time.time()) == "77"
    prints(site, "squeue", BANNER)
    assert slurm.find("name", time.time()) == "78"
    prints(site, "sacct", BANNER)
    assert slurm.find("name", time.time()) is None
    assert slurm.partitions() == ["cpu", "gpu"]
    prints(site, "squeue", f"{BANNER}\n5_1|RUNNING|n1|None|r-1")
    assert set(slurm.squeue()) == {"5_1"}


def test_a_run_whose_sbatch_names_no_job_stops_at_once_and_leaves_none(site: Path) -> None:
    (site / "Snakefile").write_text('rule all:\n    input: ["1", "2"]\n')
    with (site / "Snakefile").open("a") as file:
        file.write('for i in (1, 2):\n    rule:\n        name: f"r{i}"\n        output: f"{i}"\n        shell: "x"\n')
    for command, text in {"squeue": "", "sacct": "", "scancel": "", "srun": "", "sbatch": f"{BANNER} 5"}.items():
        prints(site, command, text)
    prints(site, "sinfo", "partition=gpu")
    prints(site, "scontrol", "MaxArraySize = 100")
    with (site / "sbatch").open("a") as file:
        file.write(f"echo called >> {site}/calls\n")
    with (site / "scancel").open("a") as file:
        file.write(f'echo "$@" >> {site}/cancelled\n')
    done = snakemake(site, "slurm", "--keep-going")
    assert done.returncode == 1
    assert "expected one line that is the number of a job" in done.stdout
    assert (site / "calls").read_text() == "called\n", "nothing more is submitted"
    assert "--name=r" in (site / "cancelled").read_text()


def test_the_users_formats_change_no_call_but_reach_the_job(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["SQUEUE_FORMAT", "SACCT_FORMAT", "SCANCEL_INTERACTIVE", "SINFO_SORT"]
    overriding = ["SBATCH_PARTITION", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT", "SALLOC_X", "SRUN_X"]
    for name in [*names, *overriding, "SLURM_CONF", "OTHER"]:
        monkeypatch.setenv(name, "x")
    for command in ("squeue", "sbatch"):
        prints(site, command, "1")
    slurm.squeue()
    slurm.sbatch("x.sh", "out")

    def seen_by(command: str) -> set[str]:
        lines = (site / f"{command}.env").read_text().splitlines()
        return {line.split("=")[0] for line in lines} & {*names, *overriding, "SLURM_CONF", "OTHER"}

    assert seen_by("squeue") == {"SLURM_CONF", "OTHER"}
    assert seen_by("sbatch") == {"SLURM_CONF", "OTHER", *names}


def test_sbatchs_defaults_of_the_user_stand_in_where_nothing_else_is_said() -> None:
    given = {
        "SBATCH_PARTITION": "theirs", "SBATCH_ACCOUNT": "a", "SBATCH_QOS": "q", "SBATCH_CONSTRAINT": "c",
        "SBATCH_TIMELIMIT": "7", "SBATCH_RESERVATION": "r 1", "SBATCH_EXCLUSIVE": "", "SBATCH_MEM_PER_NODE": "5",
        "SLURM_TIME_FORMAT": "%s",
    }  # fmt: skip
    defaults = with_defaults(ExecutorSettings(partition="mine", extra="--hint=x"), given)
    settings = defaults.settings
    assert (settings.partition, settings.account, settings.qos, settings.constraint) == ("mine", "a", "q", "c")
    assert shlex.split(settings.extra or "") == ["--reservation=r 1", "--exclusive", "--hint=x"]
    assert defaults.minutes == 7
    assert defaults.ignored == ("SBATCH_MEM_PER_NODE",)


@pytest.mark.parametrize(
    ("given", "clusters"),
    [
        ({"SLURM_CLUSTERS": "alpha,beta"}, "alpha,beta"),
        ({"SLURM_CLUSTERS": "alpha", "SBATCH_CLUSTERS": "beta"}, "beta"),
        ({}, None),
    ],
)
def test_clusters_of_the_users_environment_are_a_default(given: dict[str, str], clusters: str | None) -> None:
    defaults = with_defaults(ExecutorSettings(), given)
    assert (defaults.settings.clusters, defaults.ignored) == (clusters, ())
    assert with_defaults(ExecutorSettings(clusters="mine"), given).settings.clusters == "mine"


@pytest.mark.parametrize("where", [{"SLURM_JOB_ID": "1"}, None])
def test_within_a_job_and_on_one_machine_they_are_none_of_ours(where: dict[str, str] | None) -> None:
    cluster = "slurm" if where else "local"
    settings = ExecutorSettings(cluster=cluster)
    defaults = with_defaults(settings, {"SBATCH_PARTITION": "x", "SBATCH_NO_SUCH": "y"} | (where or {}))
    assert (defaults.settings.partition, defaults.ignored) == (None, ())


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("7", 7), ("1:30", 2), ("2:00:00", 120), ("1-12", 2160), ("1-0:30", 1470), ("UNLIMITED", None), ("", None)],
)
def test_time_limits_as_sbatch_takes_them(text: str, minutes: int | None) -> None:
    assert minutes_of(text) == minutes


def test_a_time_limit_that_cannot_be_read_is_named() -> None:
    assert with_defaults(ExecutorSettings(), {"SBATCH_TIMELIMIT": "UNLIMITED"}).ignored == ("SBATCH_TIMELIMIT",)


def snakemake(folder: Path, cluster: str, *args: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [SNAKEMAKE, "--executor", "submitit", "--submitit-cluster", cluster, "--jobs", "4", "--nolock", *args]
    command += ["--seconds-between-status-checks", "1", "--scheduler", "greedy"]
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("cluster", ["debug", "local"])
def test_a_job_that_saves_on_sigusr2_never_requeues_the_allocation_around_it(site: Path, cluster: str) -> None:
    """Here the job sends the signal to its task itself; the second start finds what the first has saved."""
    prints(site, "scontrol", "")
    saving = "import os, pathlib, signal, sys, time; saved = pathlib.Path('saved')\n"
    saving += "if saved.exists(): sys.exit(0)\n"
    saving += "signal.signal(signal.SIGUSR2, lambda *_: (saved.touch(), os._exit(1)))\n"
    saving += "os.kill(int(os.environ['TASK']), signal.SIGUSR2); time.sleep(60)\n"
    (site / "save.py").write_text(saving)
    find_task = "export TASK=$(pgrep -o -f 'snakemake_executor_plugin_submitit.task {folder}')"
    rule = "rule make:\n    output: 'a.txt'\n    resources: runtime=5\n"
    rule += "    shell: '''{find}; {python} save.py; touch a.txt'''"
    find = find_task.format(folder=f"{site}/.submitit")
    (site / "Snakefile").write_text(rule.format(find=find, python=f"set -e; {sys.executable}"))
    done = snakemake(
        site, cluster, SLURM_JOB_ID="4711", SLURM_NTASKS="1", SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID="0"
    )
    assert done.returncode == 0, done.stdout
    assert (site / "saved").exists()
    assert not (site / "scontrol.env").exists(), "SLURM was asked to requeue the user's own allocation"


def test_a_failing_group_says_why(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(GROUP)
    done = snakemake(tmp_path, "local")
    assert done.returncode == 1
    assert "WENT-42-WRONG" in done.stdout, "the end of the log"
    assert "FAILED (exit status 1)" in done.stdout, "state and reason"
    assert done.stdout.count("message: in a group that failed: a+b") == 2, "for each of its rules"


def test_a_refused_group_says_why(tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(GROUP.replace('    shell: "echo a', '    resources: gpu=5\n    shell: "echo a'))
    done = snakemake(tmp_path, "local", "--submitit-gpus", "1")
    assert done.returncode == 1
    assert "resource gpu=5 " in done.stdout
    assert "this machine has 1 GPUs to hand out" in done.stdout


def test_a_number_that_is_another_process_by_now_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(cancel.os, "killpg", lambda group, number: sent.append(group))
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    created = psutil.Process(child.pid).create_time()
    for job_id in (f"{child.pid}:{created - 100}", "debug-5", f"{child.pid}"):
        cancel.cancel(False, [{"job_id": job_id}], None)  # type: ignore[arg-type]
    assert sent == []
    cancel.cancel(False, [{"job_id": f"{child.pid}:{created}"}], None)  # type: ignore[arg-type]
    assert sent == [child.pid]
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_other_errors_of_sbatch_are_as_before(site: Path) -> None:
    path = site / "sbatch"
    path.write_text("#!/bin/bash\necho 'sbatch: error: Unable to contact slurm controller' >&2; exit 1\n")
    path.chmod(0o755)
    with pytest.raises(SlurmError) as error:
        slurm.sbatch("x.sh", "out")
    assert error.value.transient
