"""sbatch's defaults in the user's environment (SBATCH_PARTITION and its kin), as this executor's settings.

sbatch lets them override what a job's script asks for, so they are never handed on: the ones below stand in where
neither the rule nor a setting says anything, the others are named as ignored. Within a job they are the enclosing
job's, and are none of ours. Names: https://slurm.schedmd.com/sbatch.html#SECTION_INPUT-ENVIRONMENT-VARIABLES
"""

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from snakemake_executor_plugin_submitit.settings import ExecutorSettings

NAMES = ("partition", "account", "qos", "constraint", "gres", "clusters")
SETTINGS = {f"SBATCH_{name.upper()}": name for name in NAMES} | {"SLURM_CLUSTERS": "clusters"}
OPTIONS = ("reservation", "wckey", "hint", "profile", "acctg-freq", "threads-per-core", "exclusive", "nice")
TIME = "SBATCH_TIMELIMIT"
_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True)
class Defaults:
    """Settings with the environment's defaults in them; minutes: of jobs without a `runtime`; ignored: names."""

    settings: ExecutorSettings
    minutes: int | None = None
    ignored: tuple[str, ...] = ()


def with_defaults(settings: ExecutorSettings, environment: Mapping[str, str]) -> Defaults:
    """Settings completed by what the user's environment tells sbatch."""
    if settings.cluster != "slurm" or "SLURM_JOB_ID" in environment:
        return Defaults(settings)
    given = {name: value for name, value in environment.items() if name.startswith("SBATCH_")}
    given |= {name: environment[name] for name in ("SLURM_CLUSTERS",) if name in environment}
    changes: dict[str, Any] = {}
    for name, setting in SETTINGS.items():
        value = given.pop(name, "")
        if value and getattr(settings, setting) is None:
            changes.setdefault(setting, value)
    options = []
    for option in OPTIONS:
        name = f"SBATCH_{option.replace('-', '_').upper()}"
        if name in given:
            value = given.pop(name)
            options.append(shlex.quote(f"--{option}={value}" if value else f"--{option}"))
    if options:  # the setting comes last: it is stronger
        changes["extra"] = " ".join([*options, settings.extra or ""]).strip()
    minutes = minutes_of(given.get(TIME, ""))
    if minutes:
        del given[TIME]
    return Defaults(replace(settings, **changes) if changes else settings, minutes, tuple(sorted(given)))


def minutes_of(text: str) -> int | None:
    """Minutes of a time limit as sbatch takes it, such as `7`, `1:30:00` or `2-12`; None for anything else."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return None
    days, *rest = match.groups()
    parts = [int(part) for part in rest if part is not None]
    if days is None:
        hours, minutes, seconds = (0, *parts, 0)[:3] if len(parts) < 3 else parts
    else:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    return math.ceil(int(days or 0) * 1440 + hours * 60 + minutes + seconds / 60)
