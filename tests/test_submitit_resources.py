"""Every resource is honoured, refused by name or named in a warning: none is dropped without a word."""

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.requests import Request, parse_extra, request_of, resources_of, still_unknown
from snakemake_executor_plugin_submitit.resources import _OPTIONS, RESOURCES, Use, documentation, suspects
from snakemake_executor_plugin_submitit.settings import ExecutorSettings

# What snakemake-executor-plugin-slurm 2.8 and its job step read, or their documentation lists.
THEIRS = {
    *("runtime", "mem_mb", "mem_mb_per_cpu", "cpus_per_task", "cpus_per_gpu", "gpu", "gpu_model", "gres", "constraint"),
    *("qos", "slurm_partition", "slurm_account", "slurm_extra", "slurm_requeue", "gpu_manufacturer", "threads", "mem"),
    *("nodes", "node", "slurm_nodes", "tasks", "tasks_per_node", "tasks_per_gpu", "mpi", "mpi_tasks", "gpus"),
    *("nvidia_gpu", "cluster", "clusters", "slurm_cluster"),
}
NONE_OF_THEIRS = {"ntasks", "ntasks_per_node", "ntasks_per_gpu", "slurm_qos", "pack"}


def ask(settings: ExecutorSettings | None = None, members: int = 1, **resources: Any) -> Request:
    return request_of("cell", 1, resources, settings or ExecutorSettings(), members)


def test_every_resource_of_the_slurm_plugin_is_known_and_documented() -> None:
    derived = {name for name, known in RESOURCES.items() if known.use is Use.DERIVED}
    assert RESOURCES.keys() == THEIRS | NONE_OF_THEIRS | derived
    table = documentation()
    assert {name for name in RESOURCES if f"`{name}`" in table} >= RESOURCES.keys() - derived


@given(st.dictionaries(st.sampled_from(sorted(RESOURCES)), st.integers(-1, 3), min_size=1, max_size=4))
def test_each_known_resource_makes_a_difference_is_named_or_asks_for_what_a_job_is_anyhow(
    values: dict[str, int],
) -> None:
    try:
        whole = ask(**values)
    except WorkflowError as error:
        assert any(f"rule cell, resource {name}=" in str(error) for name in values) or "slurm_extra" in str(error)
        assert "\n" not in str(error)
        return
    for name, value in values.items():
        use = RESOURCES[name].use
        assert not (use is Use.REFUSED and value)
        assert not (use is Use.ONE and value > 1)
        if use is Use.IGNORED and name != "slurm_requeue" and value:
            assert "ignored" in whole.ignored[name]


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("runtime", 7, {}), ("mem_mb", 700, {}), ("mem_mb_per_cpu", 700, {}), ("cpus_per_task", 3, {}),
        ("cpus_per_gpu", 3, {"gpu": 1}), ("gpu", 1, {}), ("gpu_model", "a", {}), ("gres", "shard:1", {}),
        ("slurm_partition", "a", {}), ("slurm_account", "a", {}), ("qos", "a", {}), ("slurm_qos", "a", {}),
        ("constraint", "a", {}), ("slurm_extra", "--nice=1", {}), ("pack", 3, {}),
        ("clusters", "alpha", {}), ("cluster", "alpha", {}), ("slurm_cluster", "alpha,beta", {}),
    ],
)  # fmt: skip
def test_what_is_honoured_changes_the_request(name: str, value: Any, plain: dict[str, Any]) -> None:
    assert ask(**plain, **{name: value}) != ask(**plain)
    assert RESOURCES[name].use is Use.HONOURED


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mem_gib", "did you mean mem_mb?"),
        ("mem_gb", "did you mean mem_mb?"),
        ("memory", "did you mean mem_mb?"),
        ("mem_mb_per_gpu", "did you mean mem_mb?"),
        ("mem_per_cpu", "did you mean mem_mb_per_cpu?"),
        ("slurm_mem", "did you mean mem_mb?"),
        ("gpus_per_node", "did you mean gpu?"),
        ("GPU", "did you mean gpu?"),
        ("num_gpus", "did you mean gpu?"),
        ("gpu_type", "did you mean gpu_model?"),
        ("cores_per_gpu", "did you mean cpus_per_gpu?"),
        ("cpus", "did you mean cpus_per_task?"),
        ("cpus_per_node", "did you mean cpus_per_task?"),
        ("ntasks_per_core", "did you mean tasks?"),
        ("nodes_min", "did you mean nodes?"),
        ("tres_per_task", "did you mean gres?"),
        ("gres_per_node", "did you mean gres?"),
        ("time", "did you mean runtime?"),
        ("time_min", "did you mean runtime?"),
        ("walltime", "did you mean runtime?"),
        ("runtme", "did you mean runtime?"),
        ("partition", "did you mean slurm_partition?"),
        ("slurm_partitions", "did you mean slurm_partition?"),
        ("queue", "did you mean slurm_partition?"),
        ("account", "did you mean slurm_account?"),
        ("constraints", "did you mean constraint?"),
        ("reservation", 'slurm_extra="--reservation=..."'),
        ("slurm_reservation", 'slurm_extra="--reservation=..."'),
        ("mail_type", 'slurm_extra="--mail-type=..."'),
        ("exclusive", 'slurm_extra="--exclusive=..."'),
        ("nodelist", 'slurm_extra="--nodelist=..."'),
        ("slurm_whatever", "did you mean slurm_extra?"),
        ("licenses_per_node", "slurm_extra passes options to sbatch"),
    ],
)
def test_a_name_that_looks_like_slurms_is_named_with_the_nearest(name: str, hint: str) -> None:
    assert hint in ask(**{name: 1}).ignored[name]
    assert ask(**{name: 1}).ignored[name].startswith("ignored: ")
    assert ask(**{name: 1}) == ask()


@pytest.mark.parametrize(
    "name",
    ["_cores", "_nodes", "mem_mib", "mem", "disk", "disk_mb", "disk_mib", "tmpdir", "lscratch", "io", "downloads"],
)
def test_snakemakes_own_and_a_workflows_own_are_no_one_elses_business(name: str) -> None:
    assert ask(**{name: 1}).ignored == {}


def test_what_is_passed_on_by_slurm_extra_may_be() -> None:
    for name in _OPTIONS.split():
        assert suspects([name])
        assert parse_extra(f"--{name.replace('_', '-')}=1", "here")


@pytest.mark.parametrize(
    ("resources", "name", "said"),
    [
        ({"gpu": 1, "gpu_manufacturer": "amd"}, "gpu_manufacturer", "ignored: SLURM knows models alone"),
        ({"slurm_requeue": False}, "slurm_requeue", "ignored: --submitit-requeue holds for all rules"),
        ({"threads": 4}, "threads", "ignored: the rule's own threads count"),
        ({"cpus_per_gpu": 4}, "cpus_per_gpu", "ignored: the job asks for no GPU"),
        ({"gpu": 1, "cpus_per_gpu": 4, "cpus_per_task": 2}, "cpus_per_gpu", "ignored: cpus_per_task comes first"),
        ({"slurm_account": "a, b"}, "slurm_account", "all but the first account are ignored"),
    ],
)
def test_what_has_no_effect_says_so(resources: dict[str, Any], name: str, said: str) -> None:
    assert list(ask(**resources).ignored) == [name]
    assert said in ask(**resources).ignored[name]


def test_the_first_of_several_accounts_is_charged() -> None:
    assert ask(slurm_account="a, b").parameters["slurm_account"] == "a"


def test_a_machine_without_slurm_warns_of_gpus_alone() -> None:
    local = ExecutorSettings(cluster="local")
    assert ask(local, partition="p", mem_gib=3, slurm_partition="q", walltime=3).ignored == {}
    assert list(ask(local, gpu_count=1).ignored) == ["gpu_count"]
    assert "hands out any of its GPUs" in ask(local, gpu_model="h100").ignored["gpu_model"]


class Job(SimpleNamespace):
    """Stands for a job of Snakemake's."""

    def is_group(self) -> bool:
        return hasattr(self, "jobs")


def job(**resources: Any) -> Job:
    return Job(resources=resources)


def group(members: list[dict[str, Any]]) -> Job:
    """As Snakemake adds up those that run at once."""
    total: dict[str, Any] = {}
    for one in members:
        for name, value in one.items():
            total[name] = total.get(name, 0) + value if isinstance(value, int) else value
    return Job(resources=total, jobs=[job(**one) for one in members])


def test_of_a_groups_resources_what_is_for_each_counts_once_and_the_rest_adds_up() -> None:
    each = {"gpu": 1, "cpus_per_gpu": 4, "mem_mb_per_cpu": 500, "nodes": 1, "tasks": 1, "pack": 2, "mem_mb": 100}
    found = resources_of(group([each, each, {"gpu": 1, "nodes": 1, "mem_mb": 50}]), ())
    assert found == {**each, "gpu": 3, "mem_mb": 250}
    request = request_of("a+b", 20, found, ExecutorSettings(), members=3)
    assert (request.gpus, request.parameters["cpus_per_task"]) == (3, 20), "no fewer CPUs than threads"


def test_a_group_whose_gpus_do_not_add_up_says_so() -> None:
    for asked in ({"gpu_model": "h100"}, {"gres": "gpu:2"}):
        assert "the 3 jobs of the group share it" in ask(members=3, **asked).ignored[next(iter(asked))]
        assert ask(**asked).ignored == {}
    assert ask(members=3, gpu=3, gpu_model="h100").ignored == {}


def test_a_group_with_one_job_that_leaves_cpus_to_the_cluster_leaves_them_all() -> None:
    assert resources_of(group([{"cpus_per_task": -1}, {"cpus_per_task": 4}]), ())["cpus_per_task"] == -1


def test_what_is_not_known_yet_is_left_out_and_named_if_it_stays_so() -> None:
    later = job(mem_mb="<TBD>", tmpdir="<TBD>", runtime=5, gpu=None)
    assert resources_of(later, ()) == {"runtime": 5}
    assert list(still_unknown(later)) == ["mem_mb"]


def test_what_snakemake_itself_limits_is_not_ignored() -> None:
    limited = job(gpu_memory=3, mem_gib=2, gpu=1)
    assert resources_of(limited, {"gpu_memory", "gpu"}) == {"mem_gib": 2, "gpu": 1}


@given(st.text(st.sampled_from("abcdefgmnprstuw_0123"), min_size=1, max_size=16))
def test_a_warning_is_one_line_that_names_a_resource_there_is(name: str) -> None:
    for why in suspects([name]).values():
        assert "\n" not in why
        named = re.search(r"did you mean (\w+)\?", why)
        assert named is None or named[1] in RESOURCES
