"""What CONTRIBUTING.md says that an addition touches is all that it touches: each is made in a copy, and run."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import workflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

Edits = dict[str, tuple[str, str]]  # by file: what stands there, and what shall; of a new file nothing stands there

ATTACK: Edits = {
    "src/scatterproof/attacks/in_order.py": (
        "",
        """\"\"\"Blocks in the order in which they are held.\"\"\"

from collections.abc import Iterator

import torch

from scatterproof.attacks.base import Attack, Placed, Run
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.config.settings.base import Settings
from scatterproof.puzzle import Puzzle


class InOrder(Attack[Settings]):
    \"\"\"Every block at the first position of its shape that is left.\"\"\"

    name = "in_order"
    Settings = Settings
    reads = ("none",)

    def steps(self, puzzle: Puzzle, run: Run) -> Iterator[Placed]:
        \"\"\"The one step.\"\"\"
        space = PlacementSpace(puzzle, torch.device("cpu"))
        filling = torch.empty(space.positions, dtype=torch.int64)
        for part in space.classes:
            filling[part.positions] = part.numbers
        placement = space.placements(filling)
        yield Placed(placement, placement[:, None], torch.ones(len(placement), 1))
""",
    ),
    "src/scatterproof/attacks/__init__.py": (
        "from scatterproof.attacks.nothing import Nothing\n",
        "from scatterproof.attacks.in_order import InOrder\nfrom scatterproof.attacks.nothing import Nothing\n",
    ),
    "src/scatterproof/config/attacks.py": (
        "    prior: PriorSettings",
        '    in_order: Settings = Field(Settings(), description="none")\n    prior: PriorSettings',
    ),
}
COLUMN: Edits = {
    "src/scatterproof/analysis/columns.py": ('"evaluations", "queries"', '"blocks_held", "evaluations", "queries"'),
    "src/scatterproof/judging/judge.py": (
        '            "minutes": step.snapshot.minutes,\n',
        '            "minutes": step.snapshot.minutes,\n            "blocks_held": len(self.puzzle.blocks),\n',
    ),
    "docs/outputs.md": ("| `evaluations`", "| `blocks_held` | number of blocks |\n| `evaluations`"),
}
FAMILY: Edits = {
    "src/scatterproof/victims/mlp.py": (
        "",
        """\"\"\"A perceptron of one hidden layer.\"\"\"

from torch import nn


def mlp(size: int, classes: int) -> nn.Module:
    \"\"\"Logits [N, classes] of images [N, 3, size, size].\"\"\"
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * size * size, 64), nn.ReLU(), nn.Linear(64, classes))
""",
    ),
    "src/scatterproof/victims/models.py": (
        '"vgg16_bn": _vgg}\n',
        '"vgg16_bn": _vgg}\nFAMILIES["mlp"] = lambda config, classes: mlp(config.input_size, classes)\n',
    ),
    "src/scatterproof/config/victim.py": ("BUILT_IN = (*VGG,)", 'BUILT_IN = (*VGG, "mlp")'),
}
DEFENCE: Edits = {
    "src/scatterproof/defences/doubled.py": (
        "",
        """\"\"\"`doubled`: devices hold twice the weights.\"\"\"

import numpy as np

from scatterproof.defences.base import Defence, Devices, Floats, Layer, Protection, Secret


class Doubled(Defence):
    \"\"\"The trusted party halves the sums.\"\"\"

    name = "doubled"

    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        \"\"\"Nothing is secret.\"\"\"
        return Protection(2 * layer.weight, layer.bias, layer.reader)

    def serve(self, inputs: Floats, secret: Secret, devices: Devices) -> Floats:
        \"\"\"Half of what the devices add up.\"\"\"
        return devices(inputs) / 2
""",
    ),
    "src/scatterproof/config/settings/defences.py": (
        "DEFENCES = (NoneSettings, RescaleSettings, HomeSettings, WithholdSettings)\n",
        """class DoubledSettings(DefenceSettings):
    name: Literal["doubled"] = Field(description="twice the weights")


DEFENCES = (NoneSettings, RescaleSettings, HomeSettings, WithholdSettings, DoubledSettings)
""",
    ),
    "src/scatterproof/defences/__init__.py": (
        "from scatterproof.defences.home import Home\n",
        "from scatterproof.defences.doubled import Doubled\nfrom scatterproof.defences.home import Home\n",
    ),
}
REGISTRIES = {
    "src/scatterproof/attacks/__init__.py": ("*(Fingerprint, ", "*(Fingerprint, InOrder, "),
    "src/scatterproof/defences/__init__.py": ("(Undefended, ", "(Undefended, Doubled, "),
}
ADDITIONS = {"an attack": ATTACK, "a defence": DEFENCE, "a column": COLUMN, "a victim family": FAMILY}
STUDY = {
    "study": "tiny",
    "dataset": {"kind": "digits"},
    "victim": {"model": "mlp", "input_size": 8, "seeds": [0], "train": {"lr": 0.05, "epochs": 2}},
    "block_sizes": [16],
    "prune": {"keep": [1.0], "repeats": 1, "corrections": ["none"]},
    "shuffle": {"keep": [1.0], "repeats": 1},
    "attacks": {
        "control_shuffles": 10,
        "draws": 2,
        "threats_per_job": 3,
        "grids": [
            {"attacks": ["in_order", "fingerprint", "genetic"], "images": [8], "knows": ["labels"]},
            {"attacks": ["in_order"], "images": [8], "defences": ["doubled"]},
        ],
        "genetic": {"population": 8, "evaluations": 60},
    },
    "run": {"device": "cpu"},
}


def listed(addition: str) -> set[str]:
    """The files that CONTRIBUTING.md lists for an addition, NAME being any name."""
    text = (workflow.ROOT / "CONTRIBUTING.md").read_text()
    section = text.split(f"## Adding {addition}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\d+\. `(\S+)`", section, flags=re.M))


def where_it_is_computed(addition: str) -> set[str]:
    """A column is computed in one file more, which depends on the table."""
    return {"src/scatterproof/judging/judge.py"} if addition == "a column" else set()


@pytest.mark.parametrize("addition", ADDITIONS)
def test_an_addition_touches_what_is_listed(addition: str) -> None:
    files = listed(addition) | where_it_is_computed(addition)
    assert len(ADDITIONS[addition]) <= 3
    patterns = [re.compile(re.escape(name).replace("NAME", r"\w+")) for name in files]
    for name in ADDITIONS[addition]:
        assert any(pattern.fullmatch(name) for pattern in patterns), name


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    """Those of a study of a copy of the project with all these additions."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("Snakefile", "rules", "workflow", "src", "docs", "config", "envs"):
        source = workflow.ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, copy / name)
    for name, (before, after) in (edit for edits in ADDITIONS.values() for edit in edits.items()):
        path = copy / name
        text = path.read_text() if before else ""
        assert text.count(before) >= 1 and bool(before) == path.exists(), name
        path.write_text(text.replace(before, after, 1) if before else after)
    for name, edit in REGISTRIES.items():
        path = copy / name
        path.write_text(path.read_text().replace(*edit))
    models = copy / "src/scatterproof/victims/models.py"
    models.write_text(models.read_text().replace(*("from scatterproof.victims.networks.vgg", IMPORT)))
    folder = tmp_path_factory.mktemp("run")
    snakefile = str(workflow.ROOT / "Snakefile")
    command = [str(copy / "Snakefile") if word == snakefile else word for word in workflow.command(folder, STUDY)]
    wanted = [f"{workflow.RESULTS}/tables/{name}.csv" for name in ("attacks", "controls", "verdict", "defences")]
    done = subprocess.run(
        [*command, *wanted, PAGE],
        cwd=folder,
        env=workflow.environment(copy / "src"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "doubled" in (folder / PAGE).read_text()
    return {Path(name).stem: pd.read_csv(folder / name) for name in wanted}


PAGE = f"{workflow.RESULTS}/report/index.html"
IMPORT = "from scatterproof.victims.mlp import mlp\nfrom scatterproof.victims.networks.vgg"


def test_an_added_attack_is_run_controlled_and_weighed(tables: dict[str, pd.DataFrame]) -> None:
    attacks, controls = tables["attacks"], tables["controls"]
    assert {"in_order", "fingerprint", "genetic", "layer"} <= set(attacks["attack"])
    ran = controls.groupby("attack")["control"].agg(set).to_dict()
    assert ran == {name: {"planted", "random"} for name in ("in_order", "fingerprint", "genetic")}
    in_order = controls[(controls["attack"] == "in_order") & (controls["control"] == "planted")]
    assert not in_order["passed"].any(), "it reads nothing, so that it can find no leak"
    (verdict,) = tables["verdict"].query("defence == 'none'").itertuples()
    assert verdict.attack in {"in_order", "fingerprint", "genetic"} and verdict.seeds == 2


def test_an_added_column_is_written(tables: dict[str, pd.DataFrame]) -> None:
    attacks = tables["attacks"]
    assert set(attacks["blocks_held"]) == {4 * 12}
    assert list(attacks).index("blocks_held") + 1 == list(attacks).index("evaluations")


def test_an_added_defence_is_applied_weighed_and_counted(tables: dict[str, pd.DataFrame]) -> None:
    (verdict,) = tables["verdict"].query("defence == 'doubled'").itertuples()
    assert verdict.threat == "layer-1-8-none-doubled"
    costs = tables["defences"]
    assert set(costs["defence"]) == {"doubled"} and (costs["fidelity"] == 1).all() and len(costs) == 1


def test_each_draw_has_rows_of_its_own(tables: dict[str, pd.DataFrame]) -> None:
    """In one job with the first draw or in another, under a defence or without one."""
    attacks = tables["attacks"]
    assert attacks.groupby("threat")["seed"].agg(set).tolist() == [{0, 1}] * 2
    trained = attacks[attacks["last"] & (attacks["attack"] == "layer")]
    assert len(set(trained["accuracy"])) == len(trained) == 2, "on other images"
    assert set(tables["verdict"]["basis"]) == {"model"} and set(tables["verdict"]["seeds"]) == {2}
