# In:  a victim, the dataset
# Out: <victim>/seed<k>/metrics.json: the victim's accuracy, every block in its place
# Out: puzzles/<victim>/seed<k>/b<size>/puzzle.safetensors, what a pirate may hold; answer.safetensors, the truth


rule partition_blocks:
    input:
        dataset=f"{RESULTS}/dataset.safetensors",
        model=rules.train_victim.output.model,
        training=rules.train_victim.output.training,
    output:
        metrics=f"{RESULTS}/{{victim}}/seed{{seed}}/metrics.json",
        puzzles=[f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{size}/puzzle.safetensors" for size in STUDY.block_sizes],
        answers=[f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{size}/answer.safetensors" for size in STUDY.block_sizes],
    log:
        f"{RESULTS}/logs/partition_blocks/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/partition_blocks/{{victim}}.{{seed}}.tsv"
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
        scatter=STUDY.scatter,
        block_sizes=STUDY.block_sizes,
        images=STUDY.prune.images_needed,
        seed=STUDY.seed,
        images_per_chunk=STUDY.run.images_per_chunk,
        device=STUDY.run.device,
    message:
        "cutting {wildcards.victim}, seed {wildcards.seed}, into blocks"
    script:
        "../workflow/scripts/partition_blocks.py"
