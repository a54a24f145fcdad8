# In:  puzzles and answers of each victim, one a block size; the test images
# Out: cells/prune/...csv, one file per slice of the grid; tables/prune.csv (P1)

PRUNE_SLICES = range(slice_count(len(prune_cells(STUDY.prune, STUDY.block_sizes)), STUDY.run.cells_per_job))


rule evaluate_prune:
    input:
        dataset=rules.prepare_dataset.output[0],
        puzzles=f"{PUZZLES}/grid",
        answers=f"{ANSWERS}/grid",
    output:
        f"{RESULTS}/cells/prune/{{victim}}.{{seed}}.{{slice}}.csv",
    log:
        f"{RESULTS}/logs/evaluate_prune/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate_prune/{{victim}}.{{seed}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        grid=STUDY.prune.model_dump_json(),
        study=STUDY.study,
        block_sizes=STUDY.block_sizes,
        files=GRID_FILES,
        seed=STUDY.seed,
        cells_per_job=STUDY.run.cells_per_job,
        images_per_chunk=STUDY.run.images_per_chunk,
        device=STUDY.run.device,
    message:
        "P1: {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/evaluate_prune.py"


rule tabulate_prune:
    input:
        [f"{RESULTS}/cells/prune/{name}.{seed}.{part}.csv" for name, seed in STUDY.victims for part in PRUNE_SLICES],
    output:
        f"{RESULTS}/tables/prune.csv",
    log:
        f"{RESULTS}/logs/tabulate_prune.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_prune.tsv"
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
        "gathering the cells of P1"
    script:
        "../workflow/scripts/concatenate.py"
