"""`home`: a share of the blocks stays at the trusted party, which multiplies them itself.

At share 1 the whole layer does: the point that every other defence must beat, since nothing of the layer is scattered.
The devices then hold random numbers that no weight went into.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scatterproof.defences.base import (
    Defence,
    DefenceError,
    Devices,
    Floats,
    Ints,
    Layer,
    Protection,
    Secret,
    Work,
    whole_work,
    work_on,
)  # fmt: skip

Bools = NDArray[np.bool_]


class Home(Defence):
    """The blocks drawn, those of largest norm, or those that tell most of where they lie, stay."""

    name = "home"
    keeps = "blocks"

    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        """Secret: the whole weight at share 1; else the positions that stay, and their blocks."""
        count = len(layer.rows) * len(layer.columns)
        staying = max(1, round(self.settings.share * count))
        if staying == count:
            noise = rng.standard_normal(layer.weight.shape, np.float32) / np.float32(layer.weight.shape[1] ** 0.5)
            return Protection(noise, layer.bias, layer.reader, secret={"weight": layer.weight})
        if self.settings.choice == "drawn":
            at_home = np.sort(rng.choice(count, staying, replace=False))
        else:
            at_home = np.sort(np.argsort(-self._wanted(layer), kind="stable")[:staying])
        at_home = at_home.astype(np.int64)
        secret: Secret = {"at_home": at_home, "blocks": blocks_at(layer, at_home)}
        return Protection(layer.weight, layer.bias, layer.reader, at_home, secret)

    def _wanted(self, layer: Layer) -> NDArray[Any]:
        """By which the blocks that stay are chosen, the largest first: [positions]."""
        if self.settings.choice == "telling":
            if layer.telling is None:
                raise DefenceError(f"defence home: choice telling: nobody said what the blocks of {layer.name} tell")
            return layer.telling
        squares = layer.weight.astype(np.float64) ** 2
        return np.add.reduceat(np.add.reduceat(squares, layer.rows, 0), layer.columns, 1).ravel()

    def serve(self, inputs: Floats, secret: Secret, devices: Devices) -> Floats:
        """What the devices add up, and what the blocks at home add to it."""
        if "weight" in secret:
            devices(inputs)  # they are asked all the same: who sees the traffic learns nothing
            return inputs @ secret["weight"].T
        outputs = devices(inputs)
        blocks = secret["blocks"]
        _, height, width = blocks.shape
        rows, columns = _places(secret["at_home"], inputs.shape[1], width)
        padded = np.pad(inputs, ((0, 0), (0, -inputs.shape[1] % width)))
        slices = padded.reshape(len(inputs), -1, width)[:, columns].transpose(1, 0, 2)
        added = np.zeros((-(-outputs.shape[1] // height), len(inputs), height), np.float32)
        np.add.at(added, rows, slices @ blocks.transpose(0, 2, 1))
        return outputs + added.transpose(1, 0, 2).reshape(len(inputs), -1)[:, : outputs.shape[1]]

    def opened(self, weight: Floats, secret: Secret) -> Floats | None:
        """The blocks held; nothing where the devices' numbers are random."""
        return None if "weight" in secret else weight

    def trusted_work(self, layer: Layer, secret: Secret) -> Work:
        """Weights of blocks in one row that read copies of one input are folded into one."""
        if "weight" in secret:
            return whole_work(layer)
        read = self._read(layer, secret)
        folded: Bools = np.logical_or.reduce(read.reshape(len(read), -1, layer.copies), axis=2)
        outputs = _heights(layer)[np.logical_or.reduce(folded, axis=1)].sum()
        inputs = np.logical_or.reduce(folded, axis=0).sum()
        return work_on(float(folded.sum(1) @ _heights(layer)), float(inputs), float(outputs))

    def device_share(self, layer: Layer, secret: Secret) -> float:
        """All of it at share 1, where the devices multiply random numbers."""
        if "weight" in secret:
            return 1.0
        return 1 - float(self._read(layer, secret).sum(1) @ _heights(layer)) / layer.weight.size

    def _read(self, layer: Layer, secret: Secret) -> Bools:
        """Which inputs each row's blocks at home read: bool [rows, inputs]."""
        stays = np.zeros((len(layer.rows), len(layer.columns)), np.bool_)
        stays.ravel()[secret["at_home"]] = True
        return stays.repeat(layer.width, 1)[:, : layer.weight.shape[1]]


def blocks_at(layer: Layer, positions: Ints) -> Floats:
    """Blocks [n, height, width] of a layer by their positions, edges padded with zeros."""
    missing = ((0, -layer.weight.shape[0] % layer.height), (0, -layer.weight.shape[1] % layer.width))
    padded = np.pad(layer.weight, missing)
    split = padded.reshape(len(layer.rows), layer.height, len(layer.columns), layer.width)
    rows, columns = positions // len(layer.columns), positions % len(layer.columns)
    return np.ascontiguousarray(split[rows, :, columns])


def _heights(layer: Layer) -> Ints:
    """The outputs of each row of blocks."""
    return np.diff(np.append(layer.rows, layer.weight.shape[0]))


def _places(positions: NDArray[np.int64], inputs: int, width: int) -> tuple[Ints, Ints]:
    columns = -(-inputs // width)
    return positions // columns, positions % columns
