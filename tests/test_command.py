"""`scatterproof cost`: the account on the terminal, read-only, without Snakemake or torch."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from histories import inside, line, submit
from scatterproof.command.main import main
from scatterproof.cost.account import JOURNAL
from scatterproof.cost.sums import cost_summary
from scatterproof.running.files import write_text
from snakemake_executor_plugin_submitit.journal import Journal
from test_ledger import write_records

COMMAND = Path(sys.executable).with_name("scatterproof")
SLOW = ["torch", "snakemake", "pandas", "numpy", "matplotlib"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two victims on a cluster, one attempt of which was preempted, and an sacct that knows them."""
    monkeypatch.chdir(tmp_path)
    cost = {"gpu_watts": 600, "cpu_watts_per_core": 10, "grid_gco2_per_kwh": 400, "prices": {"gpu": 3.0}}
    write_text("config/tiny.yaml", yaml.safe_dump({"study": "tiny", "cost": cost}))
    submit(JOURNAL, "train-a", "12", [["victim,0"], ["copy_free,0"]])
    records = [
        inside("12_0", "train-a", "victim.0", 1212.0, useful=540.0, restart=1),
        inside("12_1", "train-a", "copy_free.0", 1013.0, useful=30.0),
    ]
    write_records(Path("results/tiny/records"), records)
    write_text("results/tiny/tables/victim.csv", "victim,victim_seed,device_minutes\nvictim,0,9\ncopy_free,0,0.5\n")
    said = line("12_0", "train-a", "PREEMPTED", 120) + line("12_0", "train-a", elapsed=600, start=1200)
    write_text("said", said + line("12_1", "train-a", elapsed=60) + line("12_1", "stranger", elapsed=7777))
    write_text("bin/sacct", f"#!/bin/sh\ncat {tmp_path}/said\n")
    Path("bin/sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_prints_the_account_and_writes_nothing(project: Path) -> None:
    before = files(project)
    code = (
        "import sys; from scatterproof.command.main import main\n"
        "status = main(['cost', '--configfile', 'config/tiny.yaml'])\n"
        f"sys.exit(status or [name for name in {SLOW} if name in sys.modules] or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert files(project) == before
    head, *rows = [text.split() for text in done.stdout.splitlines()[2:5]]
    assert "allocated GPU-min" in done.stdout and "CPU-min" in done.stdout
    assert [head[0], *(row[0] for row in rows)] == ["stage", "victim", "total"]
    assert "13 GPU-minutes were allocated, by SLURM's accounting. Of them jobs used CUDA for 9.5 minutes" in done.stdout
    assert "1 of 3 attempts was wasted, 2 of 13 allocated GPU-minutes: 1 preempted (2 minutes)." in done.stdout
    assert "Price of the GPUs allocated: 0.65 EUR (a GPU-hour: gpu 3)." in done.stdout


def test_it_is_installed_and_works_beside_a_running_controller(project: Path) -> None:
    book = Journal(JOURNAL)
    done = subprocess.run([COMMAND, "cost", "--study", "tiny"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "") and "3 attempts" in done.stdout
    assert book.holds()
    book.close()


def test_csv_has_every_sum_and_notes_stay_out_of_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bin/sacct").write_text("#!/bin/sh\necho slurmdbd: connection refused >&2; exit 1\n")
    assert main(["cost", "--study", "tiny", "--by", "victim", "--csv"]) == 0
    told = capsys.readouterr()
    rows = {row["victim"]: row for row in csv.DictReader(told.out.splitlines())}
    assert set(rows) == {"victim", "copy_free", "total"}
    assert float(rows["total"]["device_minutes"]) == 9.5 and rows["total"]["allocated_gpu_minutes"] == ""
    assert told.err == "sacct: slurmdbd: connection refused; the jobs' own clocks stand in\n"


@pytest.mark.parametrize(("by", "names"), [("rule", ["train_victim"]), ("attack", ["(none)"]), ("stage", ["victim"])])
def test_it_sums_by_what_is_asked(project: Path, by: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--study", "tiny", "--by", by, "--csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row[by] for row in rows] == [*names, "total"]
    assert {row["allocated_gpu_minutes"] for row in rows} == {"13.0"}


def test_an_attack_is_marked_by_its_controls_once_the_study_has_them(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "scatterproof.command.show_cost.group_sums", lambda costs, by, _: [("refine+layer", cost_summary(costs, 1)[-1])]
    )
    assert main(["cost", "--study", "tiny", "--by", "attack"]) == 0
    assert "refine+layer" in capsys.readouterr().out
    controls = Path("results/tiny/tables/controls.csv")
    controls.parent.mkdir(parents=True, exist_ok=True)
    controls.write_text("victim,threat,attack,control,passed\nvictim,layer-1-100-labels,refine,planted,False\n")
    assert main(["cost", "--study", "tiny", "--by", "attack"]) == 0
    assert "refine (control failed: planted)+layer" in capsys.readouterr().out


def test_without_journal_or_sacct_it_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--study", "tiny", "--journal", "none.sqlite"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("none.sqlite: no journal") and "2 attempts" in told
    Path("bin/sacct").unlink()
    os.environ["PATH"] = f"{project}/bin"
    assert main(["cost", "--study", "tiny"]) == 0
    assert "sacct cannot be asked: " in capsys.readouterr().out


def test_a_folder_alone_has_no_assumptions(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--folder", "results/tiny"]) == 0
    told = capsys.readouterr().out
    assert "no watts and prices are assumed" in told and "kWh" not in told and "EUR" not in told


@pytest.mark.parametrize(
    ("arguments", "change", "message"),
    [
        (["--study", "none"], {}, "results/none: no such folder"),
        ([], {}, "config/demo.yaml: no such file"),
        (["--configfile", "none.yaml"], {}, "none.yaml: cannot be read"),
        (["--study", "tiny"], {"config/tiny.yaml": "study: other\n"}, "its study is 'other', not 'tiny'"),
        (["--study", "tiny"], {"config/tiny.yaml": "study: tiny\ncost: {prices: {gpu: -3}}"}, "cost.prices.gpu: "),
        (["--study", "tiny"], {str(JOURNAL): "no journal"}, "journal.sqlite: cannot be used as a journal"),
        (["--study", "tiny"], {"results/tiny/records/r/j.1.json": "{"}, "r/j.1.json: not a cost record"),
        (["--study", "tiny"], {"results/tiny/tables/victim.csv": "a\n1\n"}, "victim.csv: not a table of victims"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_left_as_it_is(
    project: Path, arguments: list[str], change: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, text in change.items():
        write_text(path, text)
    before = files(project)
    assert main(["cost", *arguments]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("scatterproof: error: ") and message in told.err and told.err.count("\n") == 1
    assert files(project) == before
