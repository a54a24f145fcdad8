"""tables/trajectory.csv, retraining.csv, breakeven.csv and crossing.csv."""

from scatterproof.analysis.breakeven import breakeven_table, retraining_table, victim_images
from scatterproof.analysis.crossing import crossing_table
from scatterproof.analysis.tables import trajectory_table
from scatterproof.running.files import read_table, write_csv
from scatterproof.running.job import light_job

inputs, output = snakemake.input, snakemake.output
with light_job(snakemake, "retraining"):
    victims, curves = read_table(inputs.victim), read_table(inputs.curve)
    parts = [read_table(path) for path in inputs.get("cells", [])]
    search, attacks = (read_table(*inputs[name]) if inputs[name] else None for name in ("search", "attacks"))
    trajectory = trajectory_table(search, attacks)
    retraining = retraining_table(victims, curves, parts, victim_images(inputs.dataset))
    write_csv(output.trajectory, trajectory)
    write_csv(output.retraining, retraining)
    write_csv(output.breakeven, breakeven_table(retraining, trajectory, victims))
    write_csv(output.crossing, crossing_table(retraining, trajectory, victims))
