"""Judging what hijacks make of the traffic: scores, controls, and rows of the tables."""
