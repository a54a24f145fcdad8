# In:  a victim, the dataset
# Out: puzzles/<victim>/seed<k>/b<size>/puzzle.safetensors, what a pirate may hold; answer.safetensors, the truth


rule partition_blocks:
    input:
        dataset=f"{RESULTS}/dataset.safetensors",
        model=f"{RESULTS}/{{victim}}/seed{{seed}}/model.safetensors",
    output:
        puzzle=f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{{size}}/puzzle.safetensors",
        answer=f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{{size}}/answer.safetensors",
    log:
        f"{RESULTS}/logs/partition_blocks/{{victim}}.{{seed}}.b{{size}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/partition_blocks/{{victim}}.{{seed}}.b{{size}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=15,
        mem_mb=STUDY.run.mem_mb,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        scatter=STUDY.scatter,
        images=STUDY.prune.images,
        seed=STUDY.seed,
    message:
        "cutting {wildcards.victim}, seed {wildcards.seed}, into blocks of {wildcards.size}"
    script:
        "../workflow/scripts/partition_blocks.py"
