"""The study, typed: one file a section, an attack's settings in settings/, without torch."""
