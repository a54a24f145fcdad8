"""The forms of the told ceiling. Imports no torch."""

FORMS = ("told", "told+train", "told+core", "told+free")
