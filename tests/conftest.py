"""One finished run of the tiny study, shared by every test that looks at it; those that change it copy it."""

import time

import pytest

import workflow
from workflow import Finished


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    started = time.monotonic()
    status, output = workflow.snakemake(folder, workflow.TINY)
    assert status == 0, output
    return Finished(folder, output, time.monotonic() - started)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test comes first pays for the shared run, which a busy machine draws out."""
    for item in items:
        if "finished" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))
