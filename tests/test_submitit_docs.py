"""Settings, resources and states in the docs are the code's: `python tests/test_submitit_docs.py` writes them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit import resources
from snakemake_executor_plugin_submitit.job_states import STATES, Kind
from snakemake_executor_plugin_submitit.settings import ExecutorSettings, documentation

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs/slurm.md", ROOT / "src/snakemake_executor_plugin_submitit/README.md"]


def states() -> str:
    lines = ["| SLURM's state | a job in it |", "| --- | --- |"]
    return "\n".join(lines + [f"| {name} | {state.meaning} |" for name, state in STATES.items()]) + "\n"


def filled(text: str) -> str:
    """A page with its generated parts made anew."""
    parts = {"settings": documentation(), "resources": resources.documentation(), "states": states()}
    for name, content in parts.items():
        part = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = part.sub(lambda found, content=content: found[1] + content + found[2], text)  # type: ignore[misc]
    return text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_have_every_setting_resource_and_state(page: Path) -> None:
    assert page.read_text() == filled(page.read_text())


def test_the_command_line_has_every_setting() -> None:
    helped = subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=True)
    for name in ExecutorSettings.__dataclass_fields__:
        flag = f"--submitit-{name.replace('_', '-')}"
        assert re.search(rf"{flag}\s", helped.stdout), flag


def test_the_states_of_a_job_are_all_there() -> None:
    assert {name for name, state in STATES.items() if state.kind is Kind.DONE} == {"COMPLETED"}
    failing = {"FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "BOOT_FAIL"}
    assert failing <= {name for name, state in STATES.items() if state.kind is Kind.FAILED}


if __name__ == "__main__":
    for one in PAGES:
        one.write_text(filled(one.read_text()))
