# In:  the tables of every stage
# Out: tables/threshold.csv; figures/*.svg, *.pdf and *.png; report/index.html

SEARCHED = ["search"] if STUDY.search.grids else []
PLATEAU = ["plateau"] if STUDY.plateau.correct else []
ATTACKED = ["attacks"] if STUDY.attacks.grids else []
VERDICTS = ["verdict", "controls"] if ATTACKED or STREAM_CONTROLLED else []
FINENESS = ["fineness"] if STUDY.fineness.block_sizes else []
STREAMED = ["stream"] if STUDY.stream.grids else []
DEFENDED = ["defences"] if DEFENCES else []
FRONTIER = ["frontier"] if DEFENDED and VERDICTS else []
TABLES = ["victim", "curve", "prune", "shuffle", "theory"]
TABLES += FRONTIER + SEARCHED + PLATEAU + ATTACKED + VERDICTS + FINENESS + STREAMED
TAUGHT = any(set(grid.knows) - {"none"} for grid in STUDY.attacks.grids)  # something is known of the pirate's images
FIGURES = {
    "curve": "Accuracy of the victims while they are trained",
    "prune": "P1: accuracy against the share of blocks held in known places",
    "threshold": "P1: blocks needed for half of the victim's accuracy, by block size",
    "shuffle": "S1: accuracy against the share of blocks held, places unknown",
    "theory": "Expected clues in a population",
    **({"search": "P2: best fitness against evaluations"} if SEARCHED else {}),
    **({"trajectory": "P2: accuracy against minutes of search"} if SEARCHED else {}),
    **({"plateau": "L: can fitness tell a right exchange from a wrong one?"} if PLATEAU else {}),
    **({"attacks": "Attacks: accuracy against the share of blocks held, places unknown"} if ATTACKED else {}),
    **({"verdict": "What having the blocks gains over having none, threat by threat"} if VERDICTS else {}),
    **({"frontier": "What each setting of a defence leaves the pirate, against what it costs"} if FRONTIER else {}),
    **({"retrain": f"Attacks: accuracy against the number of the pirate's {STUDY.dataset.noun}"} if TAUGHT else {}),
    **({"fineness": "F: accuracy recovered against the size of the blocks"} if FINENESS else {}),
    **({"stream": "Stream: what the traffic gives away, and what hiding it costs"} if STREAMED else {}),
    "retraining": "Accuracy against minutes: attacks beside training from nothing",
}


rule tabulate_thresholds:
    input:
        prune=f"{RESULTS}/tables/prune.csv",
        victim=f"{RESULTS}/tables/victim.csv",
    output:
        report(f"{RESULTS}/tables/threshold.csv", caption="../workflow/report/threshold.rst", category="Tables"),
    log:
        f"{RESULTS}/logs/tabulate_thresholds.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_thresholds.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=2000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
    message:
        "finding the thresholds"
    script:
        "../workflow/scripts/tabulate_thresholds.py"


rule draw_figures:
    input:
        **{name: f"{RESULTS}/tables/{name}.csv" for name in [*TABLES, "trajectory", "threshold", "retraining"]},
    output:
        svg=[
            report(
                f"{RESULTS}/figures/{name}.svg",
                caption="../workflow/report/figure.rst",
                category="Figures",
                labels={"figure": title},
            )
            for name, title in FIGURES.items()
        ],
        pdf=[f"{RESULTS}/figures/{name}.pdf" for name in FIGURES],
        png=[f"{RESULTS}/figures/{name}.png" for name in FIGURES],
    log:
        f"{RESULTS}/logs/draw_figures.log",
    benchmark:
        f"{RESULTS}/benchmarks/draw_figures.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=2000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        block_size=STUDY.block_sizes[0],
        inputs=STUDY.dataset.noun,
    message:
        "drawing the figures"
    script:
        "../workflow/scripts/draw_figures.py"


rule build_report:
    input:
        **{
            name: f"{RESULTS}/tables/{name}.csv"
            for name in [*TABLES, *DEFENDED, "breakeven", "retraining"]
            if name != "curve"
        },
        threshold=rules.tabulate_thresholds.output[0],
        cost=rules.tabulate_costs.output.costs,
        cost_summary=rules.tabulate_costs.output.summary,
        cost_groups=rules.tabulate_costs.output.groups,
        cost_waste=rules.tabulate_costs.output.waste,
        figures=[*rules.draw_figures.output.svg, rules.tabulate_costs.output.svg],
    output:
        report(f"{RESULTS}/report/index.html", caption="../workflow/report/page.rst", category="Report"),
    log:
        f"{RESULTS}/logs/build_report.log",
    benchmark:
        f"{RESULTS}/benchmarks/build_report.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=2000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        study=lambda wildcards: STUDY.model_dump_json(),  # a function: its text may hold "{seed}"
        command=f"snakemake --cores all --configfile {CONFIG}",
        repository=workflow.basedir,
    message:
        "building the page"
    script:
        "../workflow/scripts/build_report.py"
