"""A defended layer served with a trusted party: the same network, and a secret that stays in one process."""

import copy
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import small
from scatterproof.blocks import Layout
from scatterproof.config.settings.defences import defence_of
from scatterproof.config.stream import Obfuscation
from scatterproof.defences import make_defence
from scatterproof.defences.base import Layer
from scatterproof.defences.network import protect_network, secret_of
from scatterproof.puzzle import Protected
from scatterproof.stream.hijack.tap import tap
from scatterproof.stream.network.defended import serve_defended
from scatterproof.stream.network.deployment import Deployment, DeploymentError, Sizes
from scatterproof.stream.network.runtime import Runtime, StreamError
from scatterproof.stream.network.simulate import simulate
from scatterproof.stream.network.trusted import Trusted
from scatterproof.victims.data import to_input
from scatterproof.victims.models import dense_layers
from test_stream_runtime import RNG, SIZES, close, inputs, layer, running, sent

DEFENCES: list[Any] = [
    "none",
    {"name": "rescale", "factor": 10.0},
    {"name": "home", "share": 0.3},
    {"name": "home", "share": 0.3, "choice": "largest"},
    {"name": "home", "share": 1.0},
    {"name": "withhold", "directions": 3, "fill": "refilled"},
]
DATA = small.dataset(test=5)
IMAGES = to_input(DATA.test.images, 8, DATA.mean, DATA.std)
AT_HOME = np.array([1, *range(7, 14), 20])  # of 3 x 7 blocks: all of row 1, and one each of the others


def label(defence: Any) -> str:
    return defence_of(defence).label


def whole_layer() -> Layer:
    return Layer("x", layer()[0], None, 8, 8)


def service(defence: Any = None, **keys: Any) -> tuple[Runtime, np.ndarray]:
    """3 x 7 blocks under `home` on few devices, and the weight."""
    settings = defence_of(defence or {"name": "home", "share": 0.3})
    held = make_defence(settings).protect(whole_layer(), RNG(1))
    deployment = Deployment.dealt(SIZES, RNG(0), 5, at_home=held.at_home)
    weight, blocks = layer()
    blocks = blocks if "weight" not in held.secret else np.zeros_like(blocks)
    return Runtime(deployment, blocks, trusted=Trusted(settings.model_dump(), held.secret), **keys), weight


class Asked(nn.Module):
    """A layer that a runtime answers for."""

    def __init__(self, runtime: Runtime, bias: torch.Tensor) -> None:
        super().__init__()
        self.runtime, self.bias = runtime, bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.tensor(self.runtime.request(one.numpy())) for one in inputs]) + self.bias


def served_by(runtime: Runtime, model: nn.Module, protected: Protected) -> nn.Module:
    """The network as everybody holds it, its layer 3 served."""
    model = copy.deepcopy(model)
    model.load_state_dict(protected.state | {"3.weight": torch.full_like(model[3].weight, torch.nan)})
    model[3] = Asked(runtime, model[3].bias.detach())
    return model.eval()


@pytest.mark.parametrize("defence", DEFENCES, ids=label)
def test_the_network_answers_as_before(defence: Any) -> None:
    model = small.network(small.WIDE)
    layout = Layout.square({"3": dense_layers(model)["3"].weight.shape}, 33)  # edges of 29 and of 25
    settings = defence_of(defence)
    protected = protect_network(model, layout, settings, IMAGES, (0,))
    grid = layout.grids["3"]
    sizes = Sizes.of(grid.outputs, grid.inputs, grid.height, grid.width)
    deployment = Deployment.dealt(sizes, RNG(0), 10, at_home=protected.at_home.numpy())
    trusted = Trusted(settings.model_dump(), secret_of(protected.secret, "3"))
    with (
        Runtime(deployment, layout.cut(protected.weights).numpy(), trusted=trusted) as runtime,
        torch.inference_mode(),
    ):
        assert "trusted" in runtime.processes
        before, after = model(IMAGES), served_by(runtime, model, protected)(IMAGES)
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))


@pytest.mark.parametrize("defence", ["none", *DEFENCES[2:]], ids=label)
def test_a_defended_layer_is_served_and_timed(defence: Any) -> None:
    settings = defence_of(defence)
    held = make_defence(settings).protect(whole_layer(), RNG(1))
    started = time.monotonic()
    outputs, latency = serve_defended(held, settings, SIZES, 3, inputs(3))
    elapsed = 1e3 * (time.monotonic() - started)
    assert all(close(answer, whole_layer().weight, one) for answer, one in zip(outputs, inputs(3), strict=True))
    assert 0 < 2 * latency < elapsed  # two of three took as long or longer


def test_without_its_trusted_party_a_layer_lacks_what_is_at_home() -> None:
    """Also a whole row of it, of which nobody sends a sum."""
    weight, blocks = layer()
    for number in AT_HOME:
        row, column = divmod(int(number), SIZES.columns)
        weight[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 0
    deployment = Deployment.dealt(SIZES, RNG(0), 4, replicas=2, at_home=AT_HOME)
    with Runtime(deployment, blocks) as runtime:
        first, second = (runtime.request(one) for one in inputs(2))
        runtime.kill(1)
        again = runtime.request(inputs(1)[0])
    assert close(first, weight, inputs(1)[0]) and close(second, weight, inputs(2)[1])
    assert (first == again).all() and (first[8:16] == 0).all()


@pytest.mark.parametrize("tcp", [False, True])
def test_a_lost_trusted_party_is_a_clear_error_and_leaves_nothing_behind(tcp: bool) -> None:
    runtime, weight = service(tcp=tcp)
    with runtime:
        one = inputs(1)[0]
        assert close(runtime.request(one), weight, one)
        os.kill(runtime.processes["trusted"], signal.SIGKILL)
        with pytest.raises(StreamError, match=r"^the process 'trusted' is lost$"):
            for _ in range(3):  # the first may be answered before the news comes
                runtime.request(one)
        processes = [runtime._launcher.pid, *runtime.processes.values()]
    assert len(processes) == 1 + 3 + len(runtime.deployment.device_at)
    assert not any(map(running, processes))


def test_a_lost_device_is_as_clear_as_ever() -> None:
    runtime, _ = service()
    with runtime:
        runtime.kill(1)
        with pytest.raises(StreamError, match=r"device 1 is lost, and with it block \(\d, \d\): no living copy"):
            for one in inputs(3):
                runtime.request(one)


def test_after_a_request_that_took_too_long_the_next_is_answered() -> None:
    runtime, weight = service()
    with runtime:
        first, second = inputs(2)
        os.kill(runtime.processes["d1"], signal.SIGSTOP)
        runtime.timeout = 1.0
        with pytest.raises(StreamError, match="request 0: the trusted party has no answer after 1 s"):
            runtime.request(first)
        os.kill(runtime.processes["d1"], signal.SIGCONT)
        runtime.timeout = 30.0
        assert close(runtime.request(second), weight, second)


OWNER = """
import numpy as np
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.runtime import Runtime
from scatterproof.stream.network.trusted import Trusted
deployment = Deployment.dealt(Sizes.of(20, 50, 8, 8), np.random.default_rng(0), 6)
runtime = Runtime(deployment, np.ones((21, 8, 8), np.float32), trusted=Trusted({"name": "none"}, {}))
print(runtime._launcher.pid, *runtime.processes.values(), flush=True)
while True:
    runtime.request(np.ones(50, np.float32))
"""


def test_with_its_owner_the_trusted_party_ends_too() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    processes = [int(word) for word in owner.stdout.readline().split()]
    assert len(processes) == 1 + 3 + 4 and all(map(running, processes))
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until = time.monotonic() + 10
    while any(map(running, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(running, processes))


def memory_holds(process: int, sought: list[bytes]) -> bool:
    """Whether any of these is in memory that the process can write to."""
    with Path(f"/proc/{process}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{process}/maps").read_text().splitlines():
            area, rights = line.split()[:2]
            start, end = (int(address, 16) for address in area.split("-"))
            if rights.startswith("rw"):
                memory.seek(start)
                content = memory.read(end - start)
                if any(each in content for each in sought):
                    return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("defence", DEFENCES[2:], ids=label)
def test_the_secret_is_in_the_trusted_process_alone(defence: Any) -> None:
    """Also not in that of the process that starts the others, nor in what has been read and let go."""
    runtime, _ = service(defence)
    with runtime:
        runtime.request(inputs(1)[0])
        secret = runtime.trusted.secret
        weights = next(secret[name] for name in ("blocks", "weight", "right") if name in secret)
        sought = [part.tobytes()[:64] for part in weights[:4]]
        processes = {"launcher": runtime._launcher.pid} | runtime.processes
        holders = {name for name, process in processes.items() if memory_holds(process, sought)}
    assert holders == {"trusted"}


def test_the_trusted_party_needs_no_torch() -> None:
    code = "import sys, scatterproof.stream.network.trusted; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("topology", ["sources", "coordinator"])
def test_the_simulator_makes_the_records_of_what_is_scattered(topology: str) -> None:
    deployment = Deployment.dealt(SIZES, RNG(1), 4, topology, at_home=AT_HOME)
    with Runtime(deployment, layer()[1]) as runtime:
        for one in inputs(2):
            runtime.request(one)
        real = runtime.served()
    made = simulate(deployment, 2, RNG(2))
    assert [sent(real, request) for request in range(2)] == [sent(made, request) for request in range(2)]
    assert set(made.position.tolist()) == set(deployment.scattered.tolist())


def test_traffic_with_a_trusted_party_is_that_without() -> None:
    runtime, _ = service()
    with runtime:
        runtime.request(inputs(1)[0])
        assert sent(runtime.served(), 0) == sent(simulate(runtime.deployment, 1, RNG(2)), 0)


def test_what_is_at_home_stays_there_in_fresh_layouts_and_is_never_leaked() -> None:
    deployment = Deployment.dealt(SIZES, RNG(1), at_home=AT_HOME)
    hiding = Obfuscation(session=1)
    served = simulate(deployment, 3, RNG(2), hiding)
    assert not np.isin(AT_HOME, served.position).any()
    traffic, _ = tap(simulate(deployment, 1, RNG(2)), deployment, Obfuscation(), 1.0, RNG(0), labelled=SIZES.count)
    assert len(traffic.labelled) == SIZES.count - len(AT_HOME)
    assert not np.isin(traffic.labelled[:, 1] * SIZES.columns + traffic.labelled[:, 2], AT_HOME).any()


@pytest.mark.parametrize("replicas", [1, 2])
def test_only_what_is_scattered_is_dealt(replicas: int) -> None:
    own = np.array([0, 1, 2, 8])
    deployment = Deployment.dealt(SIZES, RNG(1), 3, replicas=replicas, own=own, at_home=AT_HOME)
    assert set(deployment.scattered.tolist()) == set(range(SIZES.count)) - set(AT_HOME.tolist())
    assert ((deployment.holders >= 0).sum(0)[deployment.scattered] == replicas).all()
    if replicas == 1:
        assert not np.isin(deployment.holders[0, [0, 2]], deployment.holders[0, 3:7]).any()


def test_a_layout_without_what_is_at_home_is_as_ever() -> None:
    one, other = (Deployment.dealt(SIZES, RNG(3), 3, replicas=2, **keys) for keys in ({}, {"at_home": AT_HOME[:0]}))
    assert (one.holders == other.holders).all() and (one.source_at == other.source_at).all()


@pytest.mark.parametrize(
    ("at_home", "holders", "message"),
    [
        ([0], [0, 0, 1, 1], r"^block \(0, 0\) is at home and on a device$"),
        ([0], [-1, -1, 1, 1], r"^block \(0, 1\) is on no device$"),
        ([4], [0, 0, 1, 1], r"^position 4 is at home, expected one of 0 to 3$"),
    ],
)
def test_a_bad_layout_is_refused_by_name(at_home: list[int], holders: list[int], message: str) -> None:
    with pytest.raises(DeploymentError, match=message):
        Deployment(
            Sizes.of(4, 4, 2, 2), np.array([holders]), np.arange(2), np.arange(2, 4), np.arange(4, 6), np.array(at_home)
        )
