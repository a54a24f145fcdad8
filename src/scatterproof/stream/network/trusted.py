"""The trusted party: the owner's own small device, a process that alone knows a defence's secret. No torch.

It stands between the owner and the sources and reducers, in the owner's place on their links. Flow records leave these
links out, whoever is at their end: its messages have no records, and it needs no address.
"""

import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scatterproof.config.settings.defences import defence_of
from scatterproof.defences import make_defence
from scatterproof.defences.base import Floats, Secret
from scatterproof.stream.network.deployment import FREE, Ints, Sizes
from scatterproof.stream.network.wire import LAYER, RESULT, Message, endpoint, speak


class Trusted(NamedTuple):
    """What the trusted party is given: the defence's settings as plain data, and the layer's secret arrays by name."""

    settings: Mapping[str, Any]
    secret: Secret


def answer_requests(
    secret: Secret, plan: Mapping[str, NDArray[Any]], about: Mapping[str, Any], context: Any, inbox: Iterable[Message]
) -> None:
    """Serve each of the owner's requests until the inbox ends; `plan` and `about` as nodes.py has them."""
    defence = make_defence(defence_of(about["defence"]))
    owner, sources = (speak(context, endpoint(about["session"], to, about["ports"])) for to in ("owner", "sources"))
    devices = Devices(inbox, sources, Sizes(plan["heights"], plan["widths"]), plan["scattered"])
    while request := devices.next_request():
        outputs = defence.serve(request.numbers[None], secret, devices)[0].astype(np.float32)
        owner.send(Message(FREE, FREE, request.request, 0, RESULT, time.monotonic(), outputs).frame())


class Devices:
    """What the devices together make of inputs, float32 [n, inputs] -> [n, outputs]."""

    def __init__(self, inbox: Iterable[Message], sources: Any, sizes: Sizes, scattered: Ints) -> None:
        """scattered int64: positions of the blocks that devices hold."""
        self._messages, self._sources, self._sizes = iter(inbox), sources, sizes
        self._rows = len(np.unique(scattered // sizes.columns))
        self._waiting: deque[Message] = deque()
        self._asked = 0

    def next_request(self) -> Message | None:
        """The owner's next; None at the end."""
        return self._waiting.popleft() if self._waiting else next(self._messages, None)

    def __call__(self, inputs: Floats) -> Floats:
        first, self._asked = self._asked, self._asked + len(inputs)
        for number, one in enumerate(inputs, first):
            self._sources.send(Message(FREE, FREE, number, 0, LAYER, time.monotonic(), one.astype(np.float32)).frame())
        sums: list[dict[int, Floats]] = [{} for _ in inputs]
        while any(len(each) < self._rows for each in sums):
            message = next(self._messages)
            if message.kind == LAYER:  # the owner waited no longer for this answer
                self._waiting.append(message)
            else:
                sums[message.request - first][message.tag] = message.numbers
        return np.stack([self._sizes.joined(each) for each in sums])
