"""The study, typed: one file a section, without torch."""
