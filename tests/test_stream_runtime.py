"""The layer served for real: right sums or clear errors, the simulator's records, nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from scatterproof.config.stream import Obfuscation
from scatterproof.judging.traffic.hijack_scores import score_groups
from scatterproof.stream.hijack.grouping import adaptive_groups
from scatterproof.stream.hijack.tap import tap
from scatterproof.stream.network.deployment import Deployment, DeploymentError, Sizes
from scatterproof.stream.network.runtime import Runtime, StreamError
from scatterproof.stream.network.simulate import simulate

SIZES = Sizes.of(20, 50, 8, 8)  # 3 x 7 blocks, smaller at both edges
RNG = np.random.default_rng


def layer(sizes: Sizes = SIZES, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and its blocks padded with zeros."""
    weight = RNG(3).standard_normal((int(sizes.heights.sum()), int(sizes.widths.sum()))).astype(np.float32)
    whole = np.zeros((sizes.rows * size, sizes.columns * size), np.float32)
    whole[: weight.shape[0], : weight.shape[1]] = weight
    return weight, whole.reshape(sizes.rows, size, sizes.columns, size).swapaxes(1, 2).reshape(-1, size, size)


def inputs(count: int, sizes: Sizes = SIZES) -> np.ndarray:
    return RNG(4).standard_normal((count, int(sizes.widths.sum()))).astype(np.float32)


def close(answer: np.ndarray, weight: np.ndarray, one: np.ndarray) -> bool:
    return np.allclose(answer, weight @ one, rtol=1e-5, atol=1e-5 * np.abs(weight).sum(1).max())


@pytest.mark.parametrize("topology", ["sources", "coordinator"])
@pytest.mark.parametrize("tcp", [False, True])
def test_the_sums_are_the_layers(topology: str, tcp: bool) -> None:
    weight, blocks = layer()
    deployment = Deployment.dealt(SIZES, RNG(0), 3, topology)
    with Runtime(deployment, blocks, tcp=tcp) as runtime:
        assert all(close(runtime.request(one), weight, one) for one in inputs(5))


def test_the_talks_grid_on_64_devices() -> None:
    """1568 blocks of a layer at 1/16 width; benchmarks/serving.py serves 200 requests of it."""
    sizes = Sizes.of(256, 1568, 16, 16)
    weight, blocks = layer(sizes, 16)
    deployment = Deployment.dealt(sizes, RNG(0), 1568 / 64)
    assert len(deployment.device_at) == 64
    with Runtime(deployment, blocks) as runtime:
        assert len(runtime.processes) == 64 + 2
        assert all(close(runtime.request(one), weight, one) for one in inputs(3, sizes))
        assert all(local(process) for process in runtime.processes.values())


def local(process: int) -> bool:
    """No socket of the process could reach another machine."""
    return all(c.laddr.ip == "127.0.0.1" for c in psutil.Process(process).net_connections("inet"))


def test_over_tcp_no_socket_leaves_the_loopback() -> None:
    _, blocks = layer()
    with Runtime(Deployment.dealt(SIZES, RNG(0), 7), blocks, tcp=True) as runtime:
        runtime.request(inputs(1)[0])
        sockets = [c for p in runtime.processes.values() for c in psutil.Process(p).net_connections("inet")]
        assert sockets
        assert all(local(process) for process in runtime.processes.values())


def test_a_lost_device_is_a_clear_error_and_its_replica_the_same_answer() -> None:
    weight, blocks = layer()
    one = inputs(1)[0]
    with Runtime(Deployment.dealt(SIZES, RNG(0), 3), blocks) as runtime:
        runtime.request(one)
        runtime.kill(2)
        with pytest.raises(StreamError, match=r"device 2 is lost, and with it block \(\d, \d\): no living copy"):
            for _ in range(3):  # the first may be answered before the news comes
                runtime.request(one)
    with Runtime(Deployment.dealt(SIZES, RNG(0), 3, replicas=2), blocks) as runtime:
        before = runtime.request(one)
        runtime.kill(2)
        assert (runtime.request(one) == before).all()
        assert close(before, weight, one)


def test_devices_killed_in_mid_request_never_give_a_wrong_sum() -> None:
    weight, blocks = layer()
    for device in range(4):
        with Runtime(Deployment.dealt(SIZES, RNG(device), 3), blocks, timeout=10) as runtime:
            runtime.request(inputs(1)[0])
            answered = 0
            try:
                for number, one in enumerate(inputs(50)):
                    if number == 3:
                        os.kill(runtime.processes[f"d{device}"], signal.SIGKILL)  # its queue is not empty
                    assert close(runtime.request(one), weight, one)
                    answered += 1
            except StreamError as error:
                assert f"device {device} is lost" in str(error)
            assert 3 <= answered < 50


def test_a_device_that_hangs_is_an_error_in_time() -> None:
    _, blocks = layer()
    with Runtime(Deployment.dealt(SIZES, RNG(0), 3), blocks, timeout=1.0) as runtime:
        os.kill(runtime.processes["d1"], signal.SIGSTOP)
        with pytest.raises(StreamError, match=r"request 0: \d rows have no sum after 1 s"):
            runtime.request(inputs(1)[0])


OWNER = """
import numpy as np
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.runtime import Runtime
deployment = Deployment.dealt(Sizes.of(20, 50, 8, 8), np.random.default_rng(0), 3)
runtime = Runtime(deployment, np.ones((21, 8, 8), np.float32))
print(runtime._launcher.pid, *runtime.processes.values(), flush=True)
while True:
    runtime.request(np.ones(50, np.float32))
"""


def names_on_disk() -> set[str]:
    """Unix sockets by name, shared memory, and files of ours in the temporary folder."""
    sockets = {line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "scatterproof-" in line}
    return sockets | {str(p) for p in Path("/dev/shm").glob("*scatterproof*")} | {
        str(p) for p in Path("/tmp").glob("scatterproof-*")
    }  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_at_any_time_it_leaves_nothing_behind() -> None:
    before = names_on_disk()
    for delay in (0.0, 0.05):
        owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None
        processes = [int(word) for word in owner.stdout.readline().split()]
        assert len(processes) == 1 + 2 + 7
        assert names_on_disk() - before
        time.sleep(delay)
        owner.kill()
        owner.wait()
        owner.stdout.close()
        until = time.monotonic() + 10
        while any(map(running, processes)) and time.monotonic() < until:
            time.sleep(0.02)
        assert not any(map(running, processes))
        assert names_on_disk() <= before


def running(process: int) -> bool:
    """Whether it lives; one that has ended and waits to be buried does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("topology", "per_device"), [("sources", 1), ("sources", 4), ("coordinator", 4)])
def test_the_simulator_makes_the_runtimes_records(topology: str, per_device: int) -> None:
    """The same messages in every request: source, destination, bytes, and what each served."""
    _, blocks = layer()
    deployment = Deployment.dealt(SIZES, RNG(1), per_device, topology)
    with Runtime(deployment, blocks) as runtime:
        for one in inputs(4):
            runtime.request(one)
        real = runtime.served()
    made = simulate(deployment, 4, RNG(2))
    for request in range(4):
        assert sent(real, request) == sent(made, request)
    assert len(real.latency) == len(made.latency) == 4


def sent(served: object, request: int) -> list[tuple[int, ...]]:
    flows = served.flows
    chosen = np.flatnonzero(flows.request == request)
    carried = {int(record): [] for record in chosen}
    for record, position in zip(served.record.tolist(), served.position.tolist(), strict=True):
        if record in carried:
            carried[record].append(position)
    ends = zip(flows.source[chosen], flows.destination[chosen], flows.bytes[chosen], chosen, strict=True)
    return sorted((int(a), int(b), int(size), *sorted(carried[int(record)])) for a, b, size, record in ends)


@pytest.mark.parametrize("order", ["random", "forward", "reversed"])
def test_the_real_traffic_gives_the_groups_away(order: str) -> None:
    _, blocks = layer()
    deployment = Deployment.dealt(SIZES, RNG(5))
    with Runtime(deployment, blocks, order=order) as runtime:
        runtime.request(inputs(1)[0])
        traffic, seen = tap(runtime.served(), deployment, Obfuscation(), 1.0, RNG(0))
    found = score_groups(adaptive_groups(traffic), seen, SIZES, np.arange(SIZES.count))
    assert (found.column_ari, found.row_ari) == (1.0, 1.0)


BLOCKS = {"a": [(0, 0), (0, 1)], "b": [(1, 0), (1, 1)]}


@pytest.mark.parametrize(
    ("blocks", "reducers", "message"),
    [
        ({"a": [(0, 0), (0, 1)], "b": [(1, 0)]}, {"r": [0, 1]}, r"block \(1, 1\) is on no device"),
        (BLOCKS | {"c": []}, {"r": [0, 1]}, "device 'c' is unknown, expected one of a, b"),
        (BLOCKS, {"r": [0, 1], "s": [1]}, "row 1 has two reducers, 'r' and 's', expected one"),
        (BLOCKS, {"r": [0]}, "row 1 has no reducer"),
        (
            BLOCKS | {"b": [(1, 0), (1, 1), (2, 0)]},
            {"r": [0, 1]},
            r"device 'b' holds block \(2, 0\), expected rows below 2",
        ),
        (BLOCKS | {"b": [(1, 0), (1, 1), (1, 1)]}, {"r": [0, 1]}, r"block \(1, 1\) is twice on one device"),
    ],
)
def test_a_bad_layout_is_refused_by_name(blocks: dict, reducers: dict, message: str) -> None:
    with pytest.raises(DeploymentError, match=message):
        Deployment.listed(Sizes.of(4, 4, 2, 2), ["a", "b"], blocks, reducers, RNG(0))


def test_a_layout_by_name_is_served() -> None:
    sizes = Sizes.of(4, 4, 2, 2)
    weight, blocks = layer(sizes, 2)
    deployment = Deployment.listed(sizes, ["a", "b"], BLOCKS, {"r": [0, 1]}, RNG(0))
    with Runtime(deployment, blocks) as runtime:
        one = inputs(1, sizes)[0]
        assert close(runtime.request(one), weight, one)


def test_devices_need_no_torch() -> None:
    code = "import sys, scatterproof.stream.network.nodes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
