# In:  a puzzle a block size; for the scores alone victims, answers and the dataset
# Out: fineness/<victim>.<seed>/found.safetensors: what the fingerprint reached on each
# Out: tables/fineness.csv; tables/fineness_threshold.csv (F)


rule attack_fineness:
    input:
        f"{PUZZLES}/fineness",
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
        puzzles=[f"{RESULTS}/puzzles/{name}/seed{seed}/fineness" for name, seed in STUDY.fineness_victims],
        answers=[f"{RESULTS}/answers/{name}/seed{seed}/fineness" for name, seed in STUDY.fineness_victims],
        reached=[f"{RESULTS}/fineness/{name}.{seed}/found.safetensors" for name, seed in STUDY.fineness_victims],
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
        fingerprint=STUDY.attacks.fingerprint.model_dump_json(),
        seed=STUDY.seed,
        device=STUDY.run.device,
    message:
        "F: scoring what was recovered at every block size"
    script:
        "../workflow/scripts/score_fineness.py"
