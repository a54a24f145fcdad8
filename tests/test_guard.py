"""One controller a study, and a killed one leaves nothing to clean up."""

import subprocess
import sys
from pathlib import Path

import pytest

from scatterproof.running.run_lock import GuardError, hold_study

HOLD = """
import sys, time
from scatterproof.errors import UserError
from scatterproof.running.run_lock import hold_study
try:
    hold_study(sys.argv[1])
except UserError as error:
    sys.exit(str(error))
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_second_controller_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "new"
    with start(folder, 60) as first:
        try:
            assert first.stdout is not None
            assert first.stdout.readline() == "held\n"
            for _ in range(2):  # being refused neither frees the study nor forgets its holder
                with start(folder, 0) as second:
                    _, said = second.communicate(timeout=60)
                assert second.returncode == 1
                assert said.count("\n") == 1
                assert said.startswith(f"{folder} is being worked on by process {first.pid} on ")
            with pytest.raises(GuardError, match=f"process {first.pid} "):
                hold_study(str(folder))
        finally:
            first.kill()
    with start(folder, 0) as third:
        out, said = third.communicate(timeout=60)
    assert (out, said, third.returncode) == ("held\n", "", 0)


def test_other_studies_are_free(tmp_path: Path) -> None:
    hold_study(str(tmp_path / "one"))
    hold_study(str(tmp_path / "other"))
    with pytest.raises(GuardError):
        hold_study(str(tmp_path / "one"))
