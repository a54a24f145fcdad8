# In:  answers (for the service and the scores alone), puzzles (for the hijack), a victim and the dataset (for the scores)
# Out: stream/<victim>.<seed>.<slice>.traffic.npz: what the pirate sees; .truth.npz: what that was, for the scores
# Out: stream/<victim>.<seed>.<slice>.found.npz: groups and places found
# Out: cells/stream/...csv; tables/stream.csv (P3, S3)

STREAM_CELLS = {name: stream_cells(STUDY.stream, name) for name in STUDY.stream.victims}
STREAM_THREATS = stream_threats(STUDY.stream)


rule tap_stream:
    input:
        answers=stream_files("answer"),
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
        seed=STUDY.seed,
    message:
        "serving {wildcards.victim}, seed {wildcards.seed}, and tapping its traffic, slice {wildcards.slice}"
    script:
        "../workflow/scripts/tap_stream.py"


rule hijack_stream:
    input:
        puzzles=stream_files("puzzle"),
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
        device=STUDY.run.device,
    message:
        "hijacking the stream of {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/hijack_stream.py"


rule score_stream:
    input:
        dataset=rules.prepare_dataset.output[0],
        puzzles=stream_files("puzzle"),
        answers=stream_files("answer"),
        truth=rules.tap_stream.output.truth,
        found=rules.hijack_stream.output[0],
    output:
        f"{RESULTS}/cells/stream/{{victim}}.{{seed}}.{{slice}}.csv",
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
        study=STUDY.study,
        images_per_chunk=STUDY.run.images_per_chunk,
        device=STUDY.run.device,
    message:
        "scoring the hijacks of {wildcards.victim}, seed {wildcards.seed}, slice {wildcards.slice}"
    script:
        "../workflow/scripts/score_stream.py"


rule tabulate_stream:
    input:
        [
            f"{RESULTS}/cells/stream/{name}.{seed}.{part}.csv"
            for name, seed in STUDY.streamed
            for part in range(slice_count(len(STREAM_CELLS[name]), STUDY.run.cells_per_job))
        ],
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
