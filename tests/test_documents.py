"""Every command that stands in the documents works: dry, where no study has run and there is neither data nor SLURM."""

import functools
import importlib.util
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import workflow
from documents import ROOT, DocumentError, calls, command_blocks, files, name, pages, shown
from snakemake_executor_plugin_submitit.journal import Journal

COMMAND = Path(sys.executable).with_name("scatterproof")
# What a reader replaces, and by what it is replaced here
PLACEHOLDERS = {r"\bNAME\b": "demo"}
# Without one of these Snakemake runs nothing on this machine, but a dry-run does not notice
LIMITS = re.compile(r"(-[cj]\d*|--cores|--jobs|--profile|-n|--dry-run)(=.*)?$")
CLONED = [
    "Makefile",
    "Snakefile",
    "benchmarks",
    "config",
    "docs",
    "envs",
    "profiles",
    "pyproject.toml",
    "rules",
    "slurm",
]
CLONED += ["src", "tests", "workflow"]
# What `scatterproof` says of a study that has not run
NOTHING_YET = (
    "no such folder: nothing of this study has run here",
    "run the study to its end first",
    "no such file or folder, expected one, or digits",
    "no such file: the study has no attacks, or has not been run to its end",
)
# `make test ARGS=...` hands these on, and `make` in a test would take them
MAKES = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "ARGS", "STUDY", "CORES", "TORCH", "PYTHON"}


@dataclass(frozen=True)
class Call:
    """A simple command, and the files that the commands before it in its block copy."""

    words: tuple[str, ...]
    copied: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        return " ".join(self.words)


def canonical(words: list[str]) -> tuple[str, ...]:
    """A command without what a dry-run does not depend on, so that each is tried once."""
    for pattern, value in PLACEHOLDERS.items():
        words = [re.sub(pattern, value, word) for word in words]
    if "--report" in words:
        at = words.index("--report")
        words = [*words[:at], "--cores", "1", *words[at + 2 :]]
    if words[0] == "snakemake" and "--cores" in words:
        at = words.index("--cores")
        rest = words[at + 2 :]
        if rest and not rest[0].startswith("-"):  # it keeps targets apart from an option that would take them
            return (*words[:at], "--cores", "1", *rest)
        return (words[0], "--cores", "1", *words[1:at], *rest)
    return tuple(words)


def every_call() -> dict[Call, list[str]]:
    """Every command of the documents, and where it stands. What breaks the convention is left to its own test."""
    found: dict[Call, list[str]] = defaultdict(list)
    for path in files():
        try:
            places = list(shown(path))
        except DocumentError:
            continue
        for where, commands in places:
            copied: list[tuple[str, ...]] = []
            for words in (words for command in commands for words in calls(command)):
                if words[0] == "cp":
                    copied.append(tuple(words))
                else:
                    found[Call(canonical(words), tuple(copied))].append(where)
    return found


CALLS = every_call()


@contextmanager
def project(copied: tuple[tuple[str, ...], ...] = ()) -> Iterator[Path]:
    """A folder like a fresh clone, which is gone afterwards with all that was written."""
    with tempfile.TemporaryDirectory() as folder:
        for entry in CLONED:
            Path(folder, entry).symlink_to(ROOT / entry)
        for words in copied:
            for source in words[1:-1]:
                shutil.copy(Path(folder, source), Path(folder, words[-1]))
        yield Path(folder)


def run(command: list[str], call: Call) -> tuple[int, str]:
    """Run in a fresh project: exit status, and what the user sees."""
    environment = {key: value for key, value in workflow.environment().items() if key not in MAKES}
    with project(call.copied) as folder:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    return done.returncode, done.stdout + done.stderr


@functools.cache
def complaint(call: Call) -> str:
    """What is wrong with a command; empty where it works."""
    return CHECKS[call.words[0]](call)


def snakemake(call: Call) -> str:
    """It must list jobs, and say how many may run at once."""
    words = call.words[1:]
    if not any(LIMITS.match(word) for word in words):
        return "Snakemake runs nothing without --cores"
    dry = [] if {"-n", "--dry-run"} & set(words) else ["--dry-run"]
    status, output = run([sys.executable, "-m", "snakemake", *dry, *words], call)
    return "" if status == 0 and workflow.jobs(output) else f"status {status}, and no list of jobs: {output}"


def scatterproof(call: Call) -> str:
    status, output = run([str(COMMAND), *call.words[1:]], call)
    return "" if status == 0 or any(text in output for text in NOTHING_YET) else output


def make(call: Call) -> str:
    """The target must be there, and the studies that it runs must list their jobs."""
    status, output = run(["make", "--dry-run", *call.words[1:], "CORES=1", f"PYTHON={sys.executable}"], call)
    if status:
        return output
    lines = re.sub(r"\\\n", "", output).splitlines()
    lines = [line for line in lines if re.match(r"\.venv/bin/(snakemake|scatterproof) ", line) and "--lint" not in line]
    return "".join(complaint(Call(canonical(words), call.copied)) for line in lines for words in calls(line))


def python(call: Call) -> str:
    """The program and its options must be there; some need minutes or a cluster, so they are not run."""
    program, *options = call.words[1:]
    if program == "-m":
        return "" if importlib.util.find_spec(options[0]) else f"no module {options[0]}"
    if not (ROOT / program).is_file():
        return f"no file {program}"
    text = (ROOT / program).read_text(encoding="utf-8")
    return "".join(f"no option {word}" for word in options if word.startswith("--") and f'"{word}"' not in text)


def bash(call: Call) -> str:
    return "" if (ROOT / call.words[1]).is_file() else f"no file {call.words[1]}"


def sqlite(call: Call) -> str:
    """The query must fit a new journal."""
    _, path, query = call.words
    with project() as folder:
        Journal(folder / path).close()
        with closing(sqlite3.connect(folder / path)) as database:
            try:
                database.execute(query)
            except sqlite3.Error as error:
                return str(error)
    return ""


CHECKS = {"snakemake": snakemake, "scatterproof": scatterproof, "make": make, "python": python}
CHECKS |= {"bash": bash, "sqlite3": sqlite}


@pytest.fixture(scope="module")
def complaints(request: pytest.FixtureRequest) -> Iterator[Mapping[Call, "Future[str]"]]:
    """What is wrong with every command of the tests that were asked for: two at a time, while the tests wait."""
    asked = [item for item in request.session.items if "complaints" in getattr(item, "fixturenames", ())]
    wanted = {item.callspec.params["call"] for item in asked}
    pool = ThreadPoolExecutor(2)
    yield {call: pool.submit(complaint, call) for call in CALLS if call in wanted}
    pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_works(call: Call, complaints: Mapping[Call, "Future[str]"]) -> None:
    wrong = complaints[call].result()
    assert not wrong, f"{', '.join(CALLS[call])}: {call}\n{wrong}"


@pytest.mark.parametrize("path", pages(), ids=name)
def test_every_block_is_run_or_says_why_not(path: Path) -> None:
    for where, commands in shown(path):
        assert commands, where


@pytest.mark.parametrize("path", pages(), ids=name)
def test_every_link_leads_somewhere(path: Path) -> None:
    """To a file of the project, and where it names a place in a page, to a heading or an anchor there."""
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
        file, _, heading = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), target
        if heading:
            text = page.read_text(encoding="utf-8")
            titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
            assert heading in anchors | set(re.findall(r'<a id="(.+?)">', text)), target


def test_commands_of_every_kind_are_seen() -> None:
    places = [where.partition(":")[0] for wheres in CALLS.values() for where in wheres]
    assert {call.words[0] for call in CALLS} == set(CHECKS)
    assert {"README.md", "config/README.md", "docs/own-model.md", "docs/results/fineness/README.md"} <= set(places)
    assert {"slurm/config.yaml", "docs/results/cifar100-eighth/report.html"} <= set(places)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nls\n```", "page:1: commands go in ```bash or ```bash no-run blocks, not ```sh"),
        ("```bash slow\nls\n```", "not ```bash slow"),
        ("```\nsnakemake --cores 2\n```", "page:1: 'snakemake --cores 2' is a command"),
        ("```text\n$ A=1 .venv/bin/scatterproof cost\n```", "is a command, and goes in a ```bash block"),
        ("Words\n\n```bash no-run\nls\n```", "page:3: a no-run block needs an HTML comment right before it"),
        ("<!-- Why -->\n\nWords\n```bash no-run\nls\n```", "page:4: a no-run block needs"),
        ("```bash\nls", "page:1: block is never closed"),
        ("```bash\ngit clone <somewhere> && cd it\n```", "page:1: bash cannot read 'git clone <somewhere>"),
    ],
)
def test_a_block_that_breaks_the_convention_is_refused(text: str, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)):
        command_blocks(text, "page")


def test_a_page_is_read_as_a_reader_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("documents.ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "Say `make\ndemo` or `make`.\n\n<!-- Why\nnot -->\n```bash no-run\n# first\ncd a && A=1 make x  # y\n```\n"
    )
    assert list(shown(page)) == [("page.md:6", ["cd a && A=1 make x  # y"]), ("page.md:1", ["make demo"])]
    assert calls("cd a && A=1 .venv/bin/make x  # y") == [["make", "x"]]
    page.write_text("Then run snakemake --cores 2.\n")
    with pytest.raises(DocumentError, match=r"page\.md: 'snakemake --cores' is a command, and goes between backticks"):
        list(shown(page))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("snakemake --cores 2 --configfile config/demo.yaml results/demo/tables/prune.csv", "no list of jobs"),
        ("snakemake --cores 2 --configfile config/demo.yaml --dry-run --quiet", "no list of jobs"),
        ("snakemake --configfile config/demo.yaml", "Snakemake runs nothing without --cores"),
        ("make study STUDY=config/none.yaml", "no list of jobs"),
        ("make nonsense", "nonsense"),
        ("scatterproof cost --of demo", "unrecognized arguments: --of demo"),
        ("python benchmarks/search.py --chek", "no option --chek"),
        ("python benchmarks/none.py", "no file benchmarks/none.py"),
        ("sqlite3 .submitit/journal.sqlite 'SELECT absent FROM cells'", "no such column: absent"),
    ],
)
def test_a_wrong_command_is_noticed(command: str, message: str) -> None:
    (words,) = calls(command)
    assert message in complaint(Call(tuple(words)))
