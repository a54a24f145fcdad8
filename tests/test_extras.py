"""The library without its extras: models are attacked without Snakemake, submitit or Stable-Baselines3."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from safetensors.torch import save_file

import small

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NAMED = {"nvidia-ml-py": "pynvml"}
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        first = name.partition(".")[0]
        if first in ABSENT or first.startswith("snakemake_interface"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
"""
MAIN = "from scatterproof.command.main import main\nsys.exit(main(sys.argv[1:]))\n"
REINFORCE = """
from scatterproof.attacks.search.reinforce import Reinforce
from scatterproof.config.settings.search import ReinforceSettings
from scatterproof.errors import UserError
try:
    Reinforce(ReinforceSettings()).start(None)
except UserError as error:
    sys.exit(str(error))
"""


def without_extras(folder: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process that has none of the extras' libraries."""
    absent = [Requirement(each).name for libraries in EXTRAS.values() for each in libraries]
    modules = [NAMED.get(name, name.replace("-", "_")) for name in absent]
    assert {"snakemake", "submitit", "gymnasium", "stable_baselines3", "transformers"} <= set(modules)
    code = WITHOUT.replace("ABSENT", repr(modules)) + code
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)


def test_a_model_is_attacked_without_any_extra(tmp_path: Path) -> None:
    save_file(small.network(small.vgg(model="vgg16_bn")).state_dict(), tmp_path / "vgg.safetensors")
    data = small.dataset(victim=200, pirate=60, test=80)
    parts = {"x_train": data.victim.images, "y_train": data.victim.labels}
    parts |= {"x_test": data.test.images, "y_test": data.test.labels}
    np.savez(tmp_path / "images.npz", **{name: part.numpy() for name, part in parts.items()})
    model = ["vgg16_bn", "--width", "0.015625", "--checkpoint", "vgg.safetensors"]
    more = ["--data", "images.npz", "--inputs", "20", "--blocks", "8", "--layers", "classifier.0", "--out", "out"]
    done = without_extras(tmp_path, MAIN, "audit", *model, *more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/audit.html").exists()


@pytest.mark.parametrize(
    ("code", "arguments", "said"),
    [
        (MAIN, ["cost"], r"scatterproof cost needs \w+, expected it installed: pip install 'scatterproof\[slurm\]'"),
        (REINFORCE, [], r"the attack reinforce needs \w+, expected it installed: pip install 'scatterproof\[search\]'"),
    ],
)
def test_what_needs_an_extra_says_which(tmp_path: Path, code: str, arguments: list[str], said: str) -> None:
    done = without_extras(tmp_path, code, *arguments)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert re.search(said, done.stderr), done.stderr
