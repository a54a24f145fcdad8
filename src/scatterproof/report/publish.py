"""A finished study as a folder to keep: its tables, figures and page, and how they were made."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from scatterproof.analysis.older_tables import read_study_table
from scatterproof.config.study import Study
from scatterproof.errors import UserError
from scatterproof.report.headline import headline
from scatterproof.report.input_words import inputs_called
from scatterproof.report.provenance import provenance
from scatterproof.report.words import minutes
from scatterproof.running.files import write_text

MADE, HEADLINE = "made.md", "headline.md"


class PublishError(UserError):
    """A study that is not finished, or a target that is something else."""


def publish(results: Path, target: Path, study: Study, command: str, repository: Path) -> list[Path]:
    """Copy a study's tables, figures and page to `target`; the files, sorted.

    Beside them `made.md`, and `headline.md` of a study with attacks. Files of an earlier publication that this study
    has not are removed from `tables` and `figures`; a README of your own is left alone. Raises: PublishError.
    """
    page = results / "report" / "index.html"
    if not page.exists():
        raise PublishError(f"{page}: no such file: run the study to its end first")
    if target.exists() and not target.is_dir():
        raise PublishError(f"{target}: not a folder")
    tables = {path.stem: read_study_table(path) for path in sorted((results / "tables").glob("*.csv"))}
    for name in ("tables", "figures"):
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(results / name, target / name)
    write_text(target / "report.html", page.read_text(encoding="utf-8").replace('href="../', 'href="'))
    write_text(target / MADE, how_made(study, tables, command, repository))
    (target / HEADLINE).unlink(missing_ok=True)
    if "attacks" in tables:
        with inputs_called(study.dataset.noun):
            write_text(target / HEADLINE, headline(tables))
    return sorted(path.relative_to(target) for path in target.rglob("*") if path.is_file())


def how_made(study: Study, tables: Mapping[str, pd.DataFrame], command: str, repository: Path) -> str:
    """`made.md`: the command, the commit, the machine, what each stage took, and the whole study."""
    made = provenance(study, tables, f"`{command}`", repository)
    facts = "\n".join(f"- {key}: {value}" for key, value in made["facts"].items() if value)
    summary = tables["cost_summary"]
    used = summary[["stage", "jobs", "device_minutes", "gpu_minutes", "allocated_gpu_minutes"]]
    rows = "\n".join(
        f"| {row.stage} | {row.jobs} | " + " | ".join(minutes(value) for value in row[3:]) + " |"
        for row in used.itertuples()
    )
    return (
        f"# How {study.study} was made\n\n{facts}\n\n"
        "Minutes of the jobs that succeeded. Allocated GPU-minutes count failed jobs, too:\n\n"
        "| stage | jobs | device-minutes | GPU-minutes | allocated GPU-minutes |\n|---|---|---|---|---|\n"
        f"{rows}\n\n```yaml\n{made['config']}```\n"
    )
