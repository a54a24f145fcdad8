# In:  dataset.safetensors; the victims', the searches' and the attacks' tables
# Out: cells/retraining/...csv, one file a job: accuracy against minutes of trainings from nothing
# Out: retraining/<victim>.<seed>/: each finished training and each checkpoint, named by all that it depends on
# Out: tables/trajectory.csv: what every search and attack had reached when
# Out: tables/retraining.csv, breakeven.csv (minutes to each level) and crossing.csv (where an attack is overtaken)

RETRAINING_JOBS = retraining_jobs(STUDY.retraining)


rule train_recipes:
    input:
        dataset=rules.prepare_dataset.output[0],
        checked=ancient(rules.check_study.output[0]),
    output:
        f"{RESULTS}/cells/retraining/{{victim}}.{{seed}}.{{slice}}.csv",
    log:
        f"{RESULTS}/logs/train_recipes/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_recipes/{{victim}}.{{seed}}.{{slice}}.tsv"
    priority: 1  # as long as a victim's
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.train_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        runs=lambda wildcards: retraining_json(RETRAINING_JOBS[int(wildcards.slice)]),
        configs=lambda wildcards: [
            STUDY.retraining_config(wildcards.victim, run).model_dump_json(exclude={"seeds"})
            for run in RETRAINING_JOBS[int(wildcards.slice)]
        ],
        seed=STUDY.seed,
        work=f"{RESULTS}/retraining",
        device=STUDY.run.device,
    message:
        "training {wildcards.victim}, seed {wildcards.seed}, again from nothing, slice {wildcards.slice}"
    script:
        "../workflow/scripts/train_recipes.py"


rule tabulate_retraining:
    input:
        dataset=rules.prepare_dataset.output[0],
        victim=rules.tabulate_victims.output.victims,
        curve=rules.tabulate_victims.output.curves,
        search=rules.tabulate_search.output if STUDY.search.grids else [],
        attacks=rules.tabulate_attacks.output if STUDY.attacks.grids else [],
        cells=[
            f"{RESULTS}/cells/retraining/{name}.{seed}.{part}.csv"
            for name, seed in STUDY.retrained
            for part in range(len(RETRAINING_JOBS))
        ],
    output:
        trajectory=f"{RESULTS}/tables/trajectory.csv",
        retraining=f"{RESULTS}/tables/retraining.csv",
        breakeven=report(
            f"{RESULTS}/tables/breakeven.csv", caption="../workflow/report/breakeven.rst", category="Tables"
        ),
        crossing=f"{RESULTS}/tables/crossing.csv",
    log:
        f"{RESULTS}/logs/tabulate_retraining.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_retraining.tsv"
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
        "setting attacks against retraining"
    script:
        "../workflow/scripts/tabulate_retraining.py"
