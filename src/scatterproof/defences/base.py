"""What every defence shares: the layer that it is given, what devices and trusted party hold of it, and what it costs.

A defence protects one dense layer at a time and knows numpy alone, so that the trusted party's process starts at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scatterproof.errors import UserError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Secret = Mapping[str, NDArray[Any]]
Devices = Callable[[Floats], Floats]
NOWHERE: Ints = np.empty(0, np.int64)
BYTES = 4  # of a number, fp32


class DefenceError(UserError, ValueError):
    """A layer that a defence can't protect."""


@dataclass(frozen=True)
class Layer:
    """A dense layer that is to be scattered, and what lies around it.

    weight float32 [outputs, inputs]; bias float32 [outputs], None where it has none; height and width of a block;
    reader float32 [m, outputs]: the weight of the dense layer that alone reads the outputs, each through a function of
    its own; None where no layer reads them so; homogeneous: whether those functions let positive scales through;
    copies: how often each input stands in the layer's input, side by side; telling float32 [positions]: what each block
    tells of its place, None where nobody asked.
    """

    name: str
    weight: Floats
    bias: Floats | None
    height: int
    width: int
    reader: Floats | None = None
    homogeneous: bool = False
    copies: int = 1
    telling: Floats | None = None

    @property
    def rows(self) -> Ints:
        """The first output of each row of blocks."""
        return np.arange(0, self.weight.shape[0], self.height)

    @property
    def columns(self) -> Ints:
        """The first input of each column of blocks."""
        return np.arange(0, self.weight.shape[1], self.width)


@dataclass(frozen=True)
class Protection:
    """What a defence makes of a layer.

    weight, bias, reader: in place of the layer's, where devices and all others hold them; at_home int64: positions of
    blocks that no device holds; secret: what the trusted party alone knows, arrays by name.
    """

    weight: Floats
    bias: Floats | None
    reader: Floats | None
    at_home: Ints = field(default_factory=lambda: NOWHERE)
    secret: Secret = field(default_factory=dict)


class Work(NamedTuple):
    """Of one input of the layer: floating-point operations, and bytes of weights, inputs and outputs touched."""

    flops: float
    bytes: float


class Defence(ABC):
    """A defence of the name under which its settings stand in `config.settings.defences.DEFENCES`.

    keeps: what of the layer stays with the trusted party; for who has the keys, devices hold all the rest.
    """

    name: ClassVar[str]
    keeps: ClassVar[Literal["nothing", "blocks", "directions"]] = "nothing"

    def __init__(self, settings: Any) -> None:
        """settings: of the class of this name in `config.settings.defences`."""
        self.settings = settings

    def check(self, layer: Layer) -> None:  # noqa: B027
        """Raises: DefenceError where the layer can't be protected so."""

    def rank(self, secret: Secret) -> int | None:
        """How many directions of the layer stay with the trusted party, as settings tell; None: it keeps none."""
        return None

    @abstractmethod
    def protect(self, layer: Layer, rng: np.random.Generator) -> Protection:
        """What devices hold, and what only the trusted party knows. Raises: DefenceError."""

    def serve(self, inputs: Floats, secret: Secret, devices: Devices) -> Floats:
        """The layer's outputs [n, outputs] without bias, as the layer that reads them expects them.

        inputs [n, inputs]; devices: what the devices together make of inputs, [n, inputs] -> [n, outputs], without the
        blocks that stay at home. The trusted party runs this; where there is none, it is what happens anyway.
        """
        return devices(inputs)

    def opened(self, weight: Floats, secret: Secret) -> Floats | None:
        """What the devices' weight [outputs, inputs], absent blocks zero, is to who knows every key drawn without
        regard to the layer's weights; None where it says nothing of the layer.

        It makes no use of what stays with the trusted party. A basis that the rest of the network shares stays.
        """
        return weight

    def trusted_work(self, layer: Layer, secret: Secret) -> Work:
        """What the trusted party does for each input of the layer, in the cheapest exact form of it."""
        return Work(0.0, 0.0)

    def device_share(self, layer: Layer, secret: Secret) -> float:
        """The devices' operations for each input as a share of what they are without a defence."""
        return 1.0


def whole_work(layer: Layer) -> Work:
    """What the layer takes in the cheapest exact form of it: inputs that are copies are folded into one."""
    outputs, inputs = layer.weight.shape
    return work_on(outputs * (inputs // layer.copies), inputs // layer.copies, outputs)


def work_on(weights: float, inputs: float, outputs: float) -> Work:
    """A multiplication and an addition for each weight; weights, inputs and outputs each touched once."""
    return Work(2.0 * weights, float(BYTES * (weights + inputs + outputs)))
