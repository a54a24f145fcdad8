"""How a study was made: its config, versions, commit, devices and seeds."""

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from scatterproof.config.study import Study

PACKAGES = [
    "scatterproof",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pandas",
    "scikit-learn",
    "matplotlib",
    "snakemake",
]


def provenance(study: Study, tables: Mapping[str, pd.DataFrame], command: str, repository: Path) -> dict[str, Any]:
    """How a study was made: its config, versions, commit, devices, seeds, command and the date now (UTC).

    `repository` is a folder of the checkout that ran; outside git, or without git, the commit says so.
    """
    devices = {str(d) for table in tables.values() if "device" in table for d in table["device"].dropna()}
    return {
        "study": study.study,
        "block_size": study.block_sizes[0],
        "inputs": study.dataset.noun,
        "assumed": study.cost,
        "config": yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        "facts": {
            "command": command,
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": _commit(repository),
            "devices": "; ".join(sorted(d for d in devices if "; " not in d)) or "unknown",
            "victim seeds": ", ".join(f"{name} {seed}" for name, seed in study.victims),
            "study seed": str(study.seed),
            "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            "versions": ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        },
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _commit(repository: Path) -> str:
    """The commit of a checkout, and whether the tree differs from it."""
    commit, status = _git(repository, "rev-parse", "HEAD"), _git(repository, "status", "--porcelain")
    if commit is None or status is None:
        return "not in a git checkout"
    return f"{commit}, with uncommitted changes" if status else commit


def _git(repository: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
