"""Which traffic a study taps, and what hides it: the config, and the cells that it makes. Imports no torch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from scatterproof.config.base import Count, Share, Strict
from scatterproof.config.threat import WITH_STREAM, ThreatModel, parts_of

TopologyName = Literal["sources", "coordinator"]
Order = Literal["random", "forward", "reversed"]
HijackName = Literal["naive", "adaptive", "spectral", "learned", "matching"]
HIJACK = "hijack-"  # before a hijack's name, among the attacks


class Obfuscation(Strict):
    """What the service does to hide its layout; the defaults are nothing."""

    padding: int = Field(0, ge=0, description="every message is filled up to a multiple of so many bytes; 0: none")
    cover: int = Field(
        0, ge=0, description="cover traffic: each device gets slices from, and sends sums to, so many more than needed"
    )
    fixed: bool = Field(False, description="cover traffic is drawn once a layout, not anew for each request")
    relays: int = Field(0, ge=0, description="messages of either direction go through one of so many mixes")
    batch: int = Field(1, ge=1, description="a mix passes its messages on, in random order, when it has so many")
    delay: float = Field(0.0, ge=0, description="mean of an exponential delay before each message is sent, in ms")
    per_device: int = Field(1, ge=1, description="blocks on each device")
    session: int = Field(0, ge=0, description="after so many requests all blocks are dealt to devices anew; 0: never")

    @model_validator(mode="before")
    @classmethod
    def _older_names(cls, keys: Any) -> Any:
        if not isinstance(keys, Mapping) or "decoys" not in keys:
            return keys
        if "cover" in keys:
            raise ValueError("decoys: the older name of cover, which is given too; expected one of them")
        return {"cover" if key == "decoys" else key: value for key, value in keys.items()}

    @model_validator(mode="after")
    def _parts_go_together(self) -> "Obfuscation":
        if self.per_device > 1 and (self.relays or self.cover):
            raise ValueError("per_device goes with neither relays nor cover, expected 1 with those")
        if self.relays and self.cover:
            raise ValueError("relays don't go with cover, expected one of them")
        if self.batch > 1 and not self.relays:
            raise ValueError(f"batch {self.batch} needs relays, expected at least 1")
        return self

    @property
    def name(self) -> str:
        """Which means are used, such as `relays+fresh`, or `none`."""
        used = {
            "padding": self.padding,
            "cover": self.cover,
            "relays": self.relays,
            "delay": self.delay,
            "packing": self.per_device > 1,
            "fresh": self.session,
        }
        return "+".join(name for name, on in used.items() if on) or "none"

    @property
    def params(self) -> str:
        """What differs from nothing, such as `batch=64 relays=4`."""
        changed = self.model_dump(exclude_defaults=True)
        return " ".join(f"{key}={int(value) if isinstance(value, bool) else value}" for key, value in changed.items())


class StreamGrid(Strict):
    """Obfuscations x orders of sending x shares seen x shares held x requests x hijacks."""

    victims: list[str] = Field([], description="only these of the stream's victims; empty: all of them")
    topologies: list[TopologyName] = Field(["sources"], min_length=1, description="who sends slices and adds sums")
    orders: list[Order] = Field(["random"], min_length=1, description="order in which messages are sent")
    obfuscations: list[Obfuscation] = Field(
        [Obfuscation()], min_length=1, description="what hides the layout; an empty one hides nothing"
    )
    observed: list[Share] = Field(
        [1.0], min_length=1, description="shares of the links that the pirate taps: who sends how much to whom when"
    )
    held: list[Share] = Field(
        [0.0],
        min_length=1,
        description="shares of the devices that are the pirate's: it holds their blocks, reads what they are sent, and "
        "sees their links besides those tapped; 0: metadata alone, and no accuracy",
    )
    labelled: list[Annotated[int, Field(ge=0)]] = Field(
        [0], min_length=1, description="devices whose blocks' places have leaked otherwise"
    )
    requests: list[Count] = Field([1], min_length=1, description="requests watched")
    hijacks: list[HijackName] = Field(
        ["naive", "adaptive"],
        min_length=1,
        description="`naive` expects nothing to be hidden; `adaptive` knows what is done to hide it; `spectral` groups "
        "by co-clustering, `learned` by a classifier trained on layouts of its own; `matching` is adaptive and labels "
        "columns by graph matching",
    )


class StreamConfig(Strict):
    """P3 and S3: the layer is served by devices, and the pirate watches their traffic."""

    grids: list[StreamGrid] = Field([], description="what is run; empty: no stream")
    victims: list[str] = Field(["victim"], min_length=1, description="victims served: `victim`, or further ones")
    victim_seeds: int | None = Field(None, ge=1, description="how many of each victim's seeds; default all")
    layouts: int = Field(5, ge=1, description="layouts and traffics drawn for each victim and cell")
    images: int = Field(100, ge=0, description="images that a pirate who holds blocks has")
    control_shuffles: int = Field(
        20,
        ge=10,
        description="layers and layouts drawn anew, on which a hijack by a pirate who holds blocks must find nothing",
    )

    @model_validator(mode="after")
    def _cells_can_be_run(self) -> "StreamConfig":
        if len(set(self.victims)) != len(self.victims):
            raise ValueError(f"stream.victims {self.victims}: a name stands twice")
        for grid in self.grids:
            strangers = set(grid.victims) - set(self.victims)
            if strangers:
                raise ValueError(
                    f"stream.grids.victims {sorted(strangers)}: expected some of stream.victims {self.victims}"
                )
            hidden = [one for one in grid.obfuscations if one.relays or one.cover]
            if "coordinator" in grid.topologies and hidden:
                raise ValueError(
                    f"stream.grids: topology coordinator with {hidden[0].name}, expected neither relays nor cover"
                )
            if 0 in grid.observed and 0 in grid.held:
                raise ValueError("stream.grids: observed 0 with held 0 sees nothing, expected one of them above 0")
            fresh = any(one.session for one in grid.obfuscations)
            if fresh and (max(grid.held) > 0 or max(grid.labelled) > 0):
                raise ValueError("stream.grids: session goes with held 0 and labelled 0 only, expected no other")
            for one in grid.obfuscations:
                simple = one.per_device == 1 and grid.topologies == ["sources"]
                if not simple and {"spectral", "learned"} & set(grid.hijacks):
                    raise ValueError(
                        "stream.grids: spectral and learned need topology sources and one block per device, "
                        f"got {' and '.join(grid.topologies)}, per_device {one.per_device}"
                    )
        return self

    @property
    def images_needed(self) -> int:
        """Images that the pirate must hold."""
        return self.images if any(max(grid.held) > 0 for grid in self.grids) else 0


@dataclass(frozen=True)
class StreamCell:
    """One tapped service and one hijack; `layout` numbers the draw."""

    topology: TopologyName
    order: Order
    obfuscation: Obfuscation
    observed: float
    held: float
    labelled: int
    requests: int
    hijack: HijackName
    layout: int

    @property
    def service(self) -> str:
        """What is served how, such as `coordinator-forward` or `relays=2-batch=64`; empty for the plain service."""
        parts = [name for name in (self.topology, self.order) if name not in ("sources", "random")]
        return "-".join([*parts, *self.obfuscation.params.split()])

    def threat_name(self, threat: ThreatModel) -> str:
        """The name of a threat that grants this traffic besides, such as `layer-1-100-none+stream-1-10+relays=2`."""
        leaked = f"-{self.labelled}labelled" if self.labelled else ""
        seen = f"{threat.name}{WITH_STREAM}-{self.observed:g}-{self.requests}{leaked}"
        return f"{seen}+{self.service}" if self.service else seen


def service_of(threat: str) -> str:
    """The service in a threat's name; empty for the plain one, and for a threat without traffic."""
    return parts_of(threat).stream.removeprefix("+").partition("+")[2]


def hijack_name(cell: StreamCell) -> str:
    """A hijack's name among the attacks."""
    return HIJACK + cell.hijack


def held_services(config: StreamConfig, victim: str) -> list[StreamCell]:
    """Of each hijack and service in which blocks are held, the cell of most blocks and requests: for controls."""
    by_service: dict[tuple[str, str], StreamCell] = {}
    for cell in stream_cells(config, victim):
        known = by_service.get((cell.hijack, cell.service))
        if cell.held and (known is None or (cell.held, cell.requests) > (known.held, known.requests)):
            by_service[cell.hijack, cell.service] = cell
    return [replace(cell, labelled=0, layout=0) for cell in by_service.values()]


def stream_cells(config: StreamConfig, victim: str) -> list[StreamCell]:
    """Every cell of one victim, each once, in the grids' order."""
    by_key: dict[tuple[object, ...], StreamCell] = {}
    for grid in config.grids:
        if grid.victims and victim not in grid.victims:
            continue
        axes = product(
            *(grid.topologies, grid.orders, grid.obfuscations, grid.observed, grid.held, grid.labelled),
            *(grid.requests, grid.hijacks, range(config.layouts)),
        )
        for values in axes:
            cell = StreamCell(*values)
            key = (*values[:2], cell.obfuscation.model_dump_json(), *values[3:])
            by_key.setdefault(key, cell)
    return list(by_key.values())


def stream_threats(config: StreamConfig) -> dict[float, ThreatModel]:
    """What a pirate is granted that holds some of the devices, by the share of them."""
    shares = sorted({held for grid in config.grids for held in grid.held if held})
    return {held: ThreatModel(share=held, images=config.images) for held in shares}


def cells_json(cells: Sequence[StreamCell]) -> str:
    """Cells as text, for a rule's parameter."""
    return json.dumps([vars(cell) | {"obfuscation": cell.obfuscation.model_dump()} for cell in cells])


def cells_of_json(text: str) -> list[StreamCell]:
    """The inverse of `cells_json`."""
    return [StreamCell(**each | {"obfuscation": Obfuscation(**each["obfuscation"])}) for each in json.loads(text)]
