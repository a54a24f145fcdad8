"""`rescale`: the layer's outputs in a secret order and, where what follows lets scales through, of secret sizes.

The layer that reads them undoes both, so the network computes what it did, nobody works more, and no trusted party
takes part. Networks that differ so compute the same (Neyshabur, Salakhutdinov & Srebro, Path-SGD, NeurIPS 2015,
https://arxiv.org/abs/1506.02617, section 2).
"""

import numpy as np

from scatterproof.defences.base import Defence, DefenceError, Layer, Protection


class Rescale(Defence):
    """Outputs permuted and scaled by factors within 1/factor and factor, the reader inversely."""

    name = "rescale"

    def check(self, layer: Layer) -> None:
        """Raises: DefenceError where no layer can undo it, or scales don't pass what lies between."""
        if layer.reader is None:
            raise DefenceError(
                f"defence rescale: the outputs of {layer.name} are not read by one dense layer through functions of "
                "single values, which could undo it: expected another layer, or another defence"
            )
        if self.settings.factor > 1 and not layer.homogeneous:
            raise DefenceError(
                f"defence rescale: factor {self.settings.factor:g}, but what follows {layer.name} lets no scales "
                "through (ReLU, LeakyReLU and PReLU do): expected factor 1, which permutes alone"
            )

    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        """The layer in another basis; secret: order int64 and scales float32, both [outputs]."""
        self.check(layer)
        assert layer.reader is not None
        outputs = len(layer.weight)
        order = rng.permutation(outputs).astype(np.int64)
        reach = np.log(self.settings.factor)
        scales = np.exp(rng.uniform(-reach, reach, outputs)).astype(np.float32)
        return Protection(
            weight=layer.weight[order] * scales[:, None],
            bias=None if layer.bias is None else layer.bias[order] * scales,
            reader=layer.reader[:, order] / scales,
            secret={"order": order, "scales": scales},
        )
