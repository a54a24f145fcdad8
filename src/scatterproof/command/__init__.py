"""The command `scatterproof` and what writes the documents of the configuration."""
