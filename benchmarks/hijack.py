"""Time and growth of the hijack: grouping the traffic of 1,568 to 24,964 blocks, nothing hidden, every link tapped.

The time is that from flow records to groups, fitted by a power of the number of records. The peer, in the same run:
devices compared with each other (which share a partner: the sparse product of the table of meetings with its
transpose, then connected components), what 'devices that share a partner' says when taken literally. Both must find
every group.

    python benchmarks/hijack.py [--check]
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from grid import show
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from scatterproof.config.stream import Obfuscation
from scatterproof.judging.traffic.hijack_scores import at_positions, score_groups
from scatterproof.stream.hijack.grouping import adaptive_groups
from scatterproof.stream.hijack.roles import Leg, device_legs
from scatterproof.stream.hijack.tap import Seen, Traffic, tap
from scatterproof.stream.network.deployment import Deployment, Sizes
from scatterproof.stream.network.simulate import simulate

CASES = {"1568": (16, 98, 10), "6241": (79, 79, 10), "24964": (158, 158, 10), "1568_long": (16, 98, 160)}
EXPONENT = 1.15  # sorting costs a logarithm beyond linear


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="exit 1 where a target is missed")
    arguments = parser.parse_args()
    missed, flows, seconds = [], [], []
    for name, (rows, columns, requests) in CASES.items():
        traffic, seen = watched(rows, columns, requests)
        took, groups = timed(lambda traffic=traffic: adaptive_groups(traffic))
        found = score_groups(groups, seen, traffic.sizes, np.arange(rows * columns))
        flows.append(len(traffic.flows))
        seconds.append(took)
        show(f"{name}.flows", len(traffic.flows), "records")
        show(f"{name}.seconds", took, "s")
        show(f"{name}.column_ari", found.column_ari, "(target 1)")
        show(f"{name}.row_ari", found.row_ari, "(target 1)")
        missed += [f"{name}: groups are not all found"] if min(found.column_ari, found.row_ari) < 1 else []
        peer, same = timed(lambda traffic=traffic: compared(traffic))
        show(f"{name}.peer", peer, f"s for comparing devices, which finds {same} groups")
        missed += [f"{name}: the peer finds {same} groups"] if same != rows + columns else []
    exponent = float(np.polyfit(np.log(flows), np.log(seconds), 1)[0])
    show("exponent", exponent, f"power of the number of records (target {EXPONENT:g})")
    missed += ["the order of sending changes the groups"] if not same_in_reverse() else []
    missed += [f"exponent {exponent:.2f}"] if exponent > EXPONENT else []
    for line in missed:
        print(f"missed: {line}", file=sys.stderr)
    return int(arguments.check and bool(missed))


def same_in_reverse() -> bool:
    """Whether every block has the same groups when the send loop is reversed."""
    found = []
    for order in ("forward", "reversed"):
        traffic, seen = watched(16, 98, 3, order)
        groups = adaptive_groups(traffic)
        found += [at_positions(groups.record, each, seen, 16 * 98) for each in (groups.column, groups.row)]
    return bool((found[0] == found[2]).all() and (found[1] == found[3]).all())


def watched(rows: int, columns: int, requests: int, order: Any = "random") -> tuple[Traffic, Seen]:
    """The whole traffic of a plain service of blocks of 16 x 16."""
    rng = np.random.default_rng(0)
    deployment = Deployment.dealt(Sizes.of(16 * rows, 16 * columns, 16, 16), rng)
    return tap(simulate(deployment, requests, rng, order=order), deployment, Obfuscation(), 1.0, rng)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """The least of three times, and what came out."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        found = work()
        times.append(time.perf_counter() - started)
    return min(times), found


def compared(traffic: Traffic) -> int:
    """How many groups, rows and columns together, devices fall into that share a partner."""
    inbound, outbound, _ = device_legs(traffic)
    return sum(components(leg) for leg in (inbound, outbound))


def components(leg: Leg) -> int:
    devices, device = np.unique(leg.device, return_inverse=True)
    partners, partner = np.unique(leg.partner, return_inverse=True)
    met = sparse.csr_matrix((np.ones(len(device)), (device, partner)), shape=(len(devices), len(partners)))
    return int(connected_components(met @ met.T, directed=False)[0])


if __name__ == "__main__":
    sys.exit(main())
