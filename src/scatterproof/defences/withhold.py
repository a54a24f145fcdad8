"""`withhold`: the strongest singular directions of the layer stay at the trusted party, as SLIP proposes.

SLIP: https://arxiv.org/abs/2407.10886, section 4. The devices hold the rest, plain, or with the hole filled by random
directions that the trusted party takes out again. The hole shows all the same: the null space of the plain rest is its
span, and a fill lies among the strongest directions (docs/defences.md).
"""

import numpy as np
from numpy.typing import NDArray

from scatterproof.defences.base import (
    Defence,
    DefenceError,
    Devices,
    Floats,
    Layer,
    Protection,
    Secret,
    Work,
    whole_work,
    work_on,
)  # fmt: skip

Doubles = NDArray[np.float64]


class Withhold(Defence):
    """The first singular directions stay; the secret is what the trusted party adds, as two thin matrices."""

    name = "withhold"
    keeps = "directions"

    def rank(self, secret: Secret) -> int | None:
        """The directions that stay: who knows the setting knows how many."""
        return int(secret["directions"][0])

    def check(self, layer: Layer) -> None:
        """Raises: DefenceError where the layer has no more directions than are to stay."""
        count = self._count(layer)
        if count >= min(layer.weight.shape):
            outputs, inputs = layer.weight.shape
            raise DefenceError(
                f"defence withhold: directions {self.settings.directions:g} are {count} of the "
                f"{min(outputs, inputs)} that {layer.name} [{outputs}, {inputs}] has: expected fewer, or defence home"
            )

    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        """Secret: left [outputs, r] and right [r, inputs], whose product the trusted party adds; directions [1]."""
        self.check(layer)
        count, weight = self._count(layer), layer.weight.astype(np.float64)
        outputs, values, inputs = np.linalg.svd(weight, full_matrices=False)
        left, right = outputs[:, :count], values[:count, None] * inputs[:count]
        held = weight - left @ right
        if self.settings.fill == "refilled":
            filling = values[count] * _orthonormal(count, weight.shape[1], rng)
            held, right = held + left @ filling, right - filling
        elif self.settings.fill == "spread":
            sizes = rng.choice(values[count:], count)
            fresh, filling = _orthonormal(count, len(weight), rng).T, _orthonormal(count, weight.shape[1], rng)
            held = held + (fresh * sizes) @ filling
            left, right = np.hstack([left, fresh * sizes]), np.vstack([right, -filling])
        secret: Secret = {
            "left": left.astype(np.float32),
            "right": right.astype(np.float32),
            "directions": np.array([count]),
        }
        return Protection(held.astype(np.float32), layer.bias, layer.reader, secret=secret)

    def serve(self, inputs: Floats, secret: Secret, devices: Devices) -> Floats:
        """What the devices make of the inputs, and what the withheld directions add to it."""
        added: Floats = (inputs @ secret["right"].T) @ secret["left"].T
        return devices(inputs) + added

    def trusted_work(self, layer: Layer, secret: Secret) -> Work:
        """Two thin products, the right one folded over copied inputs; the whole layer where that is cheaper."""
        outputs, inputs = len(layer.weight), layer.weight.shape[1] // layer.copies
        thin = work_on(secret["left"].shape[1] * (outputs + inputs), inputs, outputs)
        return min(thin, whole_work(layer), key=lambda work: work.flops)

    def _count(self, layer: Layer) -> int:
        """How many directions stay: the number, or as many as the share of the whole layer's operations allows."""
        wanted: float = self.settings.directions
        if wanted >= 1:
            return round(wanted)
        outputs, inputs = len(layer.weight), layer.weight.shape[1] // layer.copies
        thin = 2.0 * (outputs + inputs) * (2 if self.settings.fill == "spread" else 1)
        return max(1, int(wanted * whole_work(layer).flops / thin))


def _orthonormal(count: int, size: int, rng: np.random.Generator) -> Doubles:
    """Random rows [count, size] that are orthogonal and of length 1."""
    made: Doubles = np.linalg.qr(rng.standard_normal((size, count)))[0].T
    return made
