"""The page and the figures of a study, and publishing them."""
