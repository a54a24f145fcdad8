"""The figures of a study, one file a subject."""
