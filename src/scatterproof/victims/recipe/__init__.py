"""How a network is trained: augmentation, learning rates, and layers folded over the copies of their inputs."""
