"""Scatterproof: can a pirate reassemble a scattered model for less than it costs to train it?"""

import os

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from scatterproof.cells import prune_cells, shuffle_cells, slice_count
from scatterproof.errors import UserError
from scatterproof.files import check_writable
from scatterproof.guard import hold_study
from scatterproof.study import parse_study

min_version("9.0")


configfile: "config/demo.yaml"


try:
    STUDY = parse_study(config, workflow.configfiles[-1])
    RESULTS = f"results/{STUDY.study}"
    check_writable(RESULTS, free_bytes=200 * 2**20)
except UserError as error:
    raise WorkflowError(str(error))


wildcard_constraints:
    victim="[a-z][a-z0-9_]*",
    seed=r"\d+",
    slice=r"\d+",


include: "rules/data.smk"
include: "rules/victim.smk"
include: "rules/blocks.smk"
include: "rules/prune.smk"
include: "rules/shuffle.smk"
include: "rules/theory.smk"
include: "rules/report.smk"


onstart:
    hold_study(RESULTS)


onsuccess:
    print(f"\nThe report is {RESULTS}/report/index.html")


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report/index.html",
        rules.tabulate_costs.output,
    localrule: True
