"""Several clusters: each job is submitted, watched, ended and found again on its own, whatever its number is."""

import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit import slurm, status, submitter
from snakemake_executor_plugin_submitit.cancel import cancel, cancel_all
from snakemake_executor_plugin_submitit.cluster import NamedClusters, reach_cluster
from snakemake_executor_plugin_submitit.fencing import Start, run_file
from snakemake_executor_plugin_submitit.gpu_usage import GpuUsage
from snakemake_executor_plugin_submitit.job_ids import cluster_of, index_of, number_of, submission_of, tasks_of
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.own_job import job_id
from snakemake_executor_plugin_submitit.requests import request_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.slurm import SlurmError, UnreadableError
from snakemake_executor_plugin_submitit.status import Outcome, Watch
from snakemake_executor_plugin_submitit.submission import unique_name
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter
from snakemake_executor_plugin_submitit.task import Task
from test_submitit_local import SNAKEMAKE
from two_clusters import Site

LOGGER = logging.getLogger("clusters")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = Site.make(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(submitter.time, "sleep", lambda seconds: None)
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path / "journal.sqlite")
    yield one
    one.close()


def submitter_of(journal: Journal, settings: ExecutorSettings | None = None) -> Submitter:
    made = Submitter(settings or ExecutorSettings(), journal, journal.path.parent, lambda text: None)
    made.named = NamedClusters(made.settings, LOGGER).of
    return made


def ready(count: int, settings: ExecutorSettings | None = None, **resources: Any) -> list[Ready]:
    request = request_of("cell", 1, resources, settings or ExecutorSettings())
    cell = {"key": "k", "signature": "s", "rule": "cell", "name": "n", "outputs": [], "attempt": 1, "log": "l"}
    job = SimpleNamespace(register=lambda: None)
    return [Ready(job, cell, {"argv": ["true"], "env": {}}, request) for _ in range(count)]


def submit(journal: Journal, cells: int = 1, settings: ExecutorSettings | None = None, **resources: Any) -> list[Any]:
    return submitter_of(journal, settings).submit([[one] for one in ready(cells, settings, **resources)])


def look(*rows: dict[str, Any], lost_after: float = 0, **more: Any) -> dict[int, Outcome]:
    return Watch("slurm", 0, lost_after, **more).poll(list(rows))


@pytest.mark.parametrize(
    ("job", "parts"),
    [("12", ("12", "", "12", 0)), ("12_4", ("12_4", "", "12", 4)), ("12_4;a-1", ("12_4", "a-1", "12;a-1", 4))],
)
def test_an_id_has_a_number_a_cluster_an_array_and_a_place_in_it(job: str, parts: tuple[str, str, str, int]) -> None:
    assert (number_of(job), cluster_of(job), submission_of(job), index_of(job)) == parts
    assert job in tasks_of(submission_of(job), 5, arrays="_" in job)


def test_without_clusters_every_command_is_as_it_was(site: Site, journal: Journal) -> None:
    reach_cluster(ExecutorSettings(), LOGGER)
    (row,) = submit(journal)
    name, day = row["submission"], time.strftime("%Y-%m-%d")
    watch = Watch("slurm", 0, 0)
    watch.poll([row])
    (site.folder / "jobs").write_text("")
    watch.poll([row])
    slurm.find(name, 0)
    cancel(True, [row], LOGGER, {name: []})
    slurm.release(["12_0"])
    GpuUsage(0, 0, print).attempts([{"cluster": "slurm", "submission": name, "intended": 0, "request": {}}])
    assert row["job_id"] == "12_0"
    script = f"{row['folder']}/sbatch.sh"
    assert "--clusters" not in Path(script).read_text()
    calls = [" ".join("TIME" if word.startswith((day, "1970-01-01", "1969")) else word for word in call)
             for call in site.read("calls")]  # fmt: skip
    state, attempt = "JobID,State,NodeList,Reason,JobName", "JobID,Submit,Start,End,State,ElapsedRaw,AllocTRES,JobName"
    assert calls == [
        "scontrol show config",
        "sinfo -h -a -o partition=%R",
        f"sbatch --parsable --output={row['folder']}/%A_%a_0_log.out {script}",
        "squeue --me -h -r -t all -o %i|%T|%N|%r|%j",
        "squeue --me -h -r -t all -o %i|%T|%N|%r|%j",
        f"sacct -X -D -n -P -S TIME -j 12 -o {state}",
        f"squeue --me -h -t all --name {name} -o %F",
        f"sacct -X -n -P -S TIME --name {name} -o JobID",
        "scancel --quiet 12_0",
        f"scancel --quiet --name={name}",
        "scontrol release 12_0",
        f"sacct -X -D -n -P -S TIME --name={name} -o {attempt}",
    ]


@pytest.mark.parametrize(
    ("asked", "setting", "down", "ids", "handed_on"),
    [
        ("beta", None, [], ["12_0;beta", "12_1;beta"], "beta"),
        ("Alpha, beta", None, [], ["12_0;alpha", "12_1;alpha"], "alpha,beta"),
        ("alpha,beta", None, ["alpha"], ["12_0;beta", "12_1;beta"], "alpha,beta"),
        (None, "beta", [], ["12_0;beta", "12_1;beta"], "beta"),
        ("alpha", "beta", [], ["12_0;alpha", "12_1;alpha"], "alpha"),
        ("", "beta", [], ["12_0", "12_1"], None),
    ],
)
def test_a_job_is_called_by_the_cluster_that_took_it_where_one_was_asked_for(
    site: Site,
    journal: Journal,
    asked: str | None,
    setting: str | None,
    down: list[str],
    ids: list[str],
    handed_on: str | None,
) -> None:
    site.take_down(*down)
    resources = {} if asked is None else {"clusters": asked}
    rows = submit(journal, 2, ExecutorSettings(clusters=setting), **resources)
    assert [row["job_id"] for row in rows] == [row["job_id"] for row in journal.open_cells()] == ids
    asks = [line for line in Path(rows[0]["folder"], "sbatch.sh").read_text().splitlines() if "--clusters" in line]
    assert asks == ([f"#SBATCH --clusters={handed_on}"] if handed_on else [])
    task = Task.load(Path(rows[0]["folder"]), 0)
    assert task.clusters == (handed_on.split(",") if handed_on else [])


def test_sbatch_must_say_which_of_several_it_took(site: Site, journal: Journal) -> None:
    (site.folder / "says").write_text("12")
    assert submit(journal, clusters="beta")[0]["job_id"] == "12_0;beta", "there is but one"
    with pytest.raises(UnreadableError, match="expected `123;cluster` with one of alpha, beta, got '12'"):
        submit(journal, clusters="alpha,beta")
    assert [line.split("--name")[0] for line in site.cancelled()] == ["-M alpha --quiet ", "-M beta --quiet "]


def test_jobs_of_one_number_on_two_clusters_are_two_jobs(
    site: Site, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "FILE_LATENCY_S", 0.0)
    rows = [submit(journal, clusters=name)[0] for name in ("alpha", "beta")]
    rows += submit(journal)
    assert [row["job_id"] for row in rows] == ["12_0;alpha", "12_0;beta", "12_0"]
    (site.folder / "jobs").write_text("")
    for row, cluster, state in zip(rows, ("alpha", "beta", "home"), ("RUNNING", "TIMEOUT", "PENDING"), strict=True):
        site.job(cluster, row["submission"], state)
    outcomes = look(*rows)
    found = [(outcomes[row["id"]].state, outcomes[row["id"]].ended) for row in rows]
    assert found == [("RUNNING", False), ("TIMEOUT", True), ("PENDING", False)]
    assert site.calls("squeue") == [
        f"squeue {where}--me -h -r -t all -o '%i|%T|%N|%r|%j'" for where in ("-M alpha ", "-M beta ", "")
    ], "once each"
    for cluster, state in (("alpha", "COMPLETED"), ("beta", "OUT_OF_MEMORY")):
        for row in rows:  # each cluster has had jobs of all these names and numbers
            site.add("accounts", [cluster, f"12_0|{state}|n1|None|{row['submission']}"])
    (site.folder / "jobs").write_text("")
    states = [outcome.reason for outcome in look(*rows[:2]).values()]
    assert states[0].startswith("SLURM says COMPLETED") and "memory" in states[1]


def test_a_cluster_that_does_not_answer_loses_no_job_and_stops_no_other(
    site: Site, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "FILE_LATENCY_S", 0.0)
    there, here = (submit(journal, clusters=name)[0] for name in ("alpha", "beta"))
    (site.folder / "jobs").write_text("")
    site.take_down("alpha")
    said: list[str] = []
    watch = Watch("slurm", 0, 0, say=said.append)
    for _ in range(3):
        outcomes = watch.poll([there, here])
        assert outcomes.keys() == {here["id"]}, "forgotten by a cluster that answers"
        assert outcomes[here["id"]].lost
    assert [line.partition(":")[0] for line in said] == ["squeue has failed for 0 s on cluster alpha"]
    patient = look(there, here, lost_after=60, say=said.append)
    assert (patient, len(said)) == ({}, 1)
    site.add("accounts", ["alpha", f"12_0|TIMEOUT|n1|None|{there['submission']}"])
    assert watch.poll([there])[there["id"]].state == "TIMEOUT", "accounting knows"
    site.take_down()
    site.job("alpha", there["submission"], "PENDING")
    assert not watch.poll([there])[there["id"]].ended
    assert watch.failing_since == {}


def test_cancelling_asks_each_cluster_and_says_how_to_do_the_rest(
    site: Site, journal: Journal, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [submit(journal, clusters=name)[0] for name in ("alpha", "beta")] + submit(journal)
    assert cancel(True, rows, LOGGER)
    assert sorted(site.cancelled()) == ["--quiet 12_0", "-M alpha --quiet 12_0", "-M beta --quiet 12_0"]
    site.take_down("alpha")
    assert not cancel(True, rows, LOGGER)
    assert sorted(site.cancelled())[1:3] == ["--quiet 12_0", "-M alpha --quiet 12_0"], "no second time there"
    assert len(site.cancelled()) == 5
    assert "By hand: scancel 12_0; scancel -M alpha 12_0; scancel -M beta 12_0" in caplog.text
    assert not cancel(True, [], LOGGER, {"a-name": ["alpha", "beta"]})
    assert "By hand: scancel -M alpha --name=a-name; scancel -M beta --name=a-name" in caplog.text


def intend(journal: Journal, clusters: str, cells: int = 2) -> str:
    """A submission whose controller was killed before sbatch had answered."""
    name = unique_name("cell")
    folder = journal.path.parent / name
    folder.mkdir()
    asked = {"slurm_additional_parameters": {"clusters": clusters} if clusters else {}, "arrays": True}
    submission = {"name": name, "rule": "cell", "attempt": 1, "cluster": "slurm", "request": json.dumps(asked)}
    rows = [{"task": task, "cell": 0, "key": name, "rule": "cell", "outputs": []} for task in range(cells)]
    journal.intend(submission | {"folder": str(folder)}, rows)
    return name


def test_a_submission_that_was_cut_short_is_found_on_the_cluster_that_took_it(
    site: Site, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitter, "GHOST_S", 0)
    name = intend(journal, "alpha,beta")
    site.job("beta", name, tasks=2)
    site.take_down("alpha")
    assert [row["job_id"] for row in submitter_of(journal).recover()] == ["12_0;beta", "12_1;beta"]
    lost = intend(journal, "beta")
    assert [row["submission"] for row in submitter_of(journal).recover()] == [name] * 2, "its cluster has no such job"
    assert "revoked" in run_file(journal.path.parent / lost, 0, 1).read_text()


def test_while_a_cluster_may_have_a_submission_it_is_not_given_up(site: Site, journal: Journal) -> None:
    name = intend(journal, "alpha,beta")
    site.take_down("alpha")
    with pytest.raises(SlurmError) as error:
        submitter_of(journal).recover()
    assert error.value.transient
    assert not list((journal.path.parent / name).iterdir()), "its tasks may start"
    cancel_all(True, [], journal, LOGGER)
    assert site.cancelled() == [f"-M beta --quiet --name={name}"]
    assert [row["state"] for row in journal.open_cells()] == ["INTENDED"] * 2


def test_a_submission_that_seemed_to_fail_is_looked_for_on_each_cluster(site: Site, journal: Journal) -> None:
    """sbatch loses its answer after beta has taken the job."""
    (site.folder / "fails").touch()
    site.take_down("alpha")
    one, said = submitter_of(journal), list[str]()
    one.say = lambda text: (said.append(text), site.take_down())[0]
    (row,) = one.submit([ready(1, clusters="alpha,beta")])
    assert row["job_id"] == "12_0;beta"
    assert said[1:] == [f"{row['submission']}: had been submitted after all, as job 12;beta"]
    assert len(site.calls("sbatch")) == 1


def test_a_task_calls_itself_what_the_journal_does_over_requeues(
    site: Site, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = submit(journal, clusters="alpha,beta")
    folder = Path(row["folder"])
    for name, value in {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0", "SLURM_CLUSTER_NAME": "Alpha"}.items():
        monkeypatch.setenv(name, value)
    task = Task.load(folder, 0)
    assert task.start.job_id == job_id(task.clusters) == row["job_id"] == "12_0;alpha"
    assert job_id() == "12_0", "where no one asked for a cluster"
    assert task.start.take()
    task.start.end()
    assert Start(folder, 0, job_id(task.clusters)).take(), "a requeue"
    assert look(row)[row["id"]].columns == {}, "it is no other job than the journal's"
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "beta")
    assert not Start(folder, 0, job_id(task.clusters)).take(), "a job of the same number on another cluster"
    monkeypatch.delenv("SLURM_CLUSTER_NAME")
    assert job_id(["beta"]) == "12_0;beta"
    with pytest.raises(RuntimeError, match="SLURM_CLUSTER_NAME is not set"):
        job_id(["alpha", "beta"])


def test_where_jobs_run_and_on_which_cluster_are_two_settings() -> None:
    with pytest.raises(WorkflowError, match=r"--submitit-cluster: 'alpha', expected slurm .* --submitit-clusters$"):
        ExecutorSettings(cluster="alpha")
    with pytest.raises(WorkflowError, match="--submitit-clusters: 'alpha;beta': expected the name of a cluster"):
        ready(1, ExecutorSettings(clusters="alpha;beta"))
    assert ready(1, ExecutorSettings(cluster="local", clusters="alpha"))[0].request.clusters == []


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (
            {"clusters": "alhpa"},
            ", resource clusters: 'alhpa' does not exist, expected one of alpha, beta, home; did you mean alpha?",
        ),
        ({"clusters": "alpha,nope"}, ", resource clusters: 'nope' does not exist, expected one of alpha, beta, home"),
        (
            {"clusters": "alpha", "slurm_partition": "gpus"},
            ": partition 'gpus' does not exist on alpha, expected one of cpu, gpu; did you mean gpu?",
        ),
        (
            {"clusters": "alpha,beta", "slurm_partition": "x"},
            ": partition 'x' does not exist on alpha or beta, expected one of cpu, gpu, long",
        ),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(site: Site, resources: dict[str, Any], said: str) -> None:
    named = NamedClusters(ExecutorSettings(), LOGGER)
    with pytest.raises(WorkflowError) as error:
        named.check("cell", ready(1, **resources)[0].request)
    assert str(error.value) == f"rule cell{said}" and "\n" not in str(error.value)
    assert not site.calls("sbatch")


def unreachable(name: str) -> dict[str, str]:
    raise SlurmError("scontrol: Unable to contact slurm controller")


def test_each_cluster_is_asked_once_and_the_least_that_any_allows_counts(
    site: Site, journal: Journal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = submitter_of(journal)
    named = NamedClusters(one.settings, LOGGER)
    one.named = named.of
    for names in ("alpha", "alpha,beta", "beta", "alpha"):
        named.check("cell", ready(1, clusters=names, slurm_partition="cpu")[0].request)
    assert sorted(site.calls()) == [
        "sacctmgr -n -P list clusters format=cluster",
        *(f"scontrol -M {name} show config" for name in ("alpha", "beta")),
        *(f"sinfo -M {name} -h -a -o partition=%R" for name in ("alpha", "beta")),
    ]
    sizes = {names: [len(part) for part in one.chunks(ready(25, clusters=names))] for names in ("alpha", "alpha,beta")}
    assert sizes == {"alpha": [25], "alpha,beta": [11, 11, 3]}
    assert named.overrun_s == 111
    site.take_down("beta")
    other = NamedClusters(one.settings, LOGGER)
    assert other.of(["alpha", "beta"]).array_limit == 101
    assert "what the other clusters have is all that is checked" in caplog.text
    monkeypatch.setattr(slurm, "config", unreachable)
    with pytest.raises(WorkflowError, match=r"SLURM does not answer on beta: .*Unable to contact"):
        other.of(["beta"])


def test_what_jobs_have_held_is_asked_where_they_may_have_run(site: Site) -> None:
    tasks = [
        {"cluster": "slurm", "submission": name, "intended": 0.0, "request": {"slurm_additional_parameters": more}}
        for name, more in {"a": {"clusters": "alpha,beta"}, "b": {"clusters": "beta"}, "c": {}}.items()
    ]
    for cluster, name, seconds in (("beta", "a", 5), ("beta", "b", 7), ("home", "c", 9)):
        line = f"12_0|x|x|2026-11-30T01:00:00|COMPLETED|{seconds}|gres/gpu=1|{name}"
        site.add("accounts", [cluster, line])
    found = GpuUsage(0, 0, print).attempts(tasks)
    assert {name: [one.seconds for one in held] for (name, _), held in found.items()} == {"a": [5], "b": [7], "c": [9]}
    asked = [(call.partition(" -M ")[2][:5].strip(), call.split("--name=")[1]) for call in site.calls("sacct")]
    assert [(cluster, names.split()[0]) for cluster, names in asked] == [("alpha", "a"), ("beta", "a,b"), ("", "c")]


WORKFLOW = """
rule all:
    input: "a.txt", "b.txt"
for name, cluster in (("a", "alpha"), ("b", "beta")):
    rule:
        name: name
        output: f"{name}.txt"
        resources: clusters=cluster, slurm_partition="cpu"
        shell: "while [ ! -e go ]; do sleep 0.1; done; echo $SLURM_CLUSTER_NAME > {output}"
"""


def controller(folder: Path, *args: str) -> "subprocess.Popen[str]":
    command = [SNAKEMAKE, "--executor", "submitit", "--jobs", "4", "--nolock", "--scheduler", "greedy", *args]
    command += ["--submitit-status-interval", "0", "--seconds-between-status-checks", "1", "--rerun-incomplete"]
    return subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_a_killed_controllers_jobs_go_on_each_on_its_own_cluster(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("PATH", f"{site.folder}{os.pathsep}{os.environ['PATH']}")
    project = tmp_path / "project"
    project.mkdir()
    (project / "Snakefile").write_text(WORKFLOW)
    (site.folder / "runs").touch()
    refused = controller(project, "--set-resources", "a:clusters=alhpa", "b:slurm_partition=gpus")
    said = refused.communicate(timeout=200)[0]
    assert refused.returncode == 1 and not site.calls("sbatch")
    assert (
        "rule a, resource clusters: 'alhpa' does not exist" in said
        and ": partition 'gpus' does not exist on beta" in said
    )
    first = controller(project)
    while len(list(project.glob(".submitit/jobs/*/0.run1"))) < 2 and first.poll() is None:
        time.sleep(0.2)
    first.kill()
    first.communicate()
    (project / "go").touch()
    second = controller(project)
    said = second.communicate(timeout=200)[0]
    assert second.returncode == 0, said
    assert "going on with job 12_0;alpha" in said and "going on with job 12_0;beta" in said
    assert len(site.calls("sbatch")) == 2
    assert [(project / name).read_text().strip() for name in ("a.txt", "b.txt")] == ["alpha", "beta"]
    assert "job 12_0;alpha, start 1" in (project / ".submitit/logs/a/a.log").read_text()
