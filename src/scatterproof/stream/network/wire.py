"""How the runtime's processes find and talk to each other over ZeroMQ, on this machine only. No torch.

On Linux the sockets are Unix sockets in the abstract namespace: they have no file, and vanish with their process. Else
they are TCP ports of the loopback interface. A message is a fixed head, then float32 numbers. What a process needs to
start comes through a pipe, as named arrays.
"""

import ctypes
import io
import os
import signal
import struct
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import zmq
from numpy.typing import NDArray

from scatterproof.stream.network.flows import HEADER

HEAD = struct.Struct("<qqqqqd")  # source, destination, request, tag, kind, time sent
LENGTH = struct.Struct("<q")
SLICE, SUM, LAYER, RESULT, LOG, STOP = range(6)
assert HEAD.size == HEADER


class Message(NamedTuple):
    """source, destination: addresses; tag: which block or row, known to those two; time: when sent, in seconds of the
    machine's monotonic clock; numbers float32 [n]."""

    source: int
    destination: int
    request: int
    tag: int
    kind: int
    time: float
    numbers: NDArray[np.float32]

    def frame(self) -> bytes:
        """The message as it is sent."""
        return HEAD.pack(*self[:6]) + self.numbers.tobytes()

    @classmethod
    def of(cls, frame: bytes) -> "Message":
        """The inverse of `frame`."""
        source, destination, request, tag, kind, when = HEAD.unpack_from(frame)
        numbers = np.frombuffer(frame, np.float32, offset=HEAD.size)
        return cls(source, destination, request, tag, kind, when, numbers)


def framed(arrays: Mapping[str, Any]) -> bytes:
    """Arrays by name as `read_arrays` takes them."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return LENGTH.pack(buffer.tell()) + buffer.getvalue()


def read_arrays(pipe: int) -> dict[str, NDArray[Any]]:
    """The next arrays of a pipe, and not one byte of what follows them. Raises: EOFError where the pipe ends first."""
    (length,) = LENGTH.unpack(_read(pipe, LENGTH.size))
    return dict(np.load(io.BytesIO(_read(pipe, length)), allow_pickle=False))


def _read(pipe: int, count: int) -> bytes:
    parts = []
    while count:
        parts.append(os.read(pipe, count))
        count -= len(parts[-1])
        if not parts[-1]:
            raise EOFError("the owner of the stream's processes has ended")
    return b"".join(parts)


def endpoint(session: str, name: str, ports: dict[str, int]) -> str:
    """Where the process of this name listens; `ports` where there are no abstract Unix sockets."""
    return f"ipc://@scatterproof-{session}-{name}" if not ports else f"tcp://127.0.0.1:{ports[name]}"


def listen(context: "zmq.Context[Any]", at: str) -> "zmq.Socket[bytes]":
    """A socket that many send to."""
    socket: zmq.Socket[bytes] = context.socket(zmq.PULL)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.bind(at)
    return socket


def speak(context: "zmq.Context[Any]", at: str) -> "zmq.Socket[bytes]":
    """A socket that sends to one, and never waits: requests are few at a time."""
    socket: zmq.Socket[bytes] = context.socket(zmq.PUSH)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, 0)
    socket.connect(at)
    return socket


def die_with_parent() -> None:
    """The kernel kills this process when its parent's thread that made it ends (Linux); elsewhere the pipe tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
