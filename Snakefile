"""Scatterproof: can a pirate reassemble a scattered model for less than it costs to train it?"""

import json
import os

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from scatterproof.config.attacks import attack_jobs, attack_settings_json, ceilings_on
from scatterproof.judging.grid_cells import prune_cells, shuffle_cells, slice_count
from scatterproof.errors import UserError
from scatterproof.running.forked_scripts import fork_scripts
from scatterproof.running.files import LEAST_FREE, check_writable
from scatterproof.running.run_lock import hold_study
from scatterproof.config.threat import without_draw
from scatterproof.config.puzzles import DRAWS, cuts_json, defence_labels, file_of, protected_layers, puzzle_parts
from scatterproof.config.retraining import retraining_jobs, retraining_json
from scatterproof.config.search import plateau_threat, runs_json, search_jobs, settings_json
from scatterproof.config.stream import cells_json, held_services, stream_cells, stream_threats
from scatterproof.config.study import load_mapping, parse_study

min_version("9.0")


# Only without --configfile: Snakemake lays a study's keys over these, and would fill in those it leaves out.
if not workflow.overwrite_configfiles:

    configfile: "config/demo.yaml"


CONFIG = os.path.relpath(workflow.configfiles[-1])
try:
    for file in workflow.configfiles:
        if not str(file).endswith(".json"):
            load_mapping(file)  # refuses a key that stands twice, of which Snakemake takes the last
    STUDY = parse_study(config, CONFIG)
    RESULTS = f"results/{STUDY.study}"
    check_writable(RESULTS, free_bytes=LEAST_FREE)
except UserError as error:
    raise WorkflowError(str(error))


GPUS = 0 if STUDY.run.device == "cpu" else 1


wildcard_constraints:
    victim="[a-z][a-z0-9_]*",
    seed=r"\d+",
    slice=r"\d+",
    part="[a-z][a-z0-9.-]*",


include: "rules/stream_inputs.smk"
include: "rules/data.smk"
include: "rules/victim.smk"
include: "rules/blocks.smk"
include: "rules/defences.smk"
include: "rules/prune.smk"
include: "rules/shuffle.smk"
include: "rules/theory.smk"
include: "rules/search.smk"
include: "rules/stream.smk"
include: "rules/ceilings.smk"
include: "rules/attacks.smk"
include: "rules/fineness.smk"
include: "rules/retraining.smk"
include: "rules/cost.smk"
include: "rules/report.smk"


# Jobs that an executor starts run without hooks, so that only the controller holds the study.
onstart:
    hold_study(RESULTS)
    fork_scripts()


# checked.json is ancient() to all that follows. Where check_study alone must run again (its script is new, or a kill
# came just as it had finished), Snakemake 9.27 does not see in the same run that other outputs are missing.
onsuccess:
    page, checked = f"{RESULTS}/report/index.html", f"{RESULTS}/checked.json"
    if os.path.exists(page):
        print(f"\nThe report is {page}")
    if os.path.exists(checked) and not (
        os.path.exists(page) and os.path.getmtime(page) >= os.path.getmtime(checked)
    ):
        print("\nThe study was checked anew, and its report is not made yet: run the same command again to go on.")


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        f"{RESULTS}/report/index.html",
        rules.tabulate_costs.output,
    localrule: True
