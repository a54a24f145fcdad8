"""A study with defences: what they cost stands in its tables, and no secret of theirs outside the owner's folders."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scatterproof.puzzle import Answer, Protected, Puzzle
from workflow import RESULTS, Finished

OWNERS = {"protected", "answers"}
FEW = 6  # numbers in a row that no other list would hold by chance


@pytest.fixture(scope="module")
def protected(finished: Finished) -> dict[Path, Protected]:
    paths = sorted((finished.folder / RESULTS / "protected").rglob("*.safetensors"))
    return {path: Protected.load(path) for path in paths}


def test_each_defence_protected_each_victim_attacked(finished: Finished, protected: dict[Path, Protected]) -> None:
    assert {path.parent.name for path in protected} == {"rescale-10", "home-0.3-drawn"}
    costs = pd.read_csv(finished.folder / RESULTS / "tables/defences.csv")
    assert len(costs) == len(protected)
    assert (costs["fidelity"] == 1).all() and (costs["output_error"] < 1e-4).all()
    by_name = costs.set_index("defence")
    assert by_name.loc["rescale", "trusted_flops_share"] == 0 and by_name.loc["rescale", "device_flops_share"] == 1
    assert 0.3 < by_name.loc["home", "trusted_flops_share"] <= 1
    assert by_name.loc["home", "device_flops_share"] == pytest.approx(0.7, abs=0.05)


def test_protecting_is_a_stage_of_the_ledger(finished: Finished) -> None:
    stages = pd.read_csv(finished.folder / RESULTS / "tables/cost_summary.csv").set_index("stage")
    assert stages.loc["defences", "jobs"] >= 2 and stages.loc["defences", "device_minutes"] > 0


def test_no_secret_lies_outside_the_owners_folders(finished: Finished, protected: dict[Path, Protected]) -> None:
    """Neither as bytes nor as numbers in a text: puzzles, what attacks reached, logs, records, tables, the page.

    Weights that stay at home are the victim's own, which undefended threats scatter: the next test looks for those.
    """
    everything = [(path, name, value) for path, made in protected.items() for name, value in made.secret.items()]
    secrets = {f"{path}: {name}": value.numpy() for path, name, value in everything if not name.endswith("/blocks")}
    assert len(secrets) >= 3
    files = [path for path in (finished.folder / RESULTS).rglob("*") if path.is_file()]
    read = [path for path in files if path.relative_to(finished.folder / RESULTS).parts[0] not in OWNERS]
    assert {path.suffix for path in read} >= {".safetensors", ".log", ".json", ".csv", ".html", ".npz"}
    for path in read:
        held = path.read_bytes()
        for name, value in secrets.items():
            first = value.ravel()[:FEW]
            assert first.tobytes() not in held, (path, name)
            for text in (", ", ",", " ", "\n"):
                assert text.join(map(str, first.tolist())).encode() not in held, (path, name)
    answers = (finished.folder / RESULTS / "answers").rglob("*.safetensors")
    assert sum(bool(Answer.load(path).secret) for path in answers) == len(protected)


def test_what_stays_at_home_is_in_no_puzzle(finished: Finished, protected: dict[Path, Protected]) -> None:
    folder = finished.folder / RESULTS / "puzzles"
    defended = [Puzzle.load(path) for path in folder.rglob("*home*.safetensors")]
    assert defended
    (made,) = (each for path, each in protected.items() if "home" in path.parent.name)
    at_home = next(value for name, value in made.secret.items() if name.endswith("/blocks"))
    for puzzle in defended:
        assert len(puzzle.blocks) + len(at_home) == puzzle.layout.positions
        held = {block.numpy().tobytes() for block in puzzle.blocks}
        assert not held & {block.tobytes() for block in np.ascontiguousarray(at_home.numpy())}
