"""How a job runs: device, seeds, files, interruption, locks and its cost record."""
