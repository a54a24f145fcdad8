# In:  a victim, the dataset
# Out: protected/<victim>/seed<k>/<defence>/b<size>.safetensors: what devices hold of the layer under a defence, and the
#      owner's secret; no attack reads it, cut_puzzle parts the two
# Out: cells/defences/...csv, what that costs; tables/defences.csv

DEFENCES = protected_layers(STUDY)


rule protect_layer:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
    output:
        protected=directory(f"{PROTECTED}/{{defence}}"),
        costs=f"{RESULTS}/cells/defences/{{victim}}.{{seed}}.{{defence}}.csv",
    log:
        f"{RESULTS}/logs/protect_layer/{{victim}}.{{seed}}.{{defence}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/protect_layer/{{victim}}.{{seed}}.{{defence}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        study=STUDY.study,
        config=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        settings=lambda wildcards: DEFENCES[wildcards.defence][0].model_dump_json(),
        block_sizes_and_draws=lambda wildcards: DEFENCES[wildcards.defence][1],
        scatter=STUDY.scatter,
        seed=STUDY.seed,
    message:
        "protecting {wildcards.victim}, seed {wildcards.seed}, by {wildcards.defence}"
    script:
        "../workflow/scripts/protect_layer.py"


rule tabulate_defences:
    input:
        [
            f"{RESULTS}/cells/defences/{name}.{seed}.{defence}.csv"
            for name, seed in STUDY.attacked
            for defence in DEFENCES
        ],
    output:
        report(f"{RESULTS}/tables/defences.csv", caption="../workflow/report/defences.rst", category="Tables"),
    log:
        f"{RESULTS}/logs/tabulate_defences.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_defences.tsv"
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
        "gathering what the defences cost"
    script:
        "../workflow/scripts/concatenate.py"
