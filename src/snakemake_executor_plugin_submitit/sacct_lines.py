"""sacct's command and its lines, for all who ask it: each names its fields, and gets records of them.

sacct pads nothing and quotes nothing: a job's name may hold the separator, so it comes last.
"""

import time
from collections.abc import Sequence


def command(fields: Sequence[str], since: float, *chosen: str) -> list[str]:
    """Ask for every attempt, requeued ones too, of the jobs chosen that SLURM has known since a Unix time."""
    start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since - 60))
    return ["sacct", "-X", "-D", "-n", "-P", "-S", start, *chosen, "-o", ",".join(fields)]


def records(printed: str, fields: Sequence[str]) -> list[dict[str, str]]:
    """One record an attempt, in sacct's order; fields begin with JobID, and end with JobName where it is asked for.

    Left out: what is no such line, as a site's banner, and the rest of an array that has not started.
    """
    lines = (line.split("|", len(fields) - 1) for line in printed.split("\n"))
    whole = (values for values in lines if len(values) == len(fields) and "[" not in values[0])
    return [dict(zip(fields, values, strict=True)) for values in whole]


def held(tres: str) -> dict[str, str]:
    """What an allocation holds, by kind: of `cpu=1,gres/gpu=2` two."""
    return dict(part.split("=", 1) for part in tres.split(",") if "=" in part)
