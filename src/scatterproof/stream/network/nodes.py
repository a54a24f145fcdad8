"""The processes of the runtime: one starts all others and watches them; devices, sources, reducers, and, where there is
one, the trusted party (trusted.py). No torch.

`python -m scatterproof.stream.network.nodes` reads the plan from its standard input, which stays open as long as the
runtime's owner lives. It imports numpy and ZeroMQ once and forks the others, so that 64 devices start in a second.
The trusted party is forked first, and reads its secret from that pipe itself: it is in no other process's memory.
Every process ends when that pipe does, however the owner died, and when its parent does; one that can't is killed.
"""

import json
import os
import select
import signal
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import zmq
from numpy.typing import NDArray

from scatterproof.stream.network.deployment import FREE
from scatterproof.stream.network.wire import (
    LOG,
    RESULT,
    SLICE,
    STOP,
    SUM,
    Message,
    die_with_parent,
    endpoint,
    listen,
    read_arrays,
    speak,
)

Plan = dict[str, NDArray[Any]]
Entry = tuple[float, int, int, int, int, int]  # time, source, destination, bytes, request, column or block
GRACE = 1.0  # seconds for the processes to end by themselves
NO_NUMBERS = np.empty(0, np.float32)


def main() -> None:
    """Start everybody, then report who ends, one JSON line each, until nobody is left."""
    plan = read_arrays(0)
    about = json.loads(str(plan.pop("about")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner says when it ends
    roles: list[tuple[str, Any]] = [("reducers", reduce_rows), ("sources", send_slices)]
    roles += [(f"d{device}", serve_device) for device in range(len(plan["device_at"]))]
    children = {start_trusted(plan, about): "trusted"} if about["defence"] else {}
    children |= {start(name, role, plan, about): name for name, role in roles}
    print(json.dumps({"started": {name: child for child, name in children.items()}}), flush=True)
    watch(children)


def start(name: str, role: Any, plan: Plan, about: dict[str, Any]) -> int:
    """Fork a child; its process."""
    child = os.fork()
    if child == 0:
        os.close(1)
        run(name, role, plan, about)
    return child


def start_trusted(plan: Plan, about: dict[str, Any]) -> int:
    """Fork the trusted party, and wait until it has read its secret from the owner's pipe, or has ended."""
    reader, ready = os.pipe()
    child = start("trusted", partial(serve_trusted, ready), plan, about)
    os.close(ready)
    os.read(reader, 1)  # nothing comes but the end
    os.close(reader)
    return child


def watch(children: dict[int, str]) -> None:
    """Say who ends; when the owner has, wait a little for all to follow, then end them."""
    owner, ended = select.poll(), 0.0
    owner.register(0, select.POLLIN)
    while children and not (ended and time.monotonic() > ended + GRACE):
        child, _ = os.waitpid(-1, os.WNOHANG)
        if child:
            with suppress(OSError):  # nobody may be left to hear it
                print(json.dumps({"lost": children.pop(child)}), flush=True)
        elif ended:
            time.sleep(0.01)
        elif owner.poll(20):
            ended = time.monotonic()
    for child in children:
        os.kill(child, signal.SIGKILL)


def run(name: str, role: Any, plan: Plan, about: dict[str, Any]) -> None:
    """A child's whole life."""
    status = 1
    try:
        die_with_parent()
        context = zmq.Context()
        socket = listen(context, endpoint(about["session"], name, about["ports"]))
        role(name, plan, about, context, Inbox(socket))
        context.destroy(linger=0)
        status = 0
    finally:
        os._exit(status)


class Inbox:
    """Messages as they arrive, until the pipe of the runtime's owner ends or a STOP comes."""

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self._socket = socket
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(0, zmq.POLLIN)

    def __iter__(self) -> Any:
        while True:
            try:
                message = Message.of(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                ready = dict(self._poller.poll())
                if 0 in ready:  # nothing more is written to the pipe: this is its end
                    return
                continue
            if message.kind == STOP:
                return
            yield message


def serve_trusted(ready: int, name: str, plan: Plan, about: dict[str, Any], context: Any, inbox: Inbox) -> None:
    """Read the secret, close `ready`, and answer the owner as the defence says."""
    from scatterproof.stream.network.trusted import answer_requests  # which imports what no other process needs

    secret = read_arrays(0)
    os.close(ready)
    answer_requests(secret, plan, about, context, inbox)


def serve_device(name: str, plan: Plan, about: dict[str, Any], context: Any, inbox: Inbox) -> None:
    """Multiply each slice with every block of its column held here, and send each product to its row's reducer."""
    device = int(name[1:])
    columns = len(plan["source_at"])
    position = np.flatnonzero((plan["holders"] == device).any(0))
    blocks: dict[int, list[tuple[int, int, NDArray[np.float32]]]] = {}
    for at in position:
        row, column = divmod(int(at), columns)
        height, width = plan["heights"][row], plan["widths"][column]
        weight = plan["blocks"][at, :height, :width].astype(np.float32).copy()
        tag, address = int(plan["tags"][at]), int(plan["reducer_at"][row])
        blocks.setdefault(int(plan["slice_tags"][column]), []).append((tag, address, weight))
    plan.clear()  # a device holds its own blocks and no more
    out = speak(context, endpoint(about["session"], "reducers", about["ports"]))
    me = about["device_at"][device]
    for message in inbox:
        for tag, reducer, weight in blocks.get(message.tag, []):
            product = weight @ message.numbers
            out.send(Message(me, reducer, message.request, tag, SUM, time.monotonic(), product).frame())


def send_slices(name: str, plan: Plan, about: dict[str, Any], context: Any, inbox: Inbox) -> None:
    """All sources, in one process: cut each layer's input, and send every device the slices of its blocks."""
    columns, devices = len(plan["source_at"]), len(plan["device_at"])
    held = plan["holders"] >= 0
    position = np.broadcast_to(np.arange(plan["holders"].shape[1]), held.shape)[held]
    pairs = np.unique((position % columns) * devices + plan["holders"][held])
    bounds = np.concatenate([[0], np.cumsum(plan["widths"])])
    to = [speak(context, endpoint(about["session"], f"d{device}", about["ports"])) for device in range(devices)]
    owner = speak(context, endpoint(about["session"], "owner", about["ports"]))
    rng = np.random.default_rng(about["seed"])
    log: list[Entry] = []
    for message in inbox:
        if message.kind == LOG:
            _hand_over(owner, log, 0)
            continue
        order = rng.permutation(len(pairs)) if about["order"] == "random" else np.arange(len(pairs))
        for number in order[::-1] if about["order"] == "reversed" else order:
            column, device = divmod(int(pairs[number]), devices)
            part = message.numbers[bounds[column] : bounds[column + 1]]
            source, there = int(plan["source_at"][column]), int(plan["device_at"][device])
            tag = int(plan["slice_tags"][column])
            sent = Message(source, there, message.request, tag, SLICE, time.monotonic(), part)
            to[device].send(sent.frame())
            log.append((sent.time, source, there, 4 * len(part), message.request, column))


def reduce_rows(name: str, plan: Plan, about: dict[str, Any], context: Any, inbox: Inbox) -> None:
    """All reducers, in one process: add one product for every block of a row that devices hold, whichever copy of it
    comes first.

    Products are added in the order of columns, so that a sum does not depend on who was quick.
    """
    columns = len(plan["source_at"])
    rows = plan["scattered"] // columns
    columns_of = {int(row): plan["scattered"][rows == row] % columns for row in np.unique(rows)}
    position_of = {int(tag): at for at, tag in enumerate(plan["tags"])}
    owner = speak(context, endpoint(about["session"], "owner", about["ports"]))
    asker = speak(context, endpoint(about["session"], about["asker"], about["ports"]))
    waiting: dict[tuple[int, int], dict[int, NDArray[np.float32]]] = {}
    done: dict[int, int] = {}
    log: list[Entry] = []
    for message in inbox:
        if message.kind == LOG:
            _hand_over(owner, log, 1)
            continue
        at = position_of[message.tag]
        log.append((message.time, message.source, message.destination, message.numbers.nbytes, message.request, at))
        row, column = divmod(at, columns)
        key = message.request, row
        if done.get(message.request, 0) >> row & 1:
            continue
        sums = waiting.setdefault(key, {})
        sums.setdefault(column, message.numbers)
        if len(sums) == len(columns_of[row]):
            total = np.stack([sums[each] for each in columns_of[row].tolist()]).sum(0, dtype=np.float32)
            del waiting[key]
            done[message.request] = done.get(message.request, 0) | 1 << row
            address = int(plan["reducer_at"][row])
            asker.send(Message(address, FREE, message.request, row, RESULT, time.monotonic(), total).frame())


def _hand_over(owner: Any, log: list[Entry], tag: int) -> None:
    """Send the log's columns as one message of raw bytes, and forget it."""
    values = np.array(log, np.float64).reshape(-1, 6)
    log.clear()
    owner.send(Message(FREE, FREE, FREE, tag, LOG, 0.0, values.view(np.float32).ravel()).frame())


if __name__ == "__main__":
    main()
