"""What a submission asks sbatch for, and what becomes of one that fails: waited for where the cluster is to blame."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from snakemake_executor_plugin_submitit import slurm, submitter
from snakemake_executor_plugin_submitit.cluster import reach_cluster
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.requests import request_of
from snakemake_executor_plugin_submitit.sbatch_errors import Fault, fault_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.shared_files import read_json
from snakemake_executor_plugin_submitit.slurm import SlurmError, UnreadableError
from snakemake_executor_plugin_submitit.submission import log_of
from snakemake_executor_plugin_submitit.submitter import Ready, RejectedError, Submitter

FAILED = "sbatch: error: Batch job submission failed: "


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for SLURM: each call of sbatch takes the next line of `says` as its failure; without one it works."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "sacct", "srun", "scancel"):
        (folder / name).write_text("#!/bin/bash\n")
    (folder / "sbatch").write_text(
        f"""#!/bin/bash
printf '%s\\n' "$@" > {folder}/arguments
echo called >> {folder}/calls
said=$(sed -n "$(wc -l < {folder}/calls)p" {folder}/says 2>/dev/null)
[ -z "$said" ] || {{ printf "$said\\n" >&2; exit 1; }}
echo 12
"""
    )
    for path in folder.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "journal.sqlite")
    yield one
    one.close()


def submit(
    journal: Journal,
    settings: ExecutorSettings | None = None,
    cells: int = 1,
    arrays: bool = True,
    argv: Sequence[str] = ("true",),
    **resources: Any,
) -> list[Any]:
    """The rows of a rule's cells, each a task, and what was said meanwhile as the last of them."""
    settings, said = settings or ExecutorSettings(), []
    one = Submitter(settings, journal, journal.path.parent, said.append, arrays=arrays)
    request = request_of("cell", 1, {"mem_mb": 300, "runtime": 5} | resources, settings)
    job = SimpleNamespace(register=lambda: None)
    cell = {"key": "k", "signature": "s", "rule": "cell", "name": "n", "outputs": [], "attempt": 1, "log": "l"}
    ready = [Ready(job, cell, {"argv": list(argv), "env": {}}, request) for _ in range(cells)]
    return [*one.submit([[each] for each in ready]), said]


def options(journal: Journal) -> dict[str, str]:
    """The options in the script of the only submission."""
    (script,) = journal.path.parent.glob("jobs/*/sbatch.sh")
    lines = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    return {name: "".join(shlex.split(value)) for name, _, value in (line.partition("=") for line in lines)}


def test_a_script_asks_for_nothing_that_no_one_asked_for(sbatch: Path, journal: Journal) -> None:
    """What a site checks (account, partition, key, quality of service, licences) is left to it."""
    submit(journal, cells=2)
    own = {"job-name", "open-mode", "array", "signal", "requeue"}
    assert options(journal).keys() == own | {"nodes", "ntasks-per-node", "cpus-per-task", "mem", "time"}


@pytest.mark.parametrize("where", ["resource", "setting"])
def test_a_key_that_is_asked_for_is_handed_on(sbatch: Path, journal: Journal, where: str) -> None:
    if where == "resource":
        submit(journal, slurm_extra="--wckey=mine")
    else:
        submit(journal, ExecutorSettings(extra="--wckey mine"))
    assert options(journal)["wckey"] == "mine"


def test_where_there_are_no_arrays_a_task_is_a_job_by_itself(sbatch: Path, journal: Journal) -> None:
    """As MaxArraySize=0 has it."""
    row, _ = submit(journal, arrays=False)
    assert row["job_id"] == "12"
    assert "array" not in options(journal)
    (script,) = journal.path.parent.glob("jobs/*/sbatch.sh")
    (step,) = [line for line in script.read_text().splitlines() if line.startswith("srun ")]
    assert step.endswith(" 0 &"), "its number, which an array would tell"
    (output,) = [line for line in (sbatch / "arguments").read_text().splitlines() if line.startswith("--output=")]
    assert output.endswith("/%j_0_log.out")


def signalled(sbatch: Path, journal: Journal, program: str, early: bool) -> int:
    """The exit status of a batch script that got SIGUSR2 with its program at work, or before its step had begun."""
    folder = journal.path.parent
    step = 'while [[ $1 == --* ]]; do shift; done; [ ! -e later ] || sleep 2; exec "$@"'
    (sbatch / "srun").write_text(f"#!/bin/bash\n{step}\n")
    (sbatch / "scontrol").write_text(f'#!/bin/bash\necho "$@" > {folder}/asked\n')
    (sbatch / "scontrol").chmod(0o755)
    submit(journal, argv=["bash", "-c", program])
    (script,) = folder.glob("jobs/*/sbatch.sh")
    (folder / "later").touch() if early else None
    numbers = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0"}
    batch = subprocess.Popen(["bash", script], cwd=folder, env=os.environ | numbers)
    while not early and not (folder / "begun").exists():
        assert batch.poll() is None
        time.sleep(0.1)
    time.sleep(0.5)
    batch.send_signal(signal.SIGUSR2)
    return batch.wait(60)


@pytest.mark.parametrize("early", [True, False])
def test_a_signal_to_the_batch_script_reaches_the_program_that_listens(
    sbatch: Path, journal: Journal, tmp_path: Path, early: bool
) -> None:
    """SLURM may send it a minute early, before the step has begun; a shell can trap it, as it is not ignored."""
    signalled(
        sbatch, journal, "trap 'touch saved; exit 1' USR2; touch begun; for i in $(seq 300); do sleep 0.1; done", early
    )
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "asked").read_text().split() == ["requeue", "7"], "then it is to be started again"


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_of_a_program_that_never_listened_is_its_own(
    sbatch: Path, journal: Journal, tmp_path: Path, code: int
) -> None:
    """Though the batch script listens."""
    assert signalled(sbatch, journal, f"touch begun; sleep 3; exit {code}", early=False) == code
    (result,) = tmp_path.glob("jobs/*/0.0.json")
    assert read_json(result)["exit"] == code
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize(("most", "limit", "arrays"), [("0", 1, False), ("1", 1, True), ("1001", 1000, True)])
def test_the_cluster_says_how_long_an_array_may_be(sbatch: Path, most: str, limit: int, arrays: bool) -> None:
    (sbatch / "scontrol").write_text(f"#!/bin/bash\necho 'MaxArraySize = {most}'\n")
    (sbatch / "sinfo").write_text("#!/bin/bash\necho partition=cpu\n")
    for name in ("scontrol", "sinfo"):
        (sbatch / name).chmod(0o755)
    cluster = reach_cluster(ExecutorSettings(), None)
    assert (cluster.array_limit, cluster.arrays) == (limit, arrays)


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("/plain and spaced", "/plain and spaced/%A_%a_0_log.out"),
        ("/100%a %% %j", "/100%%a %%%% %%j/%A_%a_0_log.out"),
        ('/it\'s "$HOME"', '/it\'s "$HOME"/%A_%a_0_log.out'),
    ],
)
def test_a_projects_path_is_no_pattern(folder: str, pattern: str) -> None:
    assert log_of(Path(folder), True) == (pattern, "")


@pytest.mark.parametrize("folder", ["back\\slash %a", "line\nbreak"])
def test_a_path_that_sbatch_cannot_take_is_left_to_the_shell(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    pattern, redirection = log_of(tmp_path / folder, True)
    assert pattern == "/dev/null"
    numbers = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    subprocess.run(["bash", "-c", f"echo here {redirection}"], env=os.environ | numbers, check=True)
    assert (tmp_path / folder / "7_3_0_log.out").read_text() == "here\n"


@pytest.mark.parametrize(
    "said",
    [
        *("Unexpected message received", "Socket timed out on send/recv operation", "Message receive failure"),
        *("Unable to contact slurm controller (connect failure)", "Rate limit exceeded, please retry momentarily"),
        *(
            "Zero Bytes were transmitted or received",
            "Slurm backup controller in standby mode",
            "Insane message length",
        ),
        *("Unable to create job record, try again", "MaxJobCount limit reached", "Requested nodes are busy"),
        *("Resource temporarily unavailable", "Protocol authentication error", "System submissions disabled"),
        *("Slurm internal error, contact system administrator", "I/O error writing script/environment to file"),
        *("Transport endpoint is not connected", "No route to host", "Cannot allocate memory"),
    ],
)
def test_a_cluster_that_is_busy_or_away_is_waited_for(said: str) -> None:
    assert fault_of(f"sbatch: {FAILED}{said}") is Fault.CLUSTER


@pytest.mark.parametrize(
    "said",
    [
        *("Invalid partition name specified", "Invalid account or account/partition combination specified"),
        *("Requested node configuration is not available", "Invalid qos specification", "Access/permission denied"),
        *("Invalid generic resource (gres) specification", "Invalid wckey specification", "Job dependency problem"),
        *(
            "Requested time limit is invalid (missing or exceeds some limit)",
            "More processors requested than permitted",
        ),
        *(
            "Memory required by task is not available",
            "Invalid job array specification",
            "Invalid license specification",
        ),
        *("User's group not permitted to use this partition", "Invalid feature specification"),
        "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_what_speaks_of_the_request_is_final(said: str) -> None:
    assert fault_of(f"sbatch: {FAILED}{said}") is Fault.REQUEST


def test_a_sites_own_words_before_the_failure_are_of_the_request_and_slurms_own_are_not() -> None:
    final = f"{FAILED}Unspecified error"
    assert fault_of(f"sbatch: {final}") is Fault.UNKNOWN
    assert fault_of(f"sbatch: sbatch: error: Ask your project's head first.\n{final}") is Fault.REQUEST
    assert fault_of(f"sbatch: sbatch: error: slurm_persist_open: something went wrong\n{final}") is Fault.UNKNOWN
    assert fault_of("sbatch: status 1") is Fault.UNKNOWN
    assert fault_of("sbatch: sbatch: unrecognized option '--parsable'") is Fault.REQUEST


@pytest.mark.parametrize(
    "said", ["Unexpected message received", "A word that no one has heard", "Message send failure"]
)
def test_a_submission_goes_through_once_the_cluster_does_not_fail(
    sbatch: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(submitter.time, "sleep", lambda seconds: None)
    (sbatch / "says").write_text(f"{FAILED}{said}\n" * 2)
    row, told = submit(journal)
    assert row["job_id"] == "12_0"
    assert (sbatch / "calls").read_text() == "called\n" * 3
    assert all(f"{said}; trying again" in line for line in told)


def test_what_no_one_knows_is_given_up_after_a_while_and_said(
    sbatch: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitter.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(submitter, "UNKNOWN_S", 0.5)
    (sbatch / "says").write_text(f"{FAILED}A word that no one has heard\n" * 200)
    with pytest.raises(RejectedError, match="A word that no one has heard"):
        submit(journal)


def test_a_request_that_is_refused_is_not_asked_again(sbatch: Path, journal: Journal) -> None:
    (sbatch / "says").write_text(f"sbatch: error: Name your project.\\n{FAILED}Unspecified error\n")
    with pytest.raises(RejectedError, match="Name your project"):
        submit(journal)
    assert (sbatch / "calls").read_text() == "called\n"


def test_a_job_without_a_number_is_never_asked_for_again() -> None:
    assert UnreadableError("sbatch: try again").fault is Fault.REQUEST
    assert SlurmError("squeue: try again").transient
    assert slurm.SlurmError("QOSMaxSubmitJobPerUserLimit").fault is Fault.FULL
