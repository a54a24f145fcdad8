# In:  puzzles; for the scores alone answers; for scores and controls victims and the dataset
# Out: attacks/<victim>.<seed>.<slice>.safetensors: what the attacks of a job had reached, and when
# Out: cells/attacks/...csv, what that is worth on test images; tables/attacks.csv, the told ceilings in it
# Out: cells/controls/...csv; tables/controls.csv, tables/hijacks.csv, tables/verdict.csv

ATTACK_JOBS = attack_jobs(STUDY.attacks, STUDY.scatter)


rule attack_puzzle:
    input:
        f"{PUZZLES}/attacks.{{slice}}",
    output:
        f"{RESULTS}/attacks/{{victim}}.{{seed}}.{{slice}}.safetensors",
    log:
        f"{RESULTS}/logs/attack_puzzle/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attack_puzzle/{{victim}}.{{seed}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.attack_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        attacks=lambda wildcards: json.dumps(ATTACK_JOBS[int(wildcards.slice)]),
        block_size=STUDY.attacked_size,
        config=attack_settings_json(STUDY.attacks),
        seed=STUDY.seed,
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "attacking {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/attack_puzzle.py"


rule score_attack:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
        training=rules.train_victim.output.training,
        puzzles=f"{PUZZLES}/attacks.{{slice}}",
        answers=f"{ANSWERS}/attacks.{{slice}}",
        reached=rules.attack_puzzle.output[0],
    output:
        f"{RESULTS}/cells/attacks/{{victim}}.{{seed}}.{{slice}}.csv",
    log:
        f"{RESULTS}/logs/score_attack/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_attack/{{victim}}.{{seed}}.{{slice}}.tsv"
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
        threats=lambda wildcards: list(ATTACK_JOBS[int(wildcards.slice)]),
        block_size=STUDY.attacked_size,
        device=STUDY.run.device,
    message:
        "scoring the attacks on {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/score_attack.py"


rule tabulate_attacks:
    input:
        [
            f"{RESULTS}/cells/attacks/{name}.{seed}.{part}.csv"
            for name, seed in STUDY.attacked
            for part in range(len(ATTACK_JOBS))
        ],
        [f"{RESULTS}/cells/ceilings/{name}.{seed}.{part}.csv" for name, seed in STUDY.attacked for part in CEILING_JOBS],
    output:
        f"{RESULTS}/tables/attacks.csv",
    log:
        f"{RESULTS}/logs/tabulate_attacks.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_attacks.tsv"
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
        "gathering what the attacks reached"
    script:
        "../workflow/scripts/tabulate_attacks.py"


rule control_attacks:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
    output:
        f"{RESULTS}/cells/controls/{{victim}}.{{seed}}.csv",
    log:
        f"{RESULTS}/logs/control_attacks/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/control_attacks/{{victim}}.{{seed}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.attack_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        study=STUDY.study,
        victim=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        config=STUDY.attacks.model_dump_json(
            exclude={"victims", "victim_seeds", "threats_per_job", "block_size", "draws"}
        ),
        scatter=STUDY.scatter,
        draws=DRAWS,
        block_size=STUDY.attacked_size,
        seed=STUDY.seed,
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "controls of the attacks on {wildcards.victim}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/control_attacks.py"


rule tabulate_verdicts:
    input:
        attacks=rules.tabulate_attacks.output if ATTACK_JOBS else [],
        hijacks=[f"{RESULTS}/cells/stream/{part}.attacks.csv" for part in STREAM_SLICES if STREAM_CONTROLLED],
        controls=[
            f"{RESULTS}/cells/controls/{part}.csv"
            for part in [f"{name}.{seed}" for name, seed in STUDY.controlled if ATTACK_JOBS] + STREAM_CONTROLLED
        ],
        breakeven=f"{RESULTS}/tables/breakeven.csv",
        defences=rules.tabulate_defences.output if DEFENCES else [],
    output:
        **({"hijacks": f"{RESULTS}/tables/hijacks.csv"} if STREAM_CONTROLLED else {}),
        **({"frontier": f"{RESULTS}/tables/frontier.csv"} if DEFENCES else {}),
        controls=f"{RESULTS}/tables/controls.csv",
        verdict=report(f"{RESULTS}/tables/verdict.csv", caption="../workflow/report/verdict.rst", category="Tables"),
    log:
        f"{RESULTS}/logs/tabulate_verdicts.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_verdicts.tsv"
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
        "giving the verdicts"
    script:
        "../workflow/scripts/tabulate_verdicts.py"
