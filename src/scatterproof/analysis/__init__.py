"""The study's tables and what follows from them, without torch."""
