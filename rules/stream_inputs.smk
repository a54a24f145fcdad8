# What the rules of stream.smk take as input, as functions: snakemake --lint wants them apart from rules


def stream_slice(wildcards):
    """The cells of one job."""
    first = int(wildcards.slice) * STUDY.run.cells_per_job
    return STREAM_CELLS[wildcards.victim][first : first + STUDY.run.cells_per_job]


def stream_files(name):
    """The base puzzle or answer, then that of each share held."""
    folder = f"{RESULTS}/puzzles/{{victim}}/seed{{seed}}/b{MAIN_SIZE}"
    return [f"{folder}/{at}{name}.safetensors" for at in ["", *(f"{t.name}/" for t in STREAM_THREATS.values())]]
