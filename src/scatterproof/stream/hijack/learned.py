"""Two other ways to group devices: spectral co-clustering, and a classifier trained on layouts of the pirate's own.

Both need a device to have one block, and one node for each column and row. The classifier is the kind of model that
the talk tried: here it sees, for a device and a partner, how often they met and how well their messages fit.
"""

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import SpectralCoclustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from scatterproof.stream.hijack.grouping import Groups, Scores, by_device, disclosed, lag_scores, mix_scores
from scatterproof.stream.hijack.roles import Leg, Mixes, device_legs
from scatterproof.stream.hijack.tap import Traffic, tap
from scatterproof.stream.network.deployment import Deployment
from scatterproof.stream.network.simulate import simulate

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

OWN_LAYOUTS = 2  # that the classifier is trained on


def spectral_groups(traffic: Traffic) -> Groups:
    """Devices and partners clustered together by how often they met (Dhillon 2001,
    https://doi.org/10.1145/502512.502550)."""
    inbound, outbound, mixes = device_legs(traffic, traffic.hiding.relays)
    sizes = traffic.sizes
    columns = _clusters(_meetings(inbound, mixes.into if mixes else None, traffic), sizes.columns)
    rows = _clusters(_meetings(outbound, mixes.out if mixes else None, traffic), sizes.rows)
    return by_device(traffic, inbound, outbound, columns, rows)


def _clusters(scores: Scores, count: int) -> tuple[Ints, Ints]:
    """Devices and their clusters; those that met nobody more than others did are clustered all the same."""
    value = scores.value - scores.value.min() + 1e-6
    if min(value.shape) <= count // 2 or min(value.shape) < 2:  # too few partners seen for so many clusters
        return disclosed(scores)
    model = SpectralCoclustering(min(count, min(value.shape)), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(value)
    return scores.devices, model.row_labels_.astype(np.int64)


def _meetings(leg: Leg, beyond: Leg | None, traffic: Traffic) -> Scores:
    """How often devices and partners met: in messages, or through mixes by likelihood, each device's best at 0."""
    if beyond is not None:
        scores = mix_scores(leg, beyond, traffic.hiding.batch)
        value = np.exp(np.clip(scores.value - scores.value.max(1, keepdims=True), -50, 0))
        return Scores(scores.devices, scores.partners, value)
    devices, device = np.unique(leg.device, return_inverse=True)
    partners, partner = np.unique(leg.partner, return_inverse=True)
    count = np.bincount(device * len(partners) + partner, minlength=len(devices) * len(partners))
    return Scores(devices, partners, count.reshape(len(devices), len(partners)).astype(np.float64))


def learned_groups(traffic: Traffic) -> Groups:
    """Each device with the partner that the classifier believes in most."""
    columns, rows = _train(traffic)
    inbound, outbound, mixes = device_legs(traffic, traffic.hiding.relays)
    matches = []
    for forth, model in ((True, columns), (False, rows)):
        devices, partners, features = _features(traffic, inbound, outbound, mixes, forth)
        believed = model.predict_proba(features.reshape(-1, features.shape[-1]))[:, 1]
        matches.append(disclosed(Scores(devices, partners, believed.reshape(len(devices), len(partners)))))
    return by_device(traffic, inbound, outbound, matches[0], matches[1])


def _train(traffic: Traffic) -> list[LogisticRegression]:
    """Classifiers for columns and rows, from layouts dealt and served by the pirate itself in the same way."""
    requests = int(traffic.flows.request.max(initial=0)) + 1
    gathered: list[list[tuple[Floats, NDArray[np.bool_]]]] = [[], []]
    for number in range(OWN_LAYOUTS):
        rng = np.random.default_rng((7, number))
        deployment = Deployment.dealt(traffic.sizes, rng)
        own, _ = tap(simulate(deployment, requests, rng, traffic.hiding), deployment, traffic.hiding, 1.0, rng)
        legs = device_legs(own, traffic.hiding.relays)
        for which, hubs in enumerate((deployment.source_at, deployment.reducer_at)):
            devices, partners, features = _features(own, *legs, which == 0)
            truth = _truth(deployment, devices, hubs, which == 0)[:, None] == partners[None, :]
            gathered[which].append((features.reshape(-1, features.shape[-1]), truth.ravel()))
    models = []
    for parts in gathered:
        model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=200))
        models.append(model.fit(np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])))
    return models


def _truth(deployment: Deployment, devices: Ints, hubs: Ints, forth: bool) -> Ints:
    """The address of the source or reducer that each of these devices belongs to."""
    number = {int(address): index for index, address in enumerate(deployment.device_at)}
    position = np.empty(len(deployment.device_at), np.int64)
    position[deployment.holders[0]] = np.arange(deployment.sizes.count)
    place = position[[number[int(address)] for address in devices]]
    columns = deployment.sizes.columns
    return hubs[place % columns if forth else place // columns]


def _features(
    traffic: Traffic, inbound: Leg, outbound: Leg, mixes: Mixes | None, forth: bool
) -> tuple[Ints, Ints, Floats]:
    """Devices, partners, and of each pair [devices, partners, 3]: share of requests in which they met; score of their
    messages against the device's mean and against its best."""
    leg = inbound if forth else outbound
    requests = int(traffic.flows.request.max(initial=0)) + 1
    if mixes is not None:
        scores = mix_scores(leg, mixes.into if forth else mixes.out, traffic.hiding.batch)
        met = np.zeros(scores.value.shape)
    else:
        scores = _meetings(leg, None, traffic)
        met = scores.value / requests
        if forth and traffic.hiding.cover:
            device, partner, lag = lag_scores(traffic, inbound, outbound)
            value = np.full(scores.value.shape, float(lag.min(initial=0.0)))
            value[np.searchsorted(scores.devices, device), np.searchsorted(scores.partners, partner)] = lag
            scores = Scores(scores.devices, scores.partners, value)
    mean, best = scores.value.mean(1, keepdims=True), scores.value.max(1, keepdims=True)
    features = np.stack([met, (scores.value - mean) / requests, (scores.value - best) / requests], axis=2)
    return scores.devices, scores.partners, features
