"""How placements are scored: accuracy and cross-entropy, in batches and as deltas."""
