"""From tapped traffic to the places of blocks."""
