# In:  the cost records, the executor's journal, SLURM's accounting; victim.csv for the minutes of retraining
# Out: tables/cost.csv, cost_summary.csv, cost_groups.csv, cost_waste.csv; figures/cost.svg, .pdf and .png
# records/sacct.csv, what accounting has said, is no output: Snakemake would delete it before the rule runs again.


# The figures are an input so that their cost is counted too.
rule tabulate_costs:
    input:
        figures=lambda wildcards: rules.draw_figures.output.svg,
        victim=f"{RESULTS}/tables/victim.csv",
    output:
        costs=f"{RESULTS}/tables/cost.csv",
        groups=f"{RESULTS}/tables/cost_groups.csv",
        waste=f"{RESULTS}/tables/cost_waste.csv",
        summary=report(f"{RESULTS}/tables/cost_summary.csv", caption="../workflow/report/cost.rst", category="Tables"),
        svg=report(
            f"{RESULTS}/figures/cost.svg",
            caption="../workflow/report/figure.rst",
            category="Figures",
            labels={"figure": "What every stage cost beside training one victim"},
        ),
        pdf=f"{RESULTS}/figures/cost.pdf",
        png=f"{RESULTS}/figures/cost.png",
    log:
        f"{RESULTS}/logs/tabulate_costs.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_costs.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=2000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        journal=lambda wildcards: f"{getattr(workflow.executor_settings, 'folder', None) or '.submitit'}/journal.sqlite",
        assumed=STUDY.cost.model_dump_json(),
    message:
        "adding up the costs"
    script:
        "../workflow/scripts/tabulate_costs.py"
