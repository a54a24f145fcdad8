"""The controller's end of a fork server: it starts it, asks it for tasks, and starts another where one has died."""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit import slurm
from snakemake_executor_plugin_submitit.shared_files import tail

LOG = "fork_server.log"


class ForkError(Exception):
    """The fork server can't do what it is asked for; says why."""


class Forks:
    """A fork server with modules imported. Raises: ForkError, also where a module can't be imported."""

    def __init__(self, base: Path, modules: Sequence[str]) -> None:
        self.base, self.modules = base, list(modules)
        self.process = self._start()

    def task(self, folder: Path, index: int, starts: int, environment: dict[str, str]) -> str:
        """Fork a task; its id, `PID:CREATED`. Raises: ForkError, after which another server is at work."""
        request = {"folder": str(folder), "index": index, "starts": starts, "env": environment}
        try:
            answer = self._ask(json.dumps(request))
        except ForkError:
            self.close()
            self.process = self._start()
            raise
        return f"{answer['pid']}:{answer['created']}"

    def close(self) -> None:
        """Have it end; its tasks go on."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()
        self.process.wait(30)

    def _start(self) -> "subprocess.Popen[str]":
        with (self.base / LOG).open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-u", "-m", "snakemake_executor_plugin_submitit.fork_server", *self.modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=slurm.environment(),
                start_new_session=True,  # a Ctrl-C in our terminal is for us alone
            )
        answer = self._ask(None)
        if "error" in answer:
            raise ForkError(f"--submitit-preload {','.join(self.modules)}: {answer['error']}")
        return self.process

    def _ask(self, line: str | None) -> dict[str, Any]:
        assert self.process.stdin and self.process.stdout
        try:
            if line is not None:
                self.process.stdin.write(line + "\n")
                self.process.stdin.flush()
            answered = self.process.stdout.readline()
        except OSError as error:
            answered, line = "", str(error)
        if not answered:
            raise ForkError(f"the fork server has ended: {tail(self.base / LOG) or 'it said nothing'}")
        answer: dict[str, Any] = json.loads(answered)
        return answer
