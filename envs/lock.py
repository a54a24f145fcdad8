"""Write the locked requirements and the conda file from pyproject.toml. `make lock` runs this.

    requirements.txt   everything but torch, at one version for each Python, with hashes
    torch-cuda.txt     torch as it is on the package index, with the CUDA packages that it needs
    torch-cpu.txt      torch without CUDA: kept by hand; its version is the one that is locked
    wild.txt           a published model that tests attack, without what its package asks for: kept by hand
    uv.txt             the installer of the above
    scatterproof.yaml  the conda environment of the rules: the direct dependencies at the same versions

Versions that still fit are kept; `--upgrade` takes newer ones.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ENVS = Path(__file__).resolve().parent
PYTHON = "3.11"
RULES = ("search", "slurm")  # extras that the workflow's own rules need
TORCH = re.compile(r"(torch|triton|nvidia-(?!ml-py).*|cuda-.*)$")  # nvidia-ml-py is Python alone, and small


def compile_requirements(arguments: list[str], pins: str, upgrade: bool, stdin: str = "") -> str:
    """Resolve to exact versions with hashes, keeping those in `pins` unless `upgrade`."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "lock.txt")
        output.write_text(pins)
        command = [str(Path(sys.executable).with_name("uv")), "pip", "compile", "--quiet", *arguments]
        command += ["--generate-hashes", "--universal", "--python-version", PYTHON, "--no-header", "--no-annotate"]
        command += ["--output-file", str(output), *(["--upgrade"] if upgrade else [])]
        # A folder of wheels on this machine must not decide what others install
        environment = {key: value for key, value in os.environ.items() if key != "UV_FIND_LINKS"}
        subprocess.run(command, input=stdin, text=True, check=True, cwd=ENVS.parent, env=environment)
        return output.read_text()


def entries(text: str) -> list[str]:
    """The entries of a requirements file, each with its hash lines."""
    return re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", text, flags=re.MULTILINE)


def requirement(entry: str) -> Requirement:
    """An entry without its hashes."""
    return Requirement(entry.split("\n")[0].rstrip("\\ "))


def conda_file(dependencies: list[str], lock: str) -> str:
    """The conda environment of the rules: `dependencies` at the versions of `lock`."""
    direct = {canonicalize_name(Requirement(dependency).name) for dependency in dependencies}
    linux = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0", "sys_platform": "linux"}
    pins = []
    for pin in map(requirement, entries(lock)):
        if canonicalize_name(pin.name) in direct and (pin.marker is None or pin.marker.evaluate(linux)):
            pins.append(f"      - {pin.name}{pin.specifier}\n")
    return (
        "# Written by envs/lock.py: the dependencies of the rules in pyproject.toml, at the versions of the lock.\n"
        "channels:\n  - conda-forge\n  - nodefaults\n"
        f"dependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n" + "".join(sorted(pins))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take newer versions")
    upgrade = parser.parse_args().upgrade

    requirements, cuda, uv = (ENVS / name for name in ("requirements.txt", "torch-cuda.txt", "uv.txt"))
    torch = next(iter(requirement((ENVS / "torch-cpu.txt").read_text()).specifier)).version.split("+")[0]
    with tempfile.TemporaryDirectory() as folder:
        constraint = Path(folder, "constraint.txt")
        constraint.write_text(f"torch=={torch}\n")
        lock = compile_requirements(
            ["pyproject.toml", "--all-extras", "--group", "dev", "--constraint", str(constraint)],
            requirements.read_text() + cuda.read_text(),
            upgrade,
        )
    parts = {True: "", False: ""}
    for entry in entries(lock):
        parts[bool(TORCH.match(requirement(entry).name))] += entry
    installer = compile_requirements(["-"], uv.read_text(), upgrade, stdin="uv\n")

    project = tomllib.loads((ENVS.parent / "pyproject.toml").read_text())["project"]
    requirements.write_text(parts[False])
    cuda.write_text(parts[True])
    uv.write_text(installer)
    extras = project["optional-dependencies"]
    rules = [*project["dependencies"], *(each for extra in RULES for each in extras[extra])]
    (ENVS / "scatterproof.yaml").write_text(conda_file(rules, lock))


if __name__ == "__main__":
    main()
