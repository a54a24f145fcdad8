"""A threat in words, from its name: how the layer is defended, what the pirate has and what it sees."""

from typing import Any

from scatterproof.config.settings.defences import defence_of_label
from scatterproof.config.threat import WITH_STREAM, parts_of
from scatterproof.report.input_words import inputs

KNOWN = {"none": "unlabelled {}", "labels": "labelled {}", "logits": "{} with the victim's logits"}
SEEN = {"inputs": "the inputs of the layer", "both": "the layer's inputs and the next layer's"}


def defence_words(threat: str) -> str:
    """`rescale (factor=10)`; empty where the threat's layer is not defended."""
    label = parts_of(threat).defence
    if not label:
        return ""
    defence = defence_of_label(label)
    return defence_text(defence.name, defence.words)


def defence_text(name: str, parameters: str) -> str:
    """A defence with its parameters as tables have them."""
    return f"{name} ({parameters})" if parameters else name


def defended(threat: str) -> str:
    """`, defended by rescale (factor=10)`; empty where it is not."""
    words = defence_words(threat)
    return f", defended by {words}" if words else ""


def known_of(known: str) -> str:
    """`labelled images`: the inputs, and what is known of them."""
    return KNOWN[known].format(inputs())


def granted(images: Any, knows: Any) -> str:
    """`100 unlabelled images`, or `no images`; and the base model, where `knows` says so."""
    known, _, base = str(knows).partition("-")
    text = f"{int(images):,} {known_of(known)}" if int(images) else f"no {inputs()}"
    return f"{text} and a public base model" if base else text


def sees(threat: str) -> str:
    """`sees the inputs of the layer for 25 requests`; empty where the pirate sees no activations."""
    activations, _, requests = parts_of(threat).activations.partition("-")
    return f"sees {SEEN[activations]} for {_requests(requests)}" if activations else ""


def taps(threat: str) -> str:
    """The traffic that a hijack's threat grants, such as `traffic of its own devices and of 25 % of the links,
    10 requests, coordinator`; empty for any other."""
    stream = parts_of(threat).stream.removeprefix(f"{WITH_STREAM}-")
    if not stream:
        return ""
    seen, _, service = stream.partition("+")
    observed, requests, *leaked = seen.split("-")
    links = f" and of {100 * float(observed):g} % of the links" if float(observed) else ""
    places = [f"{leaked[0].removesuffix('labelled')} places leaked"] if leaked else []
    hidden = [service.replace("-", " ")] if service else []
    return ", ".join([f"traffic of its own devices{links}", _requests(requests), *places, *hidden])


def _requests(count: str) -> str:
    return f"{count} request{'' if count == '1' else 's'}"


def grants(images: Any, knows: Any, threat: str) -> str:
    """What the pirate has besides blocks: images, and what it sees of requests and of the traffic."""
    return "; ".join(filter(None, (granted(images, knows), sees(threat), taps(threat))))


def besides(threat: str) -> str:
    """What it has besides blocks and images, after a comma; empty where that is nothing."""
    seen, traffic = sees(threat), taps(threat)
    return f"{f', the pirate {seen}' if seen else ''}{f', with {traffic}' if traffic else ''}"
