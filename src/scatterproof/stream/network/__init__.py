"""A layer served by devices: for real and simulated, plain and obfuscated."""
