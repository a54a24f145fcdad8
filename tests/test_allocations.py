"""The journal joined with sacct: every attempt once, whatever SLURM says, forgets, or uses again."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histories import RESULTS, change, line, submit
from scatterproof.cost.allocations import AllocationsError, allocations, read_tasks
from scatterproof.cost.kept import KeptError, merge, read_kept, write_kept
from scatterproof.cost.sacct import parse_sacct
from scatterproof.cost.states import waste_kind
from snakemake_executor_plugin_submitit.journal import Journal, connect


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A submission of two tasks, with one GPU each, and one that was rejected."""
    path = tmp_path / "journal.sqlite"
    submit(path, "search-a", "12", [["s0"], ["s1"]])
    (rejected,) = submit(path, "search-b", "13", [["s0"]])
    change(path, {"id": rejected, "state": "REJECTED", "settled": 1})
    return path


def column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    return [row[name] for row in rows]


def test_every_attempt_is_a_row_and_requeued_ones_too(journal: Path) -> None:
    text = line("12_0", "search-a", "PREEMPTED", 40) + line("12_0", "search-a", "COMPLETED", 80, start=1100)
    found = allocations(read_tasks(journal), parse_sacct(text + line("12_1", "search-a", "CANCELLED by 0", 20)))
    assert [(*row["jobs"], row["state"], row["elapsed_s"], row["queue_s"]) for row in found] == [
        ("s0", "PREEMPTED", 40, 10),
        ("s0", "COMPLETED", 80, 100),
        ("s1", "CANCELLED", 20, 10),
    ]
    assert column(found, "gpus") == [1, 1, 1] and set(column(found, "source")) == {"sacct"}
    assert column(found, "cpu_s") == [30.5] * 3 and column(found, "allocated_mem_mb") == [1500] * 3


def test_an_id_used_again_by_another_job_is_not_counted(journal: Path) -> None:
    text = line("12_0", "search-a") + line("12_0", "stranger", elapsed=9999) + line("12_1", "search-a")
    assert column(allocations(read_tasks(journal), parse_sacct(text)), "elapsed_s") == [60, 60]


def test_two_submissions_that_got_the_same_id_are_two_jobs(journal: Path) -> None:
    submit(journal, "search-c", "12", [["s0"]])
    text = line("12_0", "search-a", "FAILED", 5) + line("12_1", "search-a") + line("12_0", "search-c", elapsed=7)
    found = allocations(read_tasks(journal), parse_sacct(text))
    assert [(row["name"], row["elapsed_s"]) for row in found] == [("search-a", 5), ("search-a", 60), ("search-c", 7)]


def test_without_gpus_in_accounting_the_request_stands_in_and_says_so(journal: Path) -> None:
    text = line("12_0", "search-a", tres="billing=1,cpu=2,mem=1500M") + line("12_1", "search-a")
    found = allocations(read_tasks(journal), parse_sacct(text))
    assert column(found, "source") == ["requested", "sacct"] and column(found, "gpus") == [1, 1]


def test_what_was_asked_for_is_counted_on_every_node_and_read_from_gres(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    submit(path, "a", "1", [["x"]], gpus=2, nodes=3)
    submit(path, "b", "2", [["y"]], gpus=0, slurm_gres="gpu:h100:4,shard:1")
    submit(path, "c", "3", [["z"]], gpus=0, slurm_gres="gpu")
    submit(path, "d", "4", [["w"]], gpus=0)
    submit(path, "e", "5", [["v"]], gpus=0, slurm_gres="gres/gpu:2(S:0-1)")
    assert column(read_tasks(path), "asked_gpus") == [6, 4, 1, 0, 2]


def test_without_sacct_the_tasks_own_clock_stands_in(journal: Path) -> None:
    change(journal, {"id": 1, "state": "COMPLETED", "task_started": 100.0, "ended": 190.0})
    found = allocations(read_tasks(journal), [])
    assert column(found, "source") == ["measured", "measured"] and column(found, "partition") == ["gpu", "gpu"]
    assert column(found, "elapsed_s") == [90, None] and column(found, "gpus") == [1, 0]
    assert column(found, "state") == ["COMPLETED", "PENDING"]


def test_a_job_that_sacct_still_calls_running_has_ended_if_the_journal_says_so(journal: Path) -> None:
    change(journal, {"id": 1, "state": "COMPLETED", "task_started": 1012.0, "ended": 1070.0})
    lagging = line("12_0", "search-a", "RUNNING", 20, end="Unknown") + line(
        "12_1", "search-a", "RUNNING", 20, end="Unknown"
    )
    found = allocations(read_tasks(journal), parse_sacct(lagging))
    assert [(row["state"], row["elapsed_s"], row["source"]) for row in found] == [
        ("COMPLETED", 60, "measured"),
        ("RUNNING", 20, "sacct"),
    ]
    ended = line("12_0", "search-a", elapsed=61)
    for text in (lagging + ended, ended + lagging):
        late = allocations(read_tasks(journal), parse_sacct(text))
        assert (late[0]["elapsed_s"], late[0]["source"]) == (61, "sacct")


def test_what_its_budget_ended_was_requeued_and_has_not_failed(journal: Path) -> None:
    change(journal, {"id": 1, "state": "BUDGET"}, {"id": 2, "state": "FAILED"})
    text = line("12_0", "search-a", "FAILED", 40) + line("12_0", "search-a", "FAILED", 80, start=1100)
    found = allocations(read_tasks(journal), parse_sacct(text + line("12_1", "search-a", "FAILED")))
    assert column(found, "state") == ["FAILED", "BUDGET", "FAILED"]
    assert [waste_kind(row["state"], row["end"]) for row in found] == ["failed", "requeued", "failed"]


def test_several_studies_share_a_journal(journal: Path) -> None:
    submit(journal, "other-a", "20", [["x"]], results=RESULTS.with_name("other"))
    submit(journal, "moved-a", "21", [["y"]], results=Path("/elsewhere/results/tiny/cells"))
    names = {name: column(read_tasks(journal, Path("results") / name), "name") for name in ("tiny", "other", "tin")}
    assert names == {"tiny": ["search-a", "search-a", "moved-a"], "other": ["other-a"], "tin": []}


def test_a_packed_task_is_one_attempt_of_all_its_cells(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    first, second = submit(path, "a", "1", [["victim,0,1", "victim,0,2"]])
    change(path, {"id": first, "state": "COMPLETED", "task_started": 5.0, "ended": 9.0})
    change(path, {"id": second, "state": "FAILED", "task_started": 5.0, "ended": 20.0})
    (task,) = read_tasks(path)
    assert task["jobs"] == ["victim.0.1", "victim.0.2"]
    assert (task["state"], task["started"], task["ended"]) == ("FAILED", 5, 20)


def test_memory_and_cpu_time_are_read_in_all_their_forms() -> None:
    text = "".join(
        f"{n}|COMPLETED|p|n|cpu=1,mem={memory},node=1|1000|1001|1002|1|{cpu}|name|with|bars\n"
        for n, (memory, cpu) in enumerate(
            [("2G", "00:01"), ("512M", "01:00:00"), ("1.5T", "1-00:00:00"), ("", "INVALID"), ("1024K", "00:00:00")]
        )
    )
    found = parse_sacct(text + "garbage\n\n13_[4-9]|PENDING|p|n||1|Unknown|Unknown|0|00:00|name\n")
    assert column(found, "mem_mb") == [2048, 512, 1.5 * 1024**2, None, 1]
    assert column(found, "cpu_s") == [1, 3600, 86400, None, None]  # SLURM gathers it by step, and says 0 without
    assert set(column(found, "name")) == {"name|with|bars"}


def test_a_journal_that_is_none_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with pytest.raises(AllocationsError, match=r"journal\.sqlite"):
        read_tasks(path)
    path.write_text("nothing of the kind" * 100)
    with pytest.raises(AllocationsError, match="left as it is"):
        read_tasks(path)
    assert path.read_text() == "nothing of the kind" * 100


@pytest.mark.parametrize(
    ("sql", "row"),
    [
        ("UPDATE submissions SET request = 'gone' WHERE name = 'search-a'", r"submissions, row 'search-a'"),
        (
            "UPDATE submissions SET request = '{\"gpus\": \"two\"}' WHERE name = 'search-a'",
            r"submissions, row 'search-a'",
        ),
        ("UPDATE cells SET outputs = '[1' WHERE id = 2", r"cells, row 2"),
        ("UPDATE cells SET outputs = NULL WHERE id = 2", r"cells, row 2"),
    ],
)
def test_a_corrupt_row_of_the_journal_is_named_and_left_alone(journal: Path, sql: str, row: str) -> None:
    database = connect(journal)
    database.execute(sql)
    database.close()
    before = journal.read_bytes()
    with pytest.raises(AllocationsError, match=rf"journal\.sqlite: {row}.*left as it is"):
        read_tasks(journal, RESULTS)
    assert journal.read_bytes() == before


def test_a_journal_with_a_page_overwritten_is_refused_and_left_alone(journal: Path) -> None:
    content = bytearray(journal.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    journal.write_bytes(content)
    with pytest.raises(AllocationsError, match=r"journal\.sqlite"):
        read_tasks(journal)
    assert journal.read_bytes() == content


def test_it_is_read_beside_a_controller_that_writes(journal: Path) -> None:
    book = Journal(journal)
    assert len(read_tasks(journal)) == 2
    book.heartbeat()
    book.close()


def test_a_controller_killed_while_it_wrote_leaves_a_journal_that_can_be_read(journal: Path) -> None:
    """Its transaction is rolled back in a copy; the journal stays as it was."""
    submit(journal, "search-big", "14", [[f"x{number}"] for number in range(300)])
    code = (
        "import os, sys; from pathlib import Path\n"
        "from snakemake_executor_plugin_submitit.journal import connect\n"
        "database = connect(Path(sys.argv[1]))\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute(\"UPDATE cells SET state = 'FAILED', reason = 'a long text so that pages are spilled'\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(journal)], check=False).returncode == -9
    unfinished = journal.with_name(journal.name + "-journal")
    before = journal.read_bytes(), unfinished.read_bytes()
    found = read_tasks(journal)
    assert len(found) == 302 and set(column(found, "state")) == {"PENDING"}
    assert (journal.read_bytes(), unfinished.read_bytes()) == before


def test_what_sacct_has_said_is_kept_when_it_forgets(tmp_path: Path) -> None:
    path = tmp_path / "sacct.csv"
    first = parse_sacct(line("12_0", "a", "PREEMPTED", 40) + line("12_0", "a", "RUNNING", 9, start=1100, end="Unknown"))
    write_kept(path, merge([], first))
    assert read_kept(path) == first
    corrected = parse_sacct(line("12_0", "a", "COMPLETED", 80, start=1100))  # the first attempt is purged by now
    assert column(merge(read_kept(path), corrected), "elapsed_s") == [40, 80]
    assert merge(merge(first, corrected), []) == merge(first, corrected)
    waiting = parse_sacct("12_1|PENDING|gpu|None assigned||1000|Unknown|Unknown|0|00:00:00|a\n")
    assert column(merge(waiting, parse_sacct(line("12_1", "a"))), "state") == ["COMPLETED"]


@pytest.mark.parametrize(
    ("text", "row"), [("a,b\n", "row 1"), (None, "row 3: elapsed_s is 'sixty'"), ("short", "row 3: 1 values")]
)
def test_kept_accounts_that_cannot_be_read_are_named_and_left_alone(tmp_path: Path, text: str | None, row: str) -> None:
    path = tmp_path / "sacct.csv"
    write_kept(path, parse_sacct(line("1", "a") + line("2", "a")))
    lines = path.read_text().splitlines()
    if text is None:
        lines[2] = lines[2].replace(",60.0,", ",sixty,")
    else:
        lines = [text] if text == "a,b\n" else [*lines[:2], text]
    path.write_text("\n".join(lines))
    before = path.read_text()
    with pytest.raises(KeptError, match=rf"sacct\.csv: {row}.*left as it is"):
        read_kept(path)
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("state", "end", "kind"),
    [
        ("COMPLETED", 9.0, ""),
        ("RUNNING", None, ""),
        ("REQUEUED", None, ""),
        ("REQUEUED", 9.0, "requeued"),
        ("PREEMPTED", 9.0, "preempted"),
        ("TIMEOUT", 9.0, "timed out"),
        ("CANCELLED", 9.0, "cancelled"),
        ("NODE_FAIL", 9.0, "node failure"),
        ("OUT_OF_MEMORY", 9.0, "out of memory"),
        ("FAILED", 9.0, "failed"),
        ("LOST", None, "lost"),
        ("SOMETHING_NEW", 9.0, "other"),
    ],
)
def test_every_state_has_its_kind_of_waste(state: str, end: float | None, kind: str) -> None:
    assert waste_kind(state, end) == kind


attempts = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(["COMPLETED", "FAILED", "NODE_FAIL", "TIMEOUT"]), st.integers(0, 500)),
    max_size=12,
    unique_by=lambda one: (one[0], one[2]),
)
TASKS = [
    {"name": "a", "task": task, "job_id": f"1_{task}", "rule": "r", "jobs": [str(task)], "state": "RUNNING", "node": ""}
    | {"cluster": "slurm", "submitted": 1.0, "started": None, "ended": None, "asked_gpus": 1.0, "asked_partition": ""}
    for task in range(2)
]


@given(attempts, st.randoms(use_true_random=False))
def test_sums_do_not_depend_on_order_or_repetition(histories: list[tuple[int, str, int]], random: Any) -> None:
    lines = [line(f"1_{task}", "a", state, elapsed, start=1010 + elapsed) for task, state, elapsed in histories]
    shuffled = lines + lines[: len(lines) // 2]
    random.shuffle(shuffled)
    once, again = (allocations(TASKS, parse_sacct("".join(some))) for some in (lines, shuffled))
    assert once == again
    known = [row["elapsed_s"] for row in once if row["source"] == "sacct"]
    assert sum(known) == sum(elapsed for _, _, elapsed in histories) and len(known) == len(histories)


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 60)), max_size=6), max_size=6))
def test_accounts_kept_never_shrink_and_the_latest_word_stands(answers: list[list[tuple[int, int, int]]]) -> None:
    """Each answer of sacct has some attempts (job, start) with an elapsed time, which it may correct later."""
    kept: list[dict[str, Any]] = []
    last: dict[tuple[str, float], float] = {}
    for answer in answers:
        text = "".join(line(f"1_{job}", "a", elapsed=elapsed, start=1000 + start) for job, start, elapsed in answer)
        last |= {(f"1_{job}", 1000.0 + start): float(elapsed) for job, start, elapsed in answer}
        kept = merge(kept, parse_sacct(text))
        assert {(row["job_id"], row["start"]): row["elapsed_s"] for row in kept} == last
        assert len(kept) == len(last)
