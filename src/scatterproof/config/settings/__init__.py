"""The settings of the attacks, one class each, with what the attack needs of a threat and its defaults. No torch."""
