# In:  puzzles with their answers, victims and the dataset
# Out: cells/ceilings/<victim>.<seed>.<slice>.csv: what a pirate reaches who is told every place and key; tables/attacks.csv
#      holds it beside the attacks

CEILINGS = ceilings_on(STUDY.attacks, STUDY.scatter)
CEILING_JOBS = {
    number: {name: CEILINGS[without_draw(name)] for name in job if without_draw(name) in CEILINGS}
    for number, job in enumerate(attack_jobs(STUDY.attacks, STUDY.scatter))
    if not CEILINGS.keys().isdisjoint(map(without_draw, job))
}


rule measure_ceilings:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
        training=rules.train_victim.output.training,
        puzzles=f"{PUZZLES}/attacks.{{slice}}",
        answers=f"{ANSWERS}/attacks.{{slice}}",
    output:
        f"{RESULTS}/cells/ceilings/{{victim}}.{{seed}}.{{slice}}.csv",
    log:
        f"{RESULTS}/logs/measure_ceilings/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_ceilings/{{victim}}.{{seed}}.{{slice}}.tsv"
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
        forms=lambda wildcards: json.dumps(CEILING_JOBS[int(wildcards.slice)]),
        attacks=lambda wildcards: json.dumps(attack_jobs(STUDY.attacks, STUDY.scatter)[int(wildcards.slice)]),
        block_size=STUDY.attacked_size,
        config=attack_settings_json(STUDY.attacks),
        seed=STUDY.seed,
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "told every place and key: {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/measure_ceilings.py"
