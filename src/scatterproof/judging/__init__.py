"""What is reached against the truth: the only room that reads the answer; the scripts that score hand it over."""
