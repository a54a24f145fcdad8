# In:  answers (for the service and the scores alone), puzzles (for the hijack), a victim and the dataset (for the scores)
# Out: stream/<victim>.<seed>.<slice>.traffic.npz: what the pirate sees; .truth.npz: what that was, for the scores
# Out: stream/<victim>.<seed>.<slice>.found.npz: groups and places found
# Out: cells/stream/...csv; tables/stream.csv (P3, S3)
# Out: cells/stream/....attacks.csv: the hijacks of pirates who hold blocks, for the verdict; cells/controls/stream.*.csv

STREAM_CELLS = {name: stream_cells(STUDY.stream, name) for name in STUDY.stream.victims}
STREAM_THREATS = stream_threats(STUDY.stream)
STREAM_FILES = [GRID_FILES[0], *(file_of(MAIN_SIZE, threat.name) for threat in STREAM_THREATS.values())]
STREAM_SLICES = [
    f"{name}.{seed}.{part}"
    for name, seed in STUDY.streamed
    for part in range(slice_count(len(STREAM_CELLS[name]), STUDY.run.cells_per_job))
]
STREAM_CONTROLLED = [
    f"stream.{name}.{seed}" for name, seed in STUDY.stream_controlled if held_services(STUDY.stream, name)
]


rule tap_stream:
    input:
        answers=stream_parts(ANSWERS),
    output:
        traffic=f"{RESULTS}/stream/{{victim}}.{{seed}}.{{slice}}.traffic.npz",
        truth=f"{RESULTS}/stream/{{victim}}.{{seed}}.{{slice}}.truth.npz",
    log:
        f"{RESULTS}/logs/tap_stream/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tap_stream/{{victim}}.{{seed}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=0,
    params:
        records=f"{RESULTS}/records",
        cells=lambda wildcards: cells_json(stream_slice(wildcards)),
        held=[0.0, *STREAM_THREATS],
        files=STREAM_FILES,
        seed=STUDY.seed,
    message:
        "serving {wildcards.victim}, seed {wildcards.seed}, and tapping its traffic, slice {wildcards.slice}"
    script:
        "../workflow/scripts/tap_stream.py"


rule hijack_stream:
    input:
        puzzles=stream_parts(PUZZLES),
        traffic=rules.tap_stream.output.traffic,
    output:
        f"{RESULTS}/stream/{{victim}}.{{seed}}.{{slice}}.found.npz",
    log:
        f"{RESULTS}/logs/hijack_stream/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/hijack_stream/{{victim}}.{{seed}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        cells=lambda wildcards: cells_json(stream_slice(wildcards)),
        held=[0.0, *STREAM_THREATS],
        fingerprint=STUDY.attacks.fingerprint.model_dump_json(),
        files=STREAM_FILES,
        device=STUDY.run.device,
    message:
        "hijacking the stream of {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/hijack_stream.py"


rule score_stream:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
        training=rules.train_victim.output.training,
        puzzles=stream_parts(PUZZLES),
        answers=stream_parts(ANSWERS),
        truth=rules.tap_stream.output.truth,
        reached=rules.hijack_stream.output[0],
    output:
        stream=f"{RESULTS}/cells/stream/{{victim}}.{{seed}}.{{slice}}.csv",
        attacks=f"{RESULTS}/cells/stream/{{victim}}.{{seed}}.{{slice}}.attacks.csv",
    log:
        f"{RESULTS}/logs/score_stream/{{victim}}.{{seed}}.{{slice}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/score_stream/{{victim}}.{{seed}}.{{slice}}.tsv"
    conda:
        "../envs/scatterproof.yaml"
    threads: STUDY.run.threads
    resources:
        runtime=STUDY.run.cell_minutes,
        mem_mb=STUDY.run.mem_mb,
        gpu=GPUS,
    params:
        records=f"{RESULTS}/records",
        cells=lambda wildcards: cells_json(stream_slice(wildcards)),
        held=[0.0, *STREAM_THREATS],
        files=STREAM_FILES,
        study=STUDY.study,
        device=STUDY.run.device,
    message:
        "scoring the hijacks of {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/score_stream.py"


rule control_stream:
    input:
        dataset=rules.prepare_dataset.output[0],
        model=rules.train_victim.output.model,
    output:
        f"{RESULTS}/cells/controls/stream.{{victim}}.{{seed}}.csv",
    log:
        f"{RESULTS}/logs/control_stream/{{victim}}.{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/control_stream/{{victim}}.{{seed}}.tsv"
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
        victim=lambda wildcards: STUDY.victim_config(wildcards.victim).model_dump_json(exclude={"seeds"}),
        services=lambda wildcards: cells_json(held_services(STUDY.stream, wildcards.victim)),
        threats=[threat.model_dump_json() for threat in STREAM_THREATS.values()],
        block_size=MAIN_SIZE,
        shuffles=STUDY.stream.control_shuffles,
        fingerprint=STUDY.attacks.fingerprint.model_dump_json(),
        draws=DRAWS,
        seed=STUDY.seed,
        device=STUDY.run.device,
    message:
        "controls of the hijacks on {wildcards.victim}, seed {wildcards.seed}"
    script:
        "../workflow/scripts/control_stream.py"


rule tabulate_stream:
    input:
        [f"{RESULTS}/cells/stream/{part}.csv" for part in STREAM_SLICES],
    output:
        f"{RESULTS}/tables/stream.csv",
    log:
        f"{RESULTS}/logs/tabulate_stream.log",
    benchmark:
        f"{RESULTS}/benchmarks/tabulate_stream.tsv"
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
        "gathering what the hijacks found"
    script:
        "../workflow/scripts/concatenate.py"
