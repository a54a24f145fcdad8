# What the rules of stream.smk take as input, as functions: snakemake --lint wants them apart from rules


def stream_slice(wildcards):
    """The cells of one job."""
    first = int(wildcards.slice) * STUDY.run.cells_per_job
    return STREAM_CELLS[wildcards.victim][first : first + STUDY.run.cells_per_job]


def stream_parts(folder):
    """The folder of P1's puzzles or answers, then that of each share held."""
    return [f"{folder}/{part}" for part in ["grid", *(threat.name for threat in STREAM_THREATS.values())]]
