"""Every figure but the cost's."""

from pathlib import Path

from scatterproof.analysis.older_tables import read_study_table
from scatterproof.cost.ledger import retraining_minutes
from scatterproof.report.figures import base as figures
from scatterproof.report.figures.curves import draw_curves
from scatterproof.report.figures.frontier import draw_frontier
from scatterproof.report.figures.plateau import draw_plateau
from scatterproof.report.figures.retraining import draw_retraining
from scatterproof.report.figures.searches import draw_search, draw_trajectory
from scatterproof.report.figures.stream import draw_stream
from scatterproof.report.input_words import inputs_called
from scatterproof.report.sections.attacks import draw_attacks
from scatterproof.report.sections.controls import marked_tables
from scatterproof.report.sections.fineness import draw_fineness
from scatterproof.report.sections.verdicts import draw_verdict
from scatterproof.report.words import names
from scatterproof.running.job import light_job

size = snakemake.params.block_size
with light_job(snakemake, "report"), inputs_called(snakemake.params.inputs):
    tables = marked_tables({name: read_study_table(path) for name, path in snakemake.input.items()})
    svg = {Path(path).stem: Path(path) for path in snakemake.output.svg}
    figures.draw_curve(tables["curve"], svg["curve"])
    figures.draw_prune(tables["prune"], tables["victim"], tables["threshold"], size, svg["prune"])
    figures.draw_threshold(tables["threshold"], svg["threshold"])
    figures.draw_shuffle(tables["shuffle"], tables["victim"], size, svg["shuffle"])
    figures.draw_theory(tables["theory"], size, svg["theory"])
    if "search" in tables:
        draw_search(tables["search"], svg["search"])
        draw_trajectory(tables["search"], tables["victim"], retraining_minutes(tables["victim"]), svg["trajectory"])
    if "attacks" in tables:
        on_blocks = tables["attacks"][tables["attacks"]["role"] == "blocks"]
        draw_attacks(on_blocks, tables["victim"], svg["attacks"])
    if "verdict" in tables:
        draw_verdict(tables["verdict"], svg["verdict"])
    if "frontier" in tables:
        draw_frontier(tables["frontier"], svg["frontier"])
    if "retrain" in svg:
        draw_curves(tables["attacks"], tables["victim"], svg["retrain"])
    if "fineness" in tables:
        draw_fineness(tables["fineness"], tables["victim"], svg["fineness"])
    if "stream" in tables:
        draw_stream(tables["stream"], svg["stream"])
    if "plateau" in tables:
        rows = tables["plateau"]
        draw_plateau(rows[rows["victim"] == names(rows)[0]], svg["plateau"])
    retraining = tables["retraining"], tables["trajectory"], tables["victim"], tables["controls"]
    draw_retraining(*retraining, svg["retraining"])
