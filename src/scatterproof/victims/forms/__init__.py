"""Files as people have them: their arrays and weights, brought to the one form that the rest reads."""
