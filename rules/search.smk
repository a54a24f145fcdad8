# In:  the puzzles of the threats, the test images (for the scores)
# Out: search/<victim>.<seed>.<threat>.<slice>.safetensors: what the searches of a job had reached, and when
# Out: cells/search/...csv, their accuracy on test images; tables/search.csv (P2)
# Out: cells/plateau/...csv; tables/plateau.csv (L)

SEARCH_JOBS = search_jobs(STUDY.search, STUDY.scatter)
PLATEAU_THREAT = plateau_threat(STUDY.plateau, STUDY.scatter)


wildcard_constraints:
    threat="(layer|dense)-[0-9.e-]+-[0-9]+-(none|labels|logits)",


rule search_placements:
    input:
        f"{PUZZLES}/{{threat}}",
    output:
        f"{RESULTS}/search/{{victim}}.{{seed}}.{{threat}}.{{slice}}.safetensors",
    log:
        f"{RESULTS}/logs/search_placements/{{victim}}.{{seed}}.{{threat}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/search_placements/{{victim}}.{{seed}}.{{threat}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.search_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: settings_json(STUDY.search, SEARCH_JOBS[wildcards.threat, int(wildcards.slice)]),
        block_size=MAIN_SIZE,
        runs=lambda wildcards: runs_json(SEARCH_JOBS[wildcards.threat, int(wildcards.slice)]),
        seed=STUDY.seed,
        device=STUDY.run.device,
        memory_mb=STUDY.run.mem_mb // 2,
    message:
        "P2: {wildcards.victim}, seed {wildcards.seed}, {wildcards.threat}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/search_placements.py"


rule score_search:
    input:
        dataset=rules.prepare_dataset.output[0],
        puzzles=f"{PUZZLES}/{{threat}}",
        reached=rules.search_placements.output[0],
    output:
        f"{RESULTS}/cells/search/{{victim}}.{{seed}}.{{threat}}.{{slice}}.csv",
    log:
        f"{RESULTS}/logs/score_search/{{victim}}.{{seed}}.{{threat}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_search/{{victim}}.{{seed}}.{{threat}}.{{slice}}.tsv"
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
        runs=lambda wildcards: runs_json(SEARCH_JOBS[wildcards.threat, int(wildcards.slice)]),
        block_size=MAIN_SIZE,
        memory_mb=STUDY.run.mem_mb // 2,
        device=STUDY.run.device,
    message:
        "scoring what was reached: {wildcards.victim}, seed {wildcards.seed}, {wildcards.threat}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/score_search.py"


rule tabulate_search:
    input:
        [
            f"{RESULTS}/cells/search/{name}.{seed}.{threat}.{part}.csv"
            for name, seed in STUDY.searched
            for threat, part in SEARCH_JOBS
        ],
    output:
        f"{RESULTS}/tables/search.csv",
    log:
        f"{RESULTS}/logs/tabulate_search.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_search.tsv"
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
        "gathering what the searches reached"
    script:
        "../workflow/scripts/concatenate.py"


rule measure_plateau:
    input:
        puzzles=f"{PUZZLES}/{PLATEAU_THREAT.name}",
        answers=f"{ANSWERS}/{PLATEAU_THREAT.name}",
    output:
        f"{RESULTS}/cells/plateau/{{victim}}.{{seed}}.csv",
    log:
        f"{RESULTS}/logs/measure_plateau/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_plateau/{{victim}}.{{seed}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        grid=STUDY.plateau.model_dump_json(),
        block_size=MAIN_SIZE,
        threat=PLATEAU_THREAT.name,
        study=STUDY.study,
        seed=STUDY.seed,
        memory_mb=STUDY.run.mem_mb // 2,
        device=STUDY.run.device,
    message:
        "L: {wildcards.victim}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/measure_plateau.py"


rule tabulate_plateau:
    input:
        [f"{RESULTS}/cells/plateau/{name}.{seed}.csv" for name, seed in STUDY.searched],
    output:
        f"{RESULTS}/tables/plateau.csv",
    log:
        f"{RESULTS}/logs/tabulate_plateau.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_plateau.tsv"
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
        "gathering the plateau"
    script:
        "../workflow/scripts/concatenate.py"
