"""What a job on SLURM is called: `123`, an array's task `123_4`, and `123_4;alpha` where clusters were asked for.

Two clusters may give the same number to two jobs. The form is that of `sbatch --parsable`. Standard library alone.
"""

from collections import defaultdict
from collections.abc import Iterable


def join(number: str, cluster: str) -> str:
    """An id of a number and a cluster; empty: none was asked for."""
    return f"{number};{cluster}" if cluster else number


def number_of(job: str) -> str:
    """What its own cluster calls a job: `123_4` of `123_4;alpha`."""
    return job.partition(";")[0]


def cluster_of(job: str) -> str:
    """The cluster of a job; empty where none was asked for."""
    return job.partition(";")[2]


def submission_of(job: str) -> str:
    """The id of the array that a task belongs to: `123;alpha` of `123_4;alpha`."""
    return join(number_of(job).partition("_")[0], cluster_of(job))


def index_of(job: str) -> int:
    """A task's place in its array; a job by itself is its submission's only task."""
    return int(number_of(job).partition("_")[2] or 0)


def tasks_of(submission: str, tasks: int, arrays: bool) -> list[str]:
    """The ids of a submission's tasks."""
    if not arrays:
        return [submission]
    number, cluster = number_of(submission), cluster_of(submission)
    return [join(f"{number}_{task}", cluster) for task in range(tasks)]


def by_cluster(jobs: Iterable[str]) -> dict[str, list[str]]:
    """The numbers of jobs, in order, by their clusters."""
    numbers: dict[str, list[str]] = defaultdict(list)
    for job in jobs:
        numbers[cluster_of(job)].append(number_of(job))
    return dict(numbers)
