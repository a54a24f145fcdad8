# In:  dataset.safetensors
# Out: <victim>/seed<k>/model.safetensors, curve.csv, training.json; tables/victim.csv, tables/curve.csv
# What leaves the training as it is must not train again: checked.json is ancient, metrics.json comes once it is cut.
# checkpoint.pt beside the model is no output: Snakemake would delete it with a killed job, and a resume needs it.


rule train_victim:
    input:
        dataset=f"{RESULTS}/dataset.safetensors",
        checked=ancient(f"{RESULTS}/checked.json"),
    output:
        model=f"{RESULTS}/{{victim}}/seed{{seed}}/model.safetensors",
        curve=f"{RESULTS}/{{victim}}/seed{{seed}}/curve.csv",
        training=f"{RESULTS}/{{victim}}/seed{{seed}}/training.json",
    log:
        f"{RESULTS}/logs/train_victim/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train_victim/{{victim}}.{{seed}}.tsv"
    priority: 1  # the longest jobs first
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.train_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        checkpoint=lambda wildcards: STUDY.victim_config(wildcards.victim).stamp(int(wildcards.seed)),
        device=STUDY.run.device,
    message:
        "training {wildcards.victim}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/train_victim.py"


rule tabulate_victims:
    input:
        metrics=[f"{RESULTS}/{name}/seed{seed}/metrics.json" for name, seed in STUDY.victims],
        curves=[f"{RESULTS}/{name}/seed{seed}/curve.csv" for name, seed in STUDY.victims],
    output:
        victims=f"{RESULTS}/tables/victim.csv",
        curves=f"{RESULTS}/tables/curve.csv",
    log:
        f"{RESULTS}/logs/tabulate_victims.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_victims.tsv"
    localrule: True
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=10,
        mem_mb=1000,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        study=STUDY.study,
        names=STUDY.victims,
    message:
        "gathering the victims"
    script:
        "../workflow/scripts/tabulate_victims.py"
