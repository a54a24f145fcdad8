"""The settings of every attack and of every defence."""
