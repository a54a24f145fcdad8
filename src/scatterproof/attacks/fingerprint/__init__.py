"""Reassembly from what the blocks' own weights say."""
