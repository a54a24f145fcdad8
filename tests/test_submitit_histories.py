"""Controllers that die, users that edit meanwhile: in the end each result is of what is wanted in the end."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from test_submitit_local import SNAKEMAKE, wait_for

SNAKEFILE = """
from pathlib import Path
import time
WORD = "by_global 0"
def wait(name):
    with open(f"runs.{name}", "a") as file:
        print("ran", file=file)
    while not Path("go").exists():
        time.sleep(0.1)
rule all:
    input: expand("{kind}.out", kind=KINDS)
    localrule: True
rule by_shell:
    output: "by_shell.out"
    shell: "echo ran >> runs.by_shell; until [ -e go ]; do sleep 0.1; done; echo by_shell 0 > {output}"
rule by_run:
    output: "by_run.out"
    run:
        wait("by_run")
        Path(output[0]).write_text('''by_run
0''')
rule by_global:
    output: "by_global.out"
    run:
        wait("by_global")
        Path(output[0]).write_text(WORD)
rule by_config:
    output: "by_config.out"
    run:
        wait("by_config")
        Path(output[0]).write_text(str(config["word"]))
rule by_threads:
    output: "by_threads.out"
    threads: 1
    shell: "echo ran >> runs.by_threads; until [ -e go ]; do sleep 0.1; done; echo {threads} > {output}"
rule by_helper:
    output: "by_helper.out"
    params: helper=workflow.source_path("helper.sh")
    shell: "echo ran >> runs.by_helper; until [ -e go ]; do sleep 0.1; done; bash {params.helper} > {output}"
rule by_input:
    input: "data.txt", old=ancient("ancient.txt")
    output: "by_input.out"
    shell: "echo ran >> runs.by_input; cp {input[0]} {output}.part; until [ -e go ]; do sleep 0.1; done;"
        " mv {output}.part {output}"
rule group_first:
    output: temp("first.out")
    group: "pair"
    shell: "echo by_group 0 > {output}"
rule by_group:
    input: "first.out"
    output: "by_group.out"
    group: "pair"
    shell: "echo ran >> runs.by_group; until [ -e go ]; do sleep 0.1; done; cp {input} {output}"
"""
KINDS = ["by_shell", "by_run", "by_global", "by_config", "by_threads", "by_helper", "by_input", "by_group"]


class Project:
    """One folder with a version of each kind of thing that a job's result depends on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.versions = dict.fromkeys(KINDS, 0)
        self.starts = dict.fromkeys(KINDS, 1)
        (folder / "ancient.txt").write_text("")
        self.write()

    def edit(self, kinds: set[str]) -> None:
        for kind in kinds:
            self.versions[kind] += 1
            self.starts[kind] += 1
        self.write()

    def write(self) -> None:
        """The files, all of them new, with the content that is wanted now."""
        version, text = self.versions, SNAKEFILE.replace("KINDS", repr(KINDS))
        text = text.replace("threads: 1", f"threads: {1 + version['by_threads'] % 2}").replace(
            "'by_run\n0'", f"'by_run\n{version['by_run']}'"
        )
        for kind in ("by_shell", "by_global", "by_group"):
            text = text.replace(f"{kind} 0", f"{kind} {version[kind]}")
        (self.folder / "Snakefile").write_text(text)
        (self.folder / "helper.sh").write_text(f"echo by_helper {version['by_helper']}\n")
        (self.folder / "data.txt").write_text(f"by_input {version['by_input']}\n")
        os.utime(self.folder / "ancient.txt")

    def start(self) -> "subprocess.Popen[str]":
        command = [SNAKEMAKE, "--executor", "submitit", "--submitit-cluster", "local", "--jobs", "20", "--nolock"]
        command += ["--rerun-incomplete", "--scheduler", "greedy", "--seconds-between-status-checks", "1"]
        command += ["--config", f"word=by_config {self.versions['by_config']}", f"unused={self.versions}"]
        with (self.folder / "log.txt").open("a") as log:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip

    def let_end(self) -> None:
        """Let the jobs end, with no controller to see it."""
        (self.folder / "go").touch()
        tasks = ["pgrep", "-f", f"submitit.task {self.folder}"]
        wait_for(lambda: not subprocess.run(tasks, capture_output=True).stdout, 60)
        assert all((self.folder / f"{kind}.out").exists() for kind in KINDS)
        (self.folder / "go").unlink()

    def runs(self) -> dict[str, int]:
        counts = {}
        for kind in KINDS:
            path = self.folder / f"runs.{kind}"
            counts[kind] = len(path.read_text().splitlines()) if path.exists() else 0
        return counts

    def results(self) -> dict[str, str]:
        return {kind: (self.folder / f"{kind}.out").read_text().strip().replace("\n", " ") for kind in KINDS}

    def wanted(self) -> dict[str, str]:
        return {kind: f"{kind} {number}" for kind, number in self.versions.items()} | {
            "by_threads": str(1 + self.versions["by_threads"] % 2)  # more than this machine's cores cannot be had
        }


def live_through(folder: Path, history: list[set[str]], ended: bool = False) -> None:
    """A run that is killed and continued after each edit of a history, and what must hold of it.

    ended: before the last edit all jobs end, while no controller lives.
    """
    project = Project(folder)
    try:
        _live_through(project, history, ended)
    finally:
        (folder / "go").touch()  # lets jobs end that a failure leaves behind


def _live_through(project: Project, history: list[set[str]], ended: bool) -> None:
    for number, edit in enumerate(history, start=1):
        process = project.start()
        wait_for(lambda: project.runs() == project.starts, 120)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if ended and number == len(history):
            project.let_end()
        project.edit(edit)
    process = project.start()
    wait_for(lambda: project.runs() == project.starts or process.poll() is not None, 120)
    (project.folder / "go").touch()
    log = project.folder / "log.txt"
    assert process.wait(120) == 0, log.read_text()
    assert project.results() == project.wanted(), log.read_text()
    assert project.runs() == project.starts, "an unchanged job was ended and started again\n" + log.read_text()


@pytest.mark.slow
def test_what_has_changed_is_computed_anew_and_nothing_else(tmp_path: Path) -> None:
    live_through(tmp_path / "project", [{"by_run", "by_threads", "by_group", "by_input"}])


@pytest.mark.slow
def test_what_ended_while_no_controller_lived_counts_only_if_it_is_still_wanted(tmp_path: Path) -> None:
    live_through(tmp_path / "project", [{"by_run", "by_threads", "by_config", "by_input"}], ended=True)


@pytest.mark.slow
@pytest.mark.timeout(1500)
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(history=st.lists(st.sets(st.sampled_from(KINDS)), min_size=1, max_size=3), ended=st.booleans())
def test_any_history_ends_with_what_is_wanted_in_the_end(
    tmp_path_factory: pytest.TempPathFactory, history: list[set[str]], ended: bool
) -> None:
    live_through(tmp_path_factory.mktemp("history") / "project", history, ended)
