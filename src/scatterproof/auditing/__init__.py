"""One model of the user's own, attacked here and now, without Snakemake: an estimate in minutes, or the verdict."""
