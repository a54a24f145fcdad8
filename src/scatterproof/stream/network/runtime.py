"""A dense layer served for real: devices, sources and reducers are processes that talk over ZeroMQ on this machine.

Every device is a process; all sources share one, and all reducers another, or a 64-device layer would need 114 more.
A defence's trusted party is one more: requests go to it, and it asks the devices (trusted.py). Sources and reducers
write the flow records: each message once, with its time of sending. Nothing is left behind, however the owner ends:
see nodes.py and wire.py.
"""

import json
import os
import socket
import subprocess
import sys
import time
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np
import zmq
from numpy.typing import NDArray

from scatterproof.config.stream import Order
from scatterproof.errors import UserError
from scatterproof.stream.network.deployment import Deployment, Ints
from scatterproof.stream.network.flows import HEADER, Flows, Served
from scatterproof.stream.network.nodes import NO_NUMBERS
from scatterproof.stream.network.trusted import Trusted
from scatterproof.stream.network.wire import LAYER, LOG, RESULT, Message, endpoint, framed, listen, speak

Floats = NDArray[np.float32]


class StreamError(UserError):
    """A request that can't be answered: a device is lost with no other copy of its blocks, or the trusted party is, or
    nothing comes in time."""


class Runtime:
    """A layer under service; a context manager.

    blocks float32 [positions, height, width], edges padded; those at home are left out. `order`: in which slices are
    sent. `tcp`: over the loopback's ports even where Unix sockets are at hand. `trusted`: what the trusted party
    knows, and no other process of the service. Raises: StreamError where it does not start in time.
    """

    def __init__(
        self,
        deployment: Deployment,
        blocks: Floats,
        order: Order = "random",
        seed: int = 0,
        timeout: float = 30.0,
        tcp: bool = False,
        trusted: Trusted | None = None,
    ) -> None:
        self.deployment = deployment
        self.trusted = trusted
        self.timeout = timeout
        self.processes: dict[str, int] = {}
        self.lost: list[str] = []
        self._requests = 0
        self._latency: list[float] = []
        self._context: Any = zmq.Context()
        names = ["owner", "sources", "reducers", *(f"d{device}" for device in range(len(deployment.device_at)))]
        names += ["trusted"] if trusted else []
        ports = _free_ports(names) if tcp or sys.platform != "linux" else {}
        session = uuid4().hex[:12]
        about = {"session": session, "ports": ports, "order": order, "seed": seed}
        about |= {"device_at": deployment.device_at.tolist(), "asker": "trusted" if trusted else "owner"}
        about["defence"] = dict(trusted.settings) if trusted else None
        self._inbox = listen(self._context, endpoint(session, "owner", ports))
        self._sources, self._reducers = (
            speak(self._context, endpoint(session, name, ports)) for name in ("sources", "reducers")
        )
        self._asked = speak(self._context, endpoint(session, "trusted", ports)) if trusted else self._sources
        self._awaited = 1 if trusted else deployment.scattered_rows
        self._launcher = subprocess.Popen(
            [sys.executable, "-m", "scatterproof.stream.network.nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        self._news = b""
        try:
            self._hand_out(about, blocks, seed)
            self._wait_until_started()
        except BaseException:
            self.close()
            raise

    def _hand_out(self, about: dict[str, Any], blocks: Floats, seed: int) -> None:
        """The plan, through the launcher's pipe: tags are random, so that they name no place. Then the secret, which
        the trusted party takes from the pipe itself."""
        deployment = self.deployment
        sizes, rng = deployment.sizes, np.random.default_rng(seed)
        plan = {name: getattr(deployment, name) for name in ("holders", "device_at", "source_at", "reducer_at")}
        plan |= {"heights": sizes.heights, "widths": sizes.widths, "scattered": deployment.scattered}
        plan["blocks"] = blocks.astype(np.float32)
        plan["blocks"][deployment.at_home] = 0
        plan |= {"tags": rng.permutation(2**20 + sizes.count)[: sizes.count]}
        plan |= {"slice_tags": rng.permutation(2**20)[: sizes.columns], "about": np.array(json.dumps(about))}
        assert self._launcher.stdin is not None
        self._launcher.stdin.write(framed(plan))
        if self.trusted:
            self._launcher.stdin.write(framed(self.trusted.secret))
        self._launcher.stdin.flush()

    def _wait_until_started(self) -> None:
        until = time.monotonic() + self.timeout
        while not self.processes:
            if self._launcher.poll() is not None or time.monotonic() > until:
                raise StreamError(f"the stream's processes did not start within {self.timeout:g} s")
            self._read_news(100)

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def request(self, inputs: Floats) -> Floats:
        """The layer's output float32 [outputs] (without bias) for its input float32 [inputs].

        Raises: StreamError as soon as the last holder of a block is lost, or at the timeout; never a wrong sum.
        """
        self._read_news(0)
        self._check_living()
        number, started = self._requests, time.monotonic()
        self._requests += 1
        self._asked.send(Message(-1, -1, number, 0, LAYER, started, np.asarray(inputs, np.float32)).frame())
        answers: dict[int, Floats] = {}
        while len(answers) < self._awaited:
            left = started + self.timeout - time.monotonic()
            if left <= 0:
                missing = f"{self._awaited - len(answers)} rows have no sum"
                missing = "the trusted party has no answer" if self.trusted else missing
                raise StreamError(f"request {number}: {missing} after {self.timeout:g} s")
            message = self._next(left)
            if message is not None and message.kind == RESULT and message.request == number:
                answers[message.tag] = message.numbers
        self._latency.append(time.monotonic() - started)
        return answers[0] if self.trusted else self.deployment.sizes.joined(answers)

    def served(self) -> Served:
        """All records since the last call, and the seconds of each request answered. Raises: StreamError."""
        for each in (self._sources, self._reducers):
            each.send(Message(-1, -1, -1, 0, LOG, 0.0, NO_NUMBERS).frame())
        logs: dict[int, NDArray[np.float64]] = {}
        until = time.monotonic() + self.timeout
        while len(logs) < 2:
            message = self._next(max(until - time.monotonic(), 0.0))
            if time.monotonic() > until:
                raise StreamError(f"no flow records after {self.timeout:g} s")
            if message is not None and message.kind == LOG:
                logs[message.tag] = message.numbers.view(np.float64).reshape(-1, 6)
        served = _served(self.deployment, logs[0], logs[1], np.array(self._latency))
        self._latency = []
        return served

    def kill(self, device: int) -> None:
        """End a device as a crash would."""
        os.kill(self.processes[f"d{device}"], 9)

    def close(self) -> None:
        """End all processes, and wait until they have."""
        if self._launcher.stdin is not None and not self._launcher.stdin.closed:
            self._launcher.stdin.close()  # the pipe's end tells everybody
        try:
            self._launcher.wait(3)
        except subprocess.TimeoutExpired:
            self._launcher.kill()  # and the kernel kills its children
            self._launcher.wait()
        if self._launcher.stdout is not None:
            self._launcher.stdout.close()
        self._context.destroy(linger=0)

    def _next(self, seconds: float) -> Message | None:
        """The next message, or None after so long, or after other news."""
        assert self._launcher.stdout is not None
        poller = zmq.Poller()
        poller.register(self._inbox, zmq.POLLIN)
        poller.register(self._launcher.stdout.fileno(), zmq.POLLIN)
        ready = dict(poller.poll(int(1000 * seconds) + 1))
        if self._inbox in ready:
            return Message.of(self._inbox.recv())
        if ready:
            self._read_news(0)
            self._check_living()
        return None

    def _read_news(self, milliseconds: int) -> None:
        """What the launcher says: who has started, who has ended."""
        assert self._launcher.stdout is not None
        pipe = self._launcher.stdout.fileno()
        poller = zmq.Poller()
        poller.register(pipe, zmq.POLLIN)
        while poller.poll(milliseconds):
            read = os.read(pipe, 65536)
            if not read:
                raise StreamError("the stream's processes have ended")
            self._news += read
            *lines, self._news = self._news.split(b"\n")
            for line in map(json.loads, lines):
                self.processes |= line.get("started", {})
                self.lost += [line["lost"]] if "lost" in line else []
            milliseconds = 0

    def _check_living(self) -> None:
        """Raises: StreamError that names a block that nobody alive holds."""
        hubs = [name for name in self.lost if not name.startswith("d")]
        if hubs:
            raise StreamError(f"the process '{hubs[0]}' is lost")
        gone = np.array([int(name[1:]) for name in self.lost], np.int64)
        if not len(gone):
            return
        living = (self.deployment.holders >= 0) & ~np.isin(self.deployment.holders, gone)
        orphans = np.setdiff1d(self.deployment.scattered, np.flatnonzero(living.any(0)))
        if len(orphans):
            where = self.deployment.named(orphans[0])
            raise StreamError(f"device {', '.join(map(str, gone))} is lost, and with it {where}: no living copy")


def _served(deployment: Deployment, sent: NDArray[np.float64], received: NDArray[np.float64], latency: Any) -> Served:
    """From the logs of the sources and of the reducers: time, source, destination, bytes, request, column or block."""
    rows = np.concatenate([sent, received])
    whole: Ints = rows[:, 1:].astype(np.int64)
    position, device = deployment.copies()
    top = len(deployment.device_at)
    number = {int(address): index for index, address in enumerate(deployment.device_at)}
    to = np.array([number[address] for address in whole[: len(sent), 1].tolist()], np.int64)
    link = {key: np.flatnonzero((position % deployment.sizes.columns) * top + device == key) for key in
            np.unique(whole[: len(sent), 4] * top + to).tolist()}  # fmt: skip
    served = [position[link[key]] for key in (whole[: len(sent), 4] * top + to).tolist()]
    record = np.concatenate([np.repeat(np.arange(len(sent)), [len(each) for each in served]),
                             len(sent) + np.arange(len(received))])  # fmt: skip
    flows = Flows(rows[:, 0], whole[:, 0], whole[:, 1], whole[:, 2] + HEADER, whole[:, 3])
    columns = whole[: len(sent), 4] + whole[: len(sent), 3] * deployment.sizes.columns
    content = np.concatenate([columns, columns.max(initial=0) + 1 + np.arange(len(received))])
    return Served(
        flows,
        record,
        np.concatenate([*served, whole[len(sent) :, 4]]),
        content,
        np.zeros(len(flows), np.int64),
        latency,
    )


def _free_ports(names: list[str]) -> dict[str, int]:
    """A free port of the loopback for each name."""
    held = [socket.socket() for _ in names]
    for each in held:
        each.bind(("127.0.0.1", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(names, held, strict=True)}
    for each in held:
        each.close()
    return ports
