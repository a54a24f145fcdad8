"""The ledger of a study on a cluster: journal, sacct and the jobs' own records as one, over any history."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from histories import change, inside, line, submit
from report_tables import record
from scatterproof.config.cost import CostConfig
from scatterproof.cost import account as accounts
from scatterproof.cost.account import account
from scatterproof.cost.allocations import allocations, read_tasks
from scatterproof.cost.kept import merge
from scatterproof.cost.ledger import build_ledger
from scatterproof.cost.sacct import SacctError, parse_sacct
from scatterproof.cost.sums import cost_summary, group_sums, waste_table

JOB, NAME = "victim.0", "train-a"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.sqlite"
    submit(path, NAME, "12", [["victim,0"]])
    return path


def ledger(journal: Path, text: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return build_ledger(records, allocations(read_tasks(journal), parse_sacct(text)))


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_a_record_lends_its_device_and_minutes_to_the_attempt_that_it_names(journal: Path) -> None:
    ran = inside("12_0", NAME, JOB, 1015.0, useful=30.0)
    (row,) = ledger(journal, line("12_0", NAME, elapsed=60), [ran])
    assert (row["source"], row["partition"], row["elapsed_s"], row["allocated_gpu_minutes"]) == ("sacct", "gpu", 60, 1)
    assert (row["device"], row["gpu_minutes"], row["useful_minutes"]) == ("cuda: NVIDIA H200", 0.5, 0.5)
    assert (row["stage"], row["victim"], row["cpu_minutes"], row["mem_mb"]) == ("victim", "victim", 1.0, 512)
    assert cost_summary([row], 1.0)[-1]["overhead_minutes"] == 0.5


def test_an_attempt_killed_before_its_body_shows_without_a_record(journal: Path) -> None:
    text = line("12_0", NAME, "NODE_FAIL", 20) + line("12_0", NAME, "COMPLETED", 60, start=1100)
    first, second = ledger(journal, text, [inside("12_0", NAME, JOB, 1105.0, restart=1)])
    assert (first["state"], first["waste"], first["device"], first["attempt"]) == ("NODE_FAIL", "node failure", None, 1)
    assert (first["stage"], first["victim"], first["useful_minutes"]) == ("victim", "victim", 0)
    assert (second["useful_minutes"], second["attempt_name"]) == (0.5, "train_victim/victim.0.2")


def test_each_start_gets_its_own_record_by_time(journal: Path) -> None:
    text = line("12_0", NAME, "PREEMPTED", 40) + line("12_0", NAME, elapsed=60, start=1100)
    first = inside("12_0", NAME, JOB, 1012.0, useful=20.0, state="FAILED")
    second = inside("12_0", NAME, JOB, 1102.0, useful=50.0, restart=1, attempt=2)
    rows = ledger(journal, text, [second, first])
    assert column(rows, "device_minutes") == [pytest.approx(20 / 60), pytest.approx(50 / 60)]
    assert column(rows, "useful_minutes") == [0, pytest.approx(50 / 60)]


def test_clocks_that_differ_by_minutes_double_nothing(journal: Path) -> None:
    text = line("12_0", NAME, "PREEMPTED", 40) + line("12_0", NAME, elapsed=60, start=1100)
    records = [inside("12_0", NAME, JOB, 500.0 + 100 * start, restart=start, useful=10.0 + start) for start in range(2)]
    assert column(ledger(journal, text, records), "device_minutes") == [pytest.approx(1 / 6), pytest.approx(11 / 60)]


def test_without_sacct_an_earlier_start_is_known_by_its_record(journal: Path) -> None:
    change(journal, {"id": 1, "state": "COMPLETED", "task_started": 1102.0, "ended": 1162.0})
    lost = inside("12_0", NAME, JOB, 1012.0, state="LOST", elapsed_s=None, useful_s=None, device_minutes=None)
    rows = ledger(journal, "", [lost, inside("12_0", NAME, JOB, 1105.0, restart=1, attempt=2)])
    assert [(row["state"], row["waste"], row["source"], row["elapsed_s"]) for row in rows] == [
        ("REQUEUED", "requeued", "measured", None),
        ("COMPLETED", "", "measured", 60),
    ]
    back = line("12_0", NAME, "NODE_FAIL", 40) + line("12_0", NAME, elapsed=61, start=1100)
    again = ledger(journal, back, [lost, inside("12_0", NAME, JOB, 1105.0, restart=1, attempt=2)])
    assert [(row["state"], row["source"], row["elapsed_s"]) for row in again] == [
        ("NODE_FAIL", "sacct", 40),
        ("COMPLETED", "sacct", 61),
    ]


def test_without_sacct_a_start_that_died_at_once_takes_no_record_of_an_earlier_one(journal: Path) -> None:
    change(journal, {"id": 1, "state": "FAILED", "task_started": 2000.0, "ended": 2003.0})
    rows = ledger(journal, "", [inside("12_0", NAME, JOB, 1012.0, state="FAILED", useful=30.0)])
    assert [(row["state"], row["elapsed_s"], row["device_minutes"]) for row in rows] == [
        ("REQUEUED", 34, 0.5),
        ("FAILED", 3, None),
    ]


def test_a_start_that_accounting_lost_is_not(journal: Path) -> None:
    """slurmdbd was down for the second of two starts, or for the first."""
    records = [
        inside("12_0", NAME, JOB, 1012.0, state="FAILED"),
        inside("12_0", NAME, JOB, 1105.0, restart=1, attempt=2),
    ]
    rows = ledger(journal, line("12_0", NAME, "PREEMPTED", 40), records)
    assert [(row["state"], row["source"]) for row in rows] == [("PREEMPTED", "sacct"), ("COMPLETED", "measured")]
    rows = ledger(journal, line("12_0", NAME, "COMPLETED", 60, start=1100), records)
    assert [(row["state"], row["source"]) for row in rows] == [("REQUEUED", "measured"), ("COMPLETED", "sacct")]


def test_a_record_of_an_id_used_again_goes_to_its_own_job(journal: Path) -> None:
    submit(journal, "train-b", "12", [["victim,1"]])
    text = line("12_0", NAME, elapsed=60) + line("12_0", "train-b", elapsed=90, start=5000)
    records = [inside("12_0", "train-b", "victim.1", 5003.0), inside("12_0", NAME, JOB, 1013.0)]
    rows = ledger(journal, text, [*records, inside("12_0", "stranger", "victim.2", 9000.0)])
    assert [(row["job"], row["source"], row["useful_minutes"]) for row in rows] == [
        ("victim.0", "sacct", 0.5),
        ("victim.1", "sacct", 0.5),
        ("victim.2", "measured", 0.5),  # of no journal that is known: it stands for itself
    ]


def test_a_packed_task_is_one_attempt_and_what_it_had_finished_is_not_wasted(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    submit(path, "score-a", "7", [["victim,0,a,0", "copy_free,0,a,0", "copy_free,1,a,0"]], rule="score_search")
    names = ["victim.0.a.0", "copy_free.0.a.0", "copy_free.1.a.0"]
    more: dict[str, Any] = {"stage": "search", "rule": "score_search", "attacks": {}}
    records = [inside("7_0", "score-a", name, 1012.0 + 40 * n, **more) for n, name in enumerate(names[:2])]
    records.append(inside("7_0", "score-a", names[2], 1092.0, state="FAILED", useful=15.0, **more))
    (row,) = ledger(path, line("7_0", "score-a", "FAILED", 120), records)
    assert (row["job"], row["jobs"].split(";")) == ("victim.0.a.0+2", names)
    assert (row["device_minutes"], row["useful_minutes"], row["allocated_gpu_minutes"]) == (1.25, 1.0, 2.0)
    assert row["victim"] == "copy_free=0.6;victim=0.4"
    total = cost_summary([row], 1.0)[-1]
    assert (total["jobs"], total["attempts"], total["wasted_gpu_minutes"]) == (3, 1, 1.0)
    assert waste_table([row])[0]["gpu_minutes"] == 1.0
    by_victim = dict(group_sums([row], "victim", 1.0))
    assert {name: sums["allocated_gpu_minutes"] for name, sums in by_victim.items()} == {
        "copy_free": pytest.approx(1.2),
        "victim": pytest.approx(0.8),
    }


def test_off_slurm_a_task_is_counted_by_its_records_or_else_by_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    submit(path, "train-a", "99", [["victim,0"], ["victim,1"]], cluster="local")
    change(path, {"id": 1, "state": "COMPLETED", "started": 100.0, "ended": 160.0})
    change(path, {"id": 2, "state": "FAILED", "started": 100.0, "ended": 103.0})  # killed while Python imported
    ran = record("victim", "train_victim", JOB, 50.0, process_started=101.0, began=103.0)
    rows = ledger(path, "", [ran])
    assert [(row["job"], row["state"], row["elapsed_s"], row["partition"]) for row in rows] == [
        ("victim.0", "COMPLETED", 54, "local"),
        ("victim.1", "FAILED", 3, "local"),
    ]


def test_off_slurm_an_attempt_without_an_end_takes_no_record_of_the_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    submit(path, "train-a", "98", [["victim,0"]], cluster="local")
    submit(path, "train-b", "99", [["victim,0"]], cluster="local")
    change(path, {"id": 1, "state": "LOST"})
    change(path, {"id": 2, "state": "COMPLETED", "started": 200.0, "ended": 260.0})
    ran = record("victim", "train_victim", JOB, 50.0, process_started=201.0, began=203.0)
    by_hand = ran | {"process_started": 9e9, "began": 9e9, "attempt": 2}  # a plain Snakemake, long after
    for one in (ran, ran | {"job_id": "99_0"}):
        rows = ledger(path, "", [one, by_hand])
        assert sorted(column(rows, "state")) == ["COMPLETED", "COMPLETED", "LOST"]
    own = ran | {"job_id": "98_0", "process_started": 8e9, "began": 8e9, "state": "LOST", "elapsed_s": None}
    assert sorted(column(ledger(path, "", [ran, own, by_hand]), "state")) == ["COMPLETED", "COMPLETED", "LOST"]


def test_a_record_without_an_id_is_joined_by_job_and_time(journal: Path) -> None:
    old = inside("12_0", NAME, JOB, 1013.0) | {"job_id": None, "job_name": None, "restart": None}
    other_time = old | {"process_started": 9000.0, "began": 9000.0, "attempt": 2, "partition": None}
    rows = ledger(journal, line("12_0", NAME, elapsed=60), [old, other_time])
    assert [(row["partition"], row["source"]) for row in rows] == [("gpu", "sacct"), ("local", "measured")]


# what the rule and the command ask for


def write_records(folder: Path, records: list[dict[str, Any]]) -> None:
    for one in records:
        kept = {key: value for key, value in one.items() if value is not None and key != "began"}
        path = folder / one["rule"] / f"{one['job']}.{one['attempt']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(kept | {"version": 1, "started": "2026-01-01T00:00:00+00:00"}))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results" / "tiny"
    write_records(folder / "records", [inside("12_0", NAME, JOB, 1012.0)])
    return folder


def say(monkeypatch: pytest.MonkeyPatch, text: str | Exception) -> None:
    def read_sacct(*_: Any) -> list[dict[str, Any]]:
        if isinstance(text, Exception):
            raise text
        return parse_sacct(text)

    monkeypatch.setattr(accounts, "read_sacct", read_sacct)


def test_accounts_are_kept_by_the_rule_alone_and_stand_in_for_a_purge(
    journal: Path, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = results / "records" / "sacct.csv"
    say(monkeypatch, line("12_0", NAME, elapsed=60) + line("12_0", "stranger", elapsed=7))
    first = account(results, journal, CostConfig())
    assert not kept.exists() and first.notes == []
    assert account(results, journal, CostConfig(), keep=True) == first
    before, at = kept.read_text(), kept.stat().st_mtime_ns
    assert account(results, journal, CostConfig(), keep=True) == first
    assert (kept.read_text(), kept.stat().st_mtime_ns) == (before, at) and "stranger" not in before
    say(monkeypatch, "")
    assert account(results, journal, CostConfig(), keep=True) == first
    say(monkeypatch, SacctError("sacct cannot be asked: no such file"))
    without = account(results, journal, CostConfig())
    assert without.costs == first.costs
    assert without.notes == ["sacct cannot be asked: no such file; 1 attempts are known from before"]


def test_a_late_correction_changes_the_table(journal: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, line("12_0", NAME, elapsed=60))
    account(results, journal, CostConfig(), keep=True)
    say(monkeypatch, line("12_0", NAME, "NODE_FAIL", elapsed=55))
    (row,) = account(results, journal, CostConfig(), keep=True).costs
    assert (row["state"], row["elapsed_s"]) == ("NODE_FAIL", 55)


def test_what_could_not_be_had_is_said(results: Path, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none = account(results, results / "none.sqlite", CostConfig())
    assert len(none.costs) == 1 and none.costs[0]["source"] == "measured"
    (note,) = none.notes
    assert "none.sqlite: no journal" in note
    say(monkeypatch, SacctError("sacct: slurmdbd is down"))
    found = account(results, journal, CostConfig())
    assert column(found.costs, "source") == ["measured"]
    assert found.notes == ["sacct: slurmdbd is down; the jobs' own clocks stand in"]


@pytest.fixture
def two_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Journal and results of two jobs of one number on two clusters; what sacct says of each is in a file."""
    path, commands = tmp_path / "two.sqlite", tmp_path / "bin"
    submit(path, "train-b", "12;alpha", [["victim,0"]])
    submit(path, "train-c", "12;beta", [["victim,1"]])
    commands.mkdir()
    (commands / "sacct").write_text(
        f"#!/bin/bash\nwhile [ $# -gt 1 ] && [ $1 != -M ]; do shift; done\n"
        f"cat {commands}/$2 || {{ echo $2 is away >&2; exit 1; }}\n"
    )
    (commands / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}{os.pathsep}{os.environ['PATH']}")
    for cluster, elapsed in (("alpha", 60), ("beta", 90)):  # each has had jobs of both names and of this number
        text = line("12_0", "train-b", elapsed=elapsed) + line("12_0", "train-c", elapsed=elapsed)
        (commands / cluster).write_text(text)
    folder = tmp_path / "results" / "tiny"
    records = [inside("12_0", "train-b", JOB, 1012.0), inside("12_0", "train-c", "victim.1", 1012.0, useful=60.0)]
    write_records(folder / "records", records)
    return path, folder


def test_jobs_of_one_number_on_two_clusters_are_charged_apart(two_clusters: tuple[Path, Path]) -> None:
    journal, folder = two_clusters
    found = account(folder, journal, CostConfig(), keep=True)
    assert [(row["job_id"], row["elapsed_s"], row["gpu_minutes"]) for row in found.costs] == [
        ("12_0;alpha", 60, 0.5),
        ("12_0;beta", 90, 1.0),
    ]
    assert found.notes == [] and column(found.costs, "source") == ["sacct", "sacct"]


def test_a_cluster_whose_accounts_are_away_leaves_the_others(two_clusters: tuple[Path, Path], tmp_path: Path) -> None:
    journal, folder = two_clusters
    (tmp_path / "bin/alpha").unlink()
    found = account(folder, journal, CostConfig(), keep=True)
    assert column(found.costs, "source") == ["measured", "sacct"]
    (note,) = found.notes
    assert note.startswith("sacct -M alpha: ") and note.endswith("alpha is away; the jobs' own clocks stand in")
    (tmp_path / "bin/alpha").write_text(line("12_0", "train-b", elapsed=60))
    first = account(folder, journal, CostConfig(), keep=True)
    (tmp_path / "bin/alpha").unlink()
    assert account(folder, journal, CostConfig()).costs == first.costs, "what it has said before is kept"


def test_sacct_is_asked_again_while_it_lags(journal: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(journal, {"id": 1, "state": "COMPLETED", "task_started": 1012.0, "ended": 1070.0, "settled": 1})
    answers = [line("12_0", NAME, "RUNNING", 5, end="Unknown"), line("12_0", NAME, elapsed=61)]
    monkeypatch.setattr(accounts, "PATIENCE_S", 0.01)
    monkeypatch.setattr(accounts, "read_sacct", lambda *_: parse_sacct(answers.pop(0)))
    (row,) = account(results, journal, CostConfig(), settle_s=5.0).costs
    assert (row["source"], row["elapsed_s"]) == ("sacct", 61) and not answers


# any history


@dataclass
class Cluster:
    """A made-up cluster: what it really did, and what each teller may know of it."""

    folder: Path
    clock: int = 1000
    lines: list[str] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    elapsed: list[int] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        return self.folder / "journal.sqlite"

    def run(self, number: int, job: int, starts: list[tuple[str, int, bool]], job_id: int) -> None:
        """One submission with its starts: state, seconds, and whether it got as far as its rule's body."""
        name = f"train-{number}"
        submit(self.journal, name, str(job_id), [[f"victim,{job}"]])
        for restart, (state, seconds, recorded) in enumerate(starts):
            self.clock += 100
            start = self.clock
            self.clock += seconds
            self.lines.append(line(f"{job_id}_0", name, state, seconds, start=start))
            self.elapsed.append(seconds)
            if recorded:
                ended = "COMPLETED" if state == "COMPLETED" else "FAILED"
                one = inside(f"{job_id}_0", name, f"victim.{job}", start + 1.0, useful=max(0.0, seconds - 5.0))
                more = {"restart": restart, "attempt": len(self.records) + 1, "state": ended}
                self.records.append(one | more | {"elapsed_s": max(0.0, seconds - 1.0)})


ENDED_BY = st.sampled_from(["COMPLETED", "FAILED", "PREEMPTED", "NODE_FAIL", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY"])
STARTS = st.lists(st.tuples(ENDED_BY, st.integers(0, 500), st.booleans()), min_size=1, max_size=4)
SUBMISSIONS = st.lists(st.tuples(st.integers(0, 2), STARTS, st.integers(1, 2)), min_size=1, max_size=5)
QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def build(folder: Path, submissions: list[Any]) -> Cluster:
    """Jobs are few, and so are job ids: both come again."""
    cluster = Cluster(folder)
    cluster.journal.unlink(missing_ok=True)
    for number, (job, starts, job_id) in enumerate(submissions):
        cluster.run(number, job, starts, job_id)
    return cluster


@QUICK
@given(SUBMISSIONS, st.data())
def test_no_attempt_is_lost_or_doubled_and_building_step_by_step_ends_the_same(
    tmp_path: Path, submissions: list[Any], data: st.DataObject
) -> None:
    """sacct forgets, is asked in between, and repeats itself; the ledger is that of having heard all at once."""
    cluster = build(tmp_path, submissions)
    tasks = read_tasks(cluster.journal)
    shuffled = data.draw(st.permutations(cluster.records))
    final = build_ledger(shuffled, allocations(tasks, parse_sacct("".join(cluster.lines))))
    assert sorted(column(final, "elapsed_s")) == sorted(cluster.elapsed)
    assert sum(row["allocated_gpu_minutes"] for row in final) == pytest.approx(sum(cluster.elapsed) / 60)
    used = sum(row["device_minutes"] for row in cluster.records)
    assert sum(row["device_minutes"] or 0 for row in final) == pytest.approx(used)
    assert len({row["attempt_name"] for row in final}) == len(final)

    kept: list[dict[str, Any]] = []
    for number in range(len(cluster.lines)):
        purged = data.draw(st.integers(0, number))
        kept = merge(kept, parse_sacct("".join(cluster.lines[purged : number + 1])))
        so_far = build_ledger(cluster.records, allocations(tasks, kept))
        assert sum(row["source"] == "sacct" for row in so_far) == number + 1
    assert build_ledger(cluster.records, allocations(tasks, kept)) == final


@QUICK
@given(SUBMISSIONS, st.sets(st.integers(0, 20)))
def test_with_accounting_that_has_lost_lines_no_recorded_start_is_lost_or_doubled(
    tmp_path: Path, submissions: list[Any], missing: set[int]
) -> None:
    cluster = build(tmp_path, submissions)
    heard = [text for number, text in enumerate(cluster.lines) if number not in missing]
    rows = build_ledger(cluster.records, allocations(read_tasks(cluster.journal), parse_sacct("".join(heard))))
    assert sum(row["source"] == "sacct" for row in rows) == len(heard)
    used = sum(row["device_minutes"] for row in cluster.records)
    assert sum(row["device_minutes"] or 0 for row in rows) == pytest.approx(used)
    assert len(rows) <= len(cluster.lines)
