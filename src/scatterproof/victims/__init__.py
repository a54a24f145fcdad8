"""The victim: its data, its network, its training, and training it again."""
