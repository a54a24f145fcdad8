"""`envs/` holds one set of versions, and it is the one that pyproject.toml asks for."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "envs").glob("*.txt"))
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
DIRECT = [Requirement(line) for line in [*PYPROJECT["project"]["dependencies"], *EXTRAS["search"], *EXTRAS["slurm"]]]
DEVELOPMENT = [Requirement(line) for line in PYPROJECT["dependency-groups"]["dev"]]
BUILD = [Requirement(line) for line in PYPROJECT["build-system"]["requires"]]


def entries(path: Path) -> list[tuple[Requirement, list[str]]]:
    """Each requirement of a lock file with its hashes."""
    found = []
    for line in re.sub(r"\\\n", " ", path.read_text()).splitlines():
        if line.strip() and not line.startswith("#"):
            requirement, *hashes = re.split(r"\s+--hash=", line.strip())
            found.append((Requirement(requirement), hashes))
    return found


def locked(*names: str) -> dict[str, list[Requirement]]:
    """The entries of some lock files by canonical name; one name may have an entry for each Python."""
    by_name: dict[str, list[Requirement]] = {}
    for name in names:
        for requirement, _ in entries(ROOT / "envs" / name):
            by_name.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return by_name


def version(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_entry_is_exact_and_hashed(path: Path) -> None:
    assert entries(path)
    for requirement, hashes in entries(path):
        assert version(requirement)
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


def test_no_address_in_envs() -> None:
    for path in (ROOT / "envs").iterdir():
        if path.is_file():
            text = path.read_text()
            assert "://" not in text.replace("file://", ""), path.name
            assert "index-url" not in text.replace("pip_setting index-url", ""), path.name
            assert " @ " not in text or path.suffix != ".txt", path.name


@pytest.mark.parametrize("torch", ["torch-cpu.txt", "torch-cuda.txt"])
@pytest.mark.parametrize("wanted", DIRECT + DEVELOPMENT + BUILD, ids=lambda wanted: wanted.name)
def test_lock_satisfies_pyproject(wanted: Requirement, torch: str) -> None:
    pins = locked("requirements.txt", torch)[canonicalize_name(wanted.name)]
    for pin in pins:
        assert wanted.specifier.contains(version(pin), prereleases=True), f"{pin} is not {wanted}"
    for python in ("3.11", "3.12", "3.13"):
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        fitting = [pin for pin in pins if pin.marker is None or pin.marker.evaluate(environment)]
        assert len(fitting) == 1, f"{wanted.name} on Python {python}: {fitting}"


def test_both_torches_are_one_version() -> None:
    (cpu,), (cuda,) = locked("torch-cpu.txt")["torch"], locked("torch-cuda.txt")["torch"]
    assert version(cpu).public == version(cuda).public
    assert "torch" not in locked("requirements.txt")


def test_python_of_the_lock() -> None:
    pythons = SpecifierSet(PYPROJECT["project"]["requires-python"])
    (conda,) = [item for item in _conda()["dependencies"] if isinstance(item, str) and item.startswith("python=")]
    assert pythons.contains(conda.removeprefix("python="))
    assert pythons.contains("3.11")
    assert not pythons.contains("3.10")


def _conda() -> dict:
    return yaml.safe_load((ROOT / "envs" / "scatterproof.yaml").read_text())


def test_conda_file_equals_the_lock() -> None:
    python = next(item for item in _conda()["dependencies"] if str(item).startswith("python=")).removeprefix("python=")
    (packages,) = [item["pip"] for item in _conda()["dependencies"] if isinstance(item, dict)]
    pins = {canonicalize_name(Requirement(line).name): version(Requirement(line)) for line in packages}
    assert len(pins) == len(packages)
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    lock = locked("requirements.txt", "torch-cuda.txt")
    expected = {}
    for wanted in DIRECT:
        name = canonicalize_name(wanted.name)
        (expected[name],) = [
            version(pin) for pin in lock[name] if pin.marker is None or pin.marker.evaluate(environment)
        ]
    assert pins == expected


def test_installing_compiles_what_jobs_import() -> None:
    """A job whose environment forbids to write bytecode would compile torch anew each time."""
    names = ("torch", "torch._dynamo", "pandas", "snakemake.script", "scatterproof.attacks.fingerprint.attack")
    find = f"import importlib.util as u; print(*[u.find_spec(name).origin for name in {names!r}], sep=chr(10))"
    found = subprocess.run([sys.executable, "-c", find], check=True, capture_output=True, text=True)
    for source in found.stdout.split():
        assert Path(importlib.util.cache_from_source(source)).exists(), source


def test_what_catalogs_and_citations_read_is_in_step() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["title"].lower() == PYPROJECT["project"]["name"]
    assert (cited["version"], cited["license"]) == (PYPROJECT["project"]["version"], PYPROJECT["project"]["license"])
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    flag, path = usage["mandatory-flags"]["flags"].split()
    assert flag == "--configfile" and (ROOT / path).exists()
    assert {"conda", "singularity", "singularity+conda"} == set(usage["software-stack-deployment"])
