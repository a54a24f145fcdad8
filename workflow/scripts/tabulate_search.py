"""tables/search.csv and trajectory.csv."""

from scatterproof.files import write_csv
from scatterproof.job import light_job
from scatterproof.tables import read_tables, trajectory_table

with light_job(snakemake, "search"):
    search = read_tables(snakemake.input)
    write_csv(snakemake.output.search, search)
    write_csv(snakemake.output.trajectory, trajectory_table(search))
