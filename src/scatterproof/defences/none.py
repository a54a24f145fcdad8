"""`none`: the devices hold the layer's own blocks."""

import numpy as np

from scatterproof.defences.base import Defence, Layer, Protection


class Undefended(Defence):
    """No defence."""

    name = "none"

    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        """The layer as it is."""
        return Protection(layer.weight, layer.bias, layer.reader)
