"""Search space, clue probability and the talk's cost claim, for the study's grids."""

from scatterproof.analysis.tables import read_grids
from scatterproof.config.study import TheoryConfig
from scatterproof.running.files import write_csv
from scatterproof.running.job import light_job
from scatterproof.theory import theory_table

params = snakemake.params
with light_job(snakemake, "theory"):
    config = TheoryConfig.model_validate_json(params.config)
    table = theory_table(params.study, read_grids(snakemake.input), config.keep, config.populations, params.seed)
    write_csv(snakemake.output[0], table)
