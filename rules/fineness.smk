# In:  victims, the dataset
# Out: fineness/<victim>.<seed>/puzzles/b<size>.safetensors, a puzzle a block size; answers/ beside them, for the scores
# Out: fineness/<victim>.<seed>/found.safetensors: what the fingerprint reached on each
# Out: tables/fineness.csv; tables/fineness_threshold.csv (F)

FINE = [f"{RESULTS}/fineness/{name}.{seed}" for name, seed in STUDY.fineness_victims]


rule grant_fineness:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
    output:
        puzzles=directory(f"{RESULTS}/fineness/{{victim}}.{{seed}}/puzzles"),
        answers=directory(f"{RESULTS}/fineness/{{victim}}.{{seed}}/answers"),
    log:
        f"{RESULTS}/logs/grant_fineness/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/grant_fineness/{{victim}}.{{seed}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=15,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        threat=STUDY.fineness.threat.model_dump_json(),
        block_sizes=STUDY.fineness.block_sizes,
        seed=STUDY.seed,
        device=STUDY.run.device,
    message:
        "cutting {wildcards.victim}, seed {wildcards.seed}, into blocks of several sizes"
    script:
        "../workflow/scripts/grant_fineness.py"


rule attack_fineness:
    input:
        rules.grant_fineness.output.puzzles,
    output:
        f"{RESULTS}/fineness/{{victim}}.{{seed}}/found.safetensors",
    log:
        f"{RESULTS}/logs/attack_fineness/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attack_fineness/{{victim}}.{{seed}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.attack_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        config=attack_settings_json(STUDY.attacks),
        seed=STUDY.seed,
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "F: attacking {wildcards.victim}, seed {wildcards.seed}, at every block size"
    script:
        "../workflow/scripts/attack_fineness.py"


rule score_fineness:
    input:
        dataset=rules.prepare_dataset.output[0],
        models=[f"{RESULTS}/{name}/seed{seed}/model.safetensors" for name, seed in STUDY.fineness_victims],
        puzzles=[f"{folder}/puzzles" for folder in FINE],
        answers=[f"{folder}/answers" for folder in FINE],
        found=[f"{folder}/found.safetensors" for folder in FINE],
    output:
        fineness=f"{RESULTS}/tables/fineness.csv",
        threshold=report(
            f"{RESULTS}/tables/fineness_threshold.csv", caption="../workflow/report/fineness.rst", category="Tables"
        ),
    log:
        f"{RESULTS}/logs/score_fineness.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_fineness.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        study=STUDY.study,
        victims=STUDY.fineness_victims,
        device=STUDY.run.device,
    message:
        "F: scoring what was recovered at every block size"
    script:
        "../workflow/scripts/score_fineness.py"
