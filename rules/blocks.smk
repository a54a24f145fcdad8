# In:  a victim, the dataset
# Out: puzzles/<victim>/seed<k>/b<size>/puzzle.safetensors, what a pirate may hold; answer.safetensors, the truth


rule partition_blocks:
    input:
        dataset=f"{RESULTS}/dataset.safetensors",
        model=f"{RESULTS}/{{victim}}/seed{{seed}}/model.safetensors",
    output:
        puzzles=[f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{size}/puzzle.safetensors" for size in STUDY.block_sizes],
        answers=[f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{size}/answer.safetensors" for size in STUDY.block_sizes],
    log:
        f"{RESULTS}/logs/partition_blocks/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/partition_blocks/{{victim}}.{{seed}}.tsv"
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
        block_sizes=STUDY.block_sizes,
        images=STUDY.prune.images_needed,
        seed=STUDY.seed,
    message:
        "cutting {wildcards.victim}, seed {wildcards.seed} into blocks"
    script:
        "../workflow/scripts/partition_blocks.py"
