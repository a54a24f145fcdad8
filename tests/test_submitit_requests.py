"""What a rule asks for: the slurm plugin's names, checked, and cut into submissions that ask for one thing each."""

import shlex
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.settings import SharedFSUsage
from snakemake_interface_executor_plugins.utils import TargetSpec, format_cli_arg, is_quoted

from snakemake_executor_plugin_submitit.cluster import Cluster
from snakemake_executor_plugin_submitit.executor import Executor
from snakemake_executor_plugin_submitit.job_command import group_limits, program, share_arguments, split
from snakemake_executor_plugin_submitit.requests import MANAGED, Request, parse_extra, request_of
from snakemake_executor_plugin_submitit.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.submission import auto_executor
from snakemake_executor_plugin_submitit.submitter import Ready, Submitter


def ask(threads: int = 1, settings: ExecutorSettings | None = None, **resources: Any) -> Request:
    return request_of("cell", threads, resources, settings or ExecutorSettings())


def test_the_slurm_plugins_names_are_understood() -> None:
    request = ask(
        runtime=90, mem_mb=4000, cpus_per_task=8, slurm_partition="gpu", slurm_account="a", qos="high",
        constraint="a100", gpu=2, gpu_model="h100",
        slurm_extra="--exclude=n1 --comment 'a b' --spread-job",
    )  # fmt: skip
    extra = request.parameters["slurm_additional_parameters"]
    assert extra == {"exclude": "n1", "comment": "a b", "spread-job": True, "requeue": True}
    assert request.minutes == 90
    assert request.gpus == 2
    named = {key: value for key, value in request.parameters.items() if key != "slurm_additional_parameters"}
    assert named == {
        "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 8, "stderr_to_stdout": True, "timeout_min": 90,
        "slurm_gres": "gpu:h100:2", "slurm_mem": "4000M", "slurm_partition": "gpu", "slurm_account": "a",
        "slurm_qos": "high", "slurm_constraint": "a100",
    }  # fmt: skip


def test_settings_stand_in_where_a_rule_says_nothing() -> None:
    settings = ExecutorSettings(partition="p", account="a", qos="q", constraint="c", gres="gpu:1", extra="--nice=5")
    parameters = ask(settings=settings).parameters
    assert [parameters[f"slurm_{name}"] for name in ("partition", "account", "qos", "constraint", "gres")] == [
        *("p", "a", "q", "c", "gpu:1")
    ]
    assert parameters["slurm_additional_parameters"]["nice"] == "5"
    assert ask(settings=settings, slurm_partition="mine").parameters["slurm_partition"] == "mine"
    for resources in ({"gpu": 1}, {"gpu": 0}):
        assert "slurm_gres" not in ask(settings=settings, **resources).parameters
    assert ask(settings=settings).gpus == 1
    assert {"slurm_qos", "slurm_constraint"}.isdisjoint(ask(settings=settings, qos="", constraint="").parameters)


def test_gpus_count_however_they_are_asked_for() -> None:
    asked = [{"gpu": 3}, {"gpu": "2"}, {"gpu": 2, "gpu_model": "h100"}, {"gpu_model": "h100"}, {"gres": "gpu:a100:2"}]
    assert [ask(**one).gpus for one in asked] == [3, 2, 2, 1, 2]
    assert [ask(**one).gpus for one in ({"gres": "shard:4"}, {"gpu_model": "h100", "gpu": 0}, {})] == [0, 0, 0]
    with pytest.raises(WorkflowError, match=r"resource gpu=2 .*this machine has 1 GPUs"):
        Cluster(1000, gpus=1).check("cell", ask(gres="gpu:a100:2"))


def test_other_generic_resources_go_with_gpus() -> None:
    assert ask(gpu=1, gres="shard:2").parameters["slurm_gres"] == "shard:2"
    assert ask(gpu=1, gres="shard:2").parameters["gpus_per_node"] == 1
    both = ask(gpu=2, gpu_model="h100", gres="shard:2").parameters
    assert (both["slurm_gres"], "gpus_per_node" in both) == ("gpu:h100:2,shard:2", False)


def test_a_rule_that_asks_for_less_memory_than_its_snakemake_needs_gets_enough() -> None:
    assert ask(mem_mb=5).parameters["slurm_mem"] == "256M"
    assert ask(mem_mb=5, settings=ExecutorSettings(least_mem_mb=0)).parameters["slurm_mem"] == "5M"


def test_threads_are_the_cpus_and_memory_for_each_of_them_comes_first() -> None:
    parameters = ask(threads=4, mem_mb=1000, mem_mb_per_cpu=500).parameters
    assert parameters["cpus_per_task"] == 4
    assert parameters["slurm_mem_per_cpu"] == "500M"
    assert "slurm_mem" not in parameters


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"mem_mb": 0}, "rule cell, resource mem_mb=0: expected a whole number of at least 1"),
        ({"runtime": "soon"}, "rule cell, resource runtime='soon': expected a whole number"),
        ({"gpu": 1.5}, "rule cell, resource gpu=1.5: expected a whole number"),
        ({"gpu": -1}, "rule cell, resource gpu=-1: expected a whole number of at least 0"),
        ({"gpu": 1, "gres": "gpu:1"}, "give either gpu or gres, not both"),
        ({"gpu_model": "h100", "gres": "shard:1,gpu"}, "give either gpu or gres, not both"),
        ({"gpu": "a100:2"}, "rule cell, resource gpu='a100:2': expected a whole number; the model is"),
        ({"gpu_model": "'a100'"}, "resource gpu_model=\"'a100'\": expected the name of a model"),
        ({"gres": "'gpu:1'"}, "expected NAME, NAME:NUMBER or NAME:TYPE:NUMBER"),
        ({"gres": "gpu:1 shard:2"}, "expected NAME, NAME:NUMBER or NAME:TYPE:NUMBER"),
        ({"gpus": 1}, "rule cell, resource gpus=1: the job asks for 0 GPUs: give the number as gpu"),
        ({"nvidia_gpu": 2, "gpu": 1}, "rule cell, resource nvidia_gpu=2: the job asks for 1 GPUs"),
        ({"tasks_per_gpu": 2, "gpu": 1}, "rule cell, resource tasks_per_gpu=2: a job is one task"),
        ({"tasks_per_gpu": 1, "gpu": 2}, "rule cell, resource tasks_per_gpu=1: a job is one task"),
        ({"mpi": "srun", "tasks": 2}, "MPI jobs are not supported"),
        ({"slurm_nodes": 2}, "rule cell, resource slurm_nodes=2: a job is one task on one node here"),
        ({"nodes": 0}, "rule cell, resource nodes=0: expected a whole number of at least 1"),
        ({"slurm_cluster": "a b"}, "rule cell, resource slurm_cluster='a b': expected the name of a cluster"),
        ({"cpus_per_gpu": "all", "gpu": 1}, "rule cell, resource cpus_per_gpu='all': expected a whole number"),
        ({"mpi": "srun"}, "MPI jobs are not supported"),
        ({"clusters": "alpha,,beta"}, "rule cell, resource clusters='alpha,,beta': expected the name of a cluster"),
        ({"clusters": "alpha", "cluster": "beta"}, "rule cell, resource cluster='beta': clusters is 'alpha': give one"),
        ({"cluster": "all"}, "expected the name of a cluster, or several with commas; `all` is no such name"),
        ({"runtime": float("inf")}, "expected a whole number"),
        ({"slurm_extra": "--ntasks-per-gpu=4"}, "--ntasks-per-gpu is managed by the plugin"),
        ({"slurm_extra": "--clusters=big"}, "--clusters is managed by the plugin"),
        ({"nodes": 2}, "a job is one task on one node here"),
        ({"tasks": 4}, "a job is one task on one node here"),
        (
            {"slurm_partition": "a\n#SBATCH --uid=0"},
            "resource slurm_partition='a\\n#SBATCH --uid=0': control characters",
        ),
        ({"slurm_extra": "--output=/etc/passwd"}, "--output is managed by the plugin"),
        ({"slurm_extra": "--outp=/etc/passwd"}, "--outp is managed by the plugin"),
        ({"slurm_extra": "-o x"}, "expected long options"),
        ({"slurm_extra": "--comment='open"}, "No closing quotation"),
        ({"slurm_extra": "--comment=a\nrm -rf /"}, "control characters"),
        ({"slurm_extra": "--Weird=1"}, "--Weird is no option of sbatch"),
    ],
)
def test_what_cannot_be_is_refused_by_name(resources: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError) as error:
        ask(**resources)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("resources", "cpus"),
    [
        ({}, 8),
        ({"cpus_per_task": 0}, 8),
        ({"cpus_per_task": 2}, 2),
        ({"cpus_per_task": -1}, None),
        ({"gpu": 2, "cpus_per_gpu": 3}, 6),
        ({"gres": "gpu:h100:2", "cpus_per_gpu": 3}, 6),
        ({"gpu_model": "h100", "cpus_per_gpu": 3}, 3),
        ({"gpu": 2, "cpus_per_gpu": 3, "cpus_per_task": 4}, 4),
        ({"gpu": 2, "cpus_per_gpu": 0}, None),
        ({"cpus_per_gpu": 3}, 8),
    ],
)
def test_cpus_are_those_of_the_slurm_plugin(resources: dict[str, int], cpus: int | None) -> None:
    assert ask(threads=8, **resources).parameters.get("cpus_per_task") == cpus


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cluster": "pbs"}, "--submitit-cluster: 'pbs', expected slurm or local or debug"),
        ({"requeue": "maybe"}, "--submitit-requeue: 'maybe', expected always or never"),
        ({"on_interrupt": ""}, "--submitit-on-interrupt: ''"),
        ({"pack": 0}, "--submitit-pack: 0, expected a whole number of at least 1"),
        ({"gpus": -1}, "--submitit-gpus: -1"),
        ({"signal_delay": 1}, "--submitit-signal-delay: 1"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(WorkflowError) as error:
        ExecutorSettings(**settings)
    assert said in str(error.value)


@given(st.text())
def test_no_text_gets_past_what_the_plugin_manages(text: str) -> None:
    try:
        found = parse_extra(text, "here")
    except WorkflowError:
        return
    for name, value in found.items():
        assert not any(managed.startswith(name) for managed in MANAGED)
        assert value is True or "\n" not in value


def test_submitit_takes_every_parameter(tmp_path: Path) -> None:
    """AutoExecutor refuses names that it does not know."""
    request = ask(runtime=5, mem_mb=100, gpu=1, slurm_partition="p", slurm_extra="--nice=1")
    auto = auto_executor("local", tmp_path, "name", request, {"slurm_signal_delay_s": 10})
    assert auto._executor.parameters["timeout_min"] == 5


sizes = st.integers(1, 5)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.integers(1, 2))), sizes, sizes)
def test_submissions_hold_every_cell_once_and_ask_for_one_thing_each(
    cells: list[tuple[str, int, int]], limit: int, pack: int
) -> None:
    ready = []
    for number, (rule, attempt, memory) in enumerate(cells):
        request = request_of(rule, 1, {"mem_mb": memory, "pack": pack}, ExecutorSettings())
        ready.append(Ready(number, {"rule": rule, "attempt": attempt}, {}, request))
    submitter = Submitter(ExecutorSettings(), None, Path(), print, limit)  # type: ignore[arg-type]
    chunks = submitter.chunks(ready)
    assert sorted(one.job for chunk in chunks for task in chunk for one in task) == list(range(len(cells)))
    for chunk in chunks:
        assert 1 <= len(chunk) <= limit
        assert all(1 <= len(task) <= pack for task in chunk)
        members = list(chain(*chunk))
        assert len({(one.cell["rule"], one.cell["attempt"], str(one.request)) for one in members}) == 1


def test_a_command_is_run_as_words_and_only_a_precommand_by_a_shell() -> None:
    command = "/bin/python -m snakemake --target-jobs 'cell:i=a b;$(touch x)' --cores 1"
    plain = program(command, {"A": "1"}, "", "--cores 1")
    assert plain == {"snakemake": ["--target-jobs", "cell:i=a b;$(touch x)", "--cores", "1"], "env": {"A": "1"}}
    assert program(command, {"A": "1"}, "", "absent") == plain
    prepared = program(command, {}, "module load cuda", "--cores 1")
    assert prepared["argv"][:4] == ["bash", "-c", 'module load cuda && exec "$@"', "bash"]
    assert prepared["argv"][4:] == ["/bin/python", "-m", "snakemake", *plain["snakemake"]]


@given(st.text(st.sampled_from(" \t\n'\"\\ab$=*#;é"), max_size=30))
def test_words_are_those_of_a_shell(command: str) -> None:
    try:
        expected = shlex.split(command)
    except ValueError:
        with pytest.raises(ValueError):
            split(command)
        return
    assert split(command) == expected


@given(st.lists(st.text(max_size=8), max_size=6))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split(shlex.join(words)) == words


@given(st.lists(st.text(st.sampled_from("ab \\'\"$n%"), min_size=1, max_size=8), min_size=1, max_size=3))
def test_what_snakemake_quotes_as_python_does_comes_back_as_it_was(values: list[str]) -> None:
    """Paths with backslashes, as of a Snakefile or of config files."""
    share_arguments(SimpleNamespace(general_args=None))
    given = [value for value in values if not is_quoted(value)]
    assert split(format_cli_arg("--configfiles", given)) == (["--configfiles", *given] if given else [])


def test_a_groups_members_keep_to_what_the_group_has() -> None:
    resources = {"mem_mb": 300, "gpu": 1, "db": 2, "nodes": 1, "runtime": 5, "_cores": 4, "tmpdir": "/tmp"}
    job = SimpleNamespace(resources=resources)
    assert group_limits(job, ["db", "_cores"]).split() == ["--resources", "db=2", "gpu=1", "mem_mb=300"]
    assert group_limits(SimpleNamespace(resources={"mem_mb": "<TBD>"}), []) == ""


@pytest.mark.parametrize("shared", [True, False])
def test_a_job_waits_for_files_only_where_they_are_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """What storage brings to a node is never where the controller runs."""
    monkeypatch.setattr(RealExecutor, "get_job_args", lambda self, job, **more: "--target-jobs make:")
    usage = {SharedFSUsage.SOURCES, *([SharedFSUsage.INPUT_OUTPUT] if shared else [])}
    workflow = SimpleNamespace(
        storage_settings=SimpleNamespace(shared_fs_usage=usage),
        dag=SimpleNamespace(get_unneeded_temp_files=lambda job: []),
    )
    job = SimpleNamespace(
        is_group=lambda: False, get_wait_for_files=lambda: ["in.txt"], get_target_spec=lambda: [TargetSpec("make", {})]
    )
    executor: Any = SimpleNamespace(workflow=workflow, base=tmp_path)
    words = split(Executor.get_job_args(executor, job))
    assert words == ["--target-jobs", "make:", *(["--wait-for-files", "in.txt"] if shared else [])]
