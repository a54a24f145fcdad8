"""F: one victim's layer cut into blocks of several sizes, each size a puzzle, and what was recovered of each.

The talk's footnote 10 guesses a threshold in how fine the blocks may be: fine ones hold little evidence each, and the
more of them there are, the more bits a pirate must find.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from scatterproof.blocks import BlockGrid, Layout
from scatterproof.config.fineness import ATTACK, LEAST_BLOCKS
from scatterproof.config.puzzles import Cut
from scatterproof.config.victim import VictimConfig
from scatterproof.theory import search_space_bits
from scatterproof.victims.models import dense_layers, find_layer

if TYPE_CHECKING:  # the jobs that cut puzzles need no attack: a fifth of the time that they take
    from scatterproof.attacks.base import Snapshot
    from scatterproof.judging.judge import Judge


def sizes_of(model: nn.Module, config: VictimConfig, sizes: Sequence[int]) -> list[int]:
    """Of these block sizes those that make enough blocks of the victim's layer, ascending."""
    outputs, inputs = dense_layers(model)[find_layer(model, config.layer)].weight.shape
    most = min(outputs, inputs)
    return [s for s in sorted(sizes) if s <= most and BlockGrid(outputs, inputs, s, s).count >= LEAST_BLOCKS]


def fine_enough(model: nn.Module, config: VictimConfig, cuts: Sequence[Cut]) -> list[Cut]:
    """The puzzles of those sizes."""
    sizes = sizes_of(model, config, [cut.block_size for cut in cuts])
    return [cut for cut in cuts if cut.block_size in sizes]


def in_folder(folder: Path) -> dict[int, Path]:
    """The puzzles or answers of a part with one a block size, by size, ascending."""
    by_size = {int(path.parent.name.removeprefix("b")): path for path in folder.glob("b*/*.safetensors")}
    return dict(sorted(by_size.items()))


def placement_bits(layout: Layout) -> float:
    """log2 of the placements of the whole blocks, which `residual_bits` is counted over as well."""
    return search_space_bits(int(layout.ambiguous().sum()))


def row(judge: "Judge", steps: "Sequence[Snapshot]") -> dict[str, Any]:
    """What an attack ended with on one puzzle."""
    (scored, _) = judge.rows({ATTACK: steps[-1:]})
    layout = judge.puzzle.layout
    kept = [
        *("accuracy", "relative_accuracy", "known_places_accuracy"),
        *("position_accuracy", "row_accuracy", "column_accuracy", "residual_bits", "minutes"),
    ]
    return {
        "layer": "+".join(layout.grids),
        "block_size": layout.block_shape[0],
        "keep": judge.puzzle.threat.share,
        "width": judge.puzzle.config.width,
        "blocks": layout.positions,
        "whole_blocks": int(layout.ambiguous().sum()),
        "attack": ATTACK,
        "threat": judge.puzzle.threat.name,
        "images": judge.puzzle.threat.images,
        **{name: scored[name] for name in kept},
        "bits_whole": placement_bits(layout),
    }
