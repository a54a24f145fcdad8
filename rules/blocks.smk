# In:  a victim, the dataset, what defences have made of the victim's layers
# Out: puzzles/<victim>/seed<k>/<part>/b<size>/<threat>.safetensors, what a pirate may hold; answers/... likewise, the
#      truth. A part is what one stage reads: `grid` is P1's, S1's and the traffic's, `attacks.<slice>` a job's of the
#      attacks, `fineness` F's; a threat of the searches, the plateau or the owners of devices is a part by its name
# Out: <victim>/seed<k>/metrics.json: the victims' accuracies, every block in its place

MAIN_SIZE = STUDY.block_sizes[0]
CUTS = puzzle_parts(STUDY)
PROTECTED = f"{RESULTS}/protected/{{victim}}/seed{{seed}}"
GRID_FILES = [cut.file for cut in CUTS["grid"]]
PUZZLES = f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}"
ANSWERS = f"{RESULTS}/answers/{{victim}}/seed{{seed}}"


rule cut_puzzle:
    input:
        dataset=f"{RESULTS}/dataset.safetensors",
        model=rules.train_victim.output.model,
        protected=lambda wildcards: [
            f"{PROTECTED}/{label}".format(**wildcards) for label in defence_labels(CUTS[wildcards.part])
        ],
    output:
        puzzles=directory(f"{PUZZLES}/{{part}}"),
        answers=directory(f"{ANSWERS}/{{part}}"),
    log:
        f"{RESULTS}/logs/cut_puzzle/{{victim}}.{{seed}}.{{part}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/cut_puzzle/{{victim}}.{{seed}}.{{part}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=lambda wildcards: 15 + len(CUTS[wildcards.part]),
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        config=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        base=lambda wildcards: STUDY.victim_config(wildcards.victim).stamp(int(wildcards.seed)),
        puzzles=lambda wildcards: cuts_json(CUTS[wildcards.part]),
        draws=DRAWS,
        fine=lambda wildcards: wildcards.part == "fineness",
        seed=STUDY.seed,
        device=STUDY.run.device,
    message:
        "cutting {wildcards.victim}, seed {wildcards.seed}, into the puzzles of {wildcards.part}"
    script:
        "../workflow/scripts/cut_puzzle.py"


# One job for all: each takes seconds, and the tables that read them wait for every victim anyway.
rule measure_victims:
    input:
        dataset=rules.prepare_dataset.output[0],
        puzzles=[f"{RESULTS}/puzzles/{name}/seed{seed}/grid" for name, seed in STUDY.victims],
        answers=[f"{RESULTS}/answers/{name}/seed{seed}/grid" for name, seed in STUDY.victims],
        training=[f"{RESULTS}/{name}/seed{seed}/training.json" for name, seed in STUDY.victims],
    output:
        [f"{RESULTS}/{name}/seed{seed}/metrics.json" for name, seed in STUDY.victims],
    log:
        f"{RESULTS}/logs/measure_victims.log",
    benchmark:
        f"{RESULTS}/benchmarks/measure_victims.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=10 + 5 * len(STUDY.victims),
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        files=GRID_FILES,
        images_per_chunk=STUDY.run.images_per_chunk,
        device=STUDY.run.device,
    message:
        "measuring the victims, every block in its place"
    script:
        "../workflow/scripts/measure_victims.py"
