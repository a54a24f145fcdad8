"""Networks of the library transformers from a folder on disk, and text for them."""
