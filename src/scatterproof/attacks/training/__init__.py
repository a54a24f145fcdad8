"""Attacks that train networks on the pirate's images."""
