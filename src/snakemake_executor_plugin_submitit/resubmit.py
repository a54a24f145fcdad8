"""Jobs that are submitted again: they ended for no fault of their own, so it costs them none of their retries."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from logging import Logger
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.fencing import fence
from snakemake_executor_plugin_submitit.journal import Journal


@dataclass
class Resubmissions:
    """How often each job was submitted again. most: how often one may be."""

    journal: Journal
    logger: Logger
    most: int
    count: Counter[str] = field(default_factory=Counter)

    def allow(self, row: dict[str, Any]) -> bool:
        """Whether a lost job may go out again; counts it."""
        self.count[row["key"]] += 1
        return self.count[row["key"]] <= self.most

    def close(self, rows: Iterable[dict[str, Any]]) -> None:
        """Keep the tasks of lost jobs from starting after all, and settle their rows: others stand for them now."""
        rows = list(rows)
        for row in rows:
            fence(Path(row["folder"]), row["task"], row["state"])
            self.logger.warning(f"{row['rule']} {row['name']}: {row['state']} ({row['reason']}); submitted again")
        self.journal.change([{"id": row["id"], "settled": 1} for row in rows])
