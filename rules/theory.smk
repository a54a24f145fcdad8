# In:  the victims' metrics.json, for the grids that the block sizes make
# Out: tables/theory.csv: search space, chance of a clue, the talk's cost claim


rule compute_theory:
    input:
        [f"{RESULTS}/{name}/seed{seed}/metrics.json" for name, seed in STUDY.victims],
    output:
        f"{RESULTS}/tables/theory.csv",
    log:
        f"{RESULTS}/logs/compute_theory.log",
    benchmark:
        f"{RESULTS}/benchmarks/compute_theory.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=30,
        mem_mb=1000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        study=STUDY.study,
        config=STUDY.theory.model_dump_json(),
        seed=STUDY.seed,
    message:
        "computing search space and clue probability"
    script:
        "../workflow/scripts/compute_theory.py"
