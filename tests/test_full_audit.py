"""`scatterproof audit --full` of several layers: processes side by side, none of which harms or outlives the others."""

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import scatterproof
from scatterproof.auditing.audit import Audit
from scatterproof.auditing.verdicts import Processes
from scatterproof.errors import UserError
from test_audit import arrays

NETWORK = """
import os, signal, sys
from torch import nn

def network(killed=""):
    if killed and sys.argv[0].endswith("layer_verdict.py") and sys.argv[2] == killed:
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.Tanh(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
"""
STAND_IN = """
import os, pathlib, pickle, signal, sys, threading, time

folder, number = pathlib.Path(sys.argv[1]), sys.argv[2]
threading.Thread(target=lambda: os.read(0, 1) or os._exit(1), daemon=True).start()
(folder / f"{number}.pid").write_text(str(os.getpid()))
print("draw 1", flush=True)
if (folder / "wait").exists():
    time.sleep(600)
if number == "0":
    os.kill(os.getpid(), signal.SIGKILL)
if number == "1":
    sys.exit(3)
(folder / f"{number}.pickle").write_bytes(pickle.dumps("the data are too few"))
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Processes that judge nothing: the first is killed, the second fails, the third says why there is no verdict."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    monkeypatch.setattr(Processes, "program", (str(tmp_path / "stand_in.py"),))
    return tmp_path


def test_each_layer_says_how_it_ended(stand_in: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    results = Processes(stand_in, {"layers": ["a", "b", "c"], "threads": 1}, 4, said.append).run(2)
    assert list(results) == ["a", "b", "c"] and len(said) == 3
    assert "ended by signal 9" in str(results["a"]) and "status 3" in str(results["b"])
    assert results["c"] == "the data are too few" and "c: no verdict: the data are too few" in said
    assert "12/12" in capfd.readouterr().err


def test_ctrl_c_ends_every_process(stand_in: Path) -> None:
    (stand_in / "wait").touch()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
    threading.Thread(target=_interrupt_once_two_run, args=(stand_in,)).start()
    with pytest.raises(KeyboardInterrupt):
        Processes(stand_in, {"layers": ["a", "b", "c"], "threads": 1}, 4, print).run(2)
    pids = [int(path.read_text()) for path in stand_in.glob("*.pid")]
    assert len(pids) == 2 and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _interrupt_once_two_run(folder: Path) -> None:
    while len([path for path in folder.glob("*.pid") if path.read_text()]) < 2:
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with arrays, and a network of random weights."""
    arrays(tmp_path / "images.npz")
    (tmp_path / "full_audit_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def audit(out: str, **options: Any) -> Audit:
    torch.manual_seed(0)  # of the network's weights
    return scatterproof.audit(
        "full_audit_network:network", "images.npz", input_size=8, blocks=16, layers=["1", "3"], inputs=20, full=True,
        out=out, **options,
    )  # fmt: skip


@pytest.mark.slow
def test_layers_side_by_side_have_the_verdicts_of_one_after_the_other(here: Path) -> None:
    """To the last bit; only minutes may differ."""
    both, alone = audit("both", threads=2).verdicts, audit("alone", threads=1).verdicts
    assert both is not None and alone is not None and list(both["layer"]) == ["1", "3"]
    pd.testing.assert_frame_equal(both.drop(columns="minutes"), alone.drop(columns="minutes"), check_exact=True)
    assert not list(here.glob("*/verdicts-*"))


@pytest.mark.slow
def test_a_layer_whose_process_dies_leaves_the_others_their_verdicts(here: Path) -> None:
    result = audit("out", threads=2, model_args={"killed": "0"})
    assert result.verdicts is not None and list(result.verdicts["layer"]) == ["3"]
    assert list(result.unjudged) == ["1"] and "no verdict: 1" in result.answer
    page = result.page.read_text()
    assert "No verdict: 1: its process was ended by signal 9" in page and "The verdict for this model" in page


def test_what_can_not_be_judged_is_said_before_anything_runs(here: Path) -> None:
    with pytest.raises(UserError, match="--full --inputs 0"):
        scatterproof.audit("full_audit_network:network", "images.npz", inputs=0, full=True)
    with pytest.raises(UserError, match="--threads 0"):
        scatterproof.audit("full_audit_network:network", "images.npz", threads=0)
    assert not Path("audit").exists()
