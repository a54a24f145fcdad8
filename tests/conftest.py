"""One finished run of the tiny study, shared by every test that looks at it; those that change it copy it."""

import fcntl
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import workflow
from workflow import Finished


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The run, in a folder of this session's own.

    Sessions that are given the same empty folder as FINISHED_STUDY, as the two of .ci/run are, make it once in there:
    whichever comes first, while the others wait.
    """
    folder = tmp_path_factory.mktemp("finished")
    if not os.environ.get("FINISHED_STUDY"):
        return workflow.finish(folder)
    shared = Path(os.environ["FINISHED_STUDY"])
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = workflow.finish(shared)
    return replace(run, folder=shutil.copytree(shared, folder, dirs_exist_ok=True))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first pays for the shared run, which a busy machine draws out."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
