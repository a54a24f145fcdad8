"""The page."""

from pathlib import Path

from scatterproof.analysis.older_tables import read_study_table
from scatterproof.config.study import Study
from scatterproof.report.captions import addresses
from scatterproof.report.page import build_page
from scatterproof.report.provenance import provenance
from scatterproof.running.files import write_text
from scatterproof.running.job import light_job

params = snakemake.params
with light_job(snakemake, "report"):
    tables = {name: read_study_table(path) for name, path in snakemake.input.items() if name != "figures"}
    figures = {Path(path).stem: Path(path) for path in snakemake.input.figures}
    study = Study.model_validate_json(params.study)
    made = provenance(study, tables, params.command, Path(params.repository))
    page = Path(snakemake.output[0])
    files = addresses(map(Path, snakemake.input), page)
    write_text(page, build_page(tables, figures, made, files))
