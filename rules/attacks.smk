# In:  puzzle (for the attacks), answer and victim (for the scores alone)
# Out: attacks/<victim>.<seed>.<threat>.safetensors: where the attacks put the blocks, and when
# Out: cells/attacks/...csv, what that is worth on test images; tables/attacks.csv


rule attack_puzzle:
    input:
        rules.grant_puzzle.output.puzzle,
    output:
        f"{RESULTS}/attacks/{{victim}}.{{seed}}.{{threat}}.safetensors",
    log:
        f"{RESULTS}/logs/attack_puzzle/{{victim}}.{{seed}}.{{threat}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/attack_puzzle/{{victim}}.{{seed}}.{{threat}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        attacks=lambda wildcards: ATTACKS_ON[wildcards.threat][1],
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "attacking {wildcards.victim}, seed {wildcards.seed}, under the threat {wildcards.threat}"
    script:
        "../workflow/scripts/attack_puzzle.py"


rule score_attack:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
        training=rules.train_victim.output.training,
        puzzle=rules.grant_puzzle.output.puzzle,
        answer=rules.grant_puzzle.output.answer,
        found=rules.attack_puzzle.output[0],
    output:
        f"{RESULTS}/cells/attacks/{{victim}}.{{seed}}.{{threat}}.csv",
    log:
        f"{RESULTS}/logs/score_attack/{{victim}}.{{seed}}.{{threat}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_attack/{{victim}}.{{seed}}.{{threat}}.tsv"
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
        device=STUDY.run.device,
    message:
        "scoring the attacks on {wildcards.victim}, seed {wildcards.seed}, under the threat {wildcards.threat}"
    script:
        "../workflow/scripts/score_attack.py"


rule tabulate_attacks:
    input:
        [
            f"{RESULTS}/cells/attacks/{name}.{seed}.{threat}.csv"
            for name, seed in STUDY.attacked
            for threat in ATTACKS_ON
        ],
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
        "../workflow/scripts/concatenate.py"
