"""Every figure but the cost's."""

from pathlib import Path

from scatterproof.job import light_job
from scatterproof.report import figures
from scatterproof.tables import read_table

size = snakemake.params.block_size
with light_job(snakemake, "report"):
    tables = {name: read_table(path) for name, path in snakemake.input.items()}
    svg = {Path(path).stem: Path(path) for path in snakemake.output.svg}
    figures.draw_curve(tables["curve"], svg["curve"])
    figures.draw_prune(tables["prune"], tables["victim"], tables["threshold"], size, svg["prune"])
    figures.draw_threshold(tables["threshold"], svg["threshold"])
    figures.draw_shuffle(tables["shuffle"], tables["victim"], size, svg["shuffle"])
    figures.draw_theory(tables["theory"], size, svg["theory"])
