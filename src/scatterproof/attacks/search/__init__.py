"""Searches over placements by fitness alone."""
