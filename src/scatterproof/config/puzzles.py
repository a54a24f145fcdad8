"""Which puzzles are cut from a victim, and which of them one job cuts. Imports no torch: Snakemake parses this.

A part is what one job cuts of one victim's seed and what the jobs of one stage read. Each stage has parts of its own:
one more threat or block size in a stage leaves the others' puzzles, and what was reached on them, as they are. A
puzzle that stands in two parts is the same in both: no draw depends on the part.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scatterproof.config.attacks import attack_jobs, attacks_on
from scatterproof.config.search import plateau_threat, threats
from scatterproof.config.settings.defences import DefenceSettings
from scatterproof.config.stream import stream_threats
from scatterproof.config.study import Study
from scatterproof.config.threat import ThreatModel, draw_of, drawn, without_draw

DRAWS = 2  # the recipe of `make_puzzle`'s draws: another one makes all that it drew anew, in older folders too


@dataclass(frozen=True)
class Cut:
    """What makes a puzzle of a victim: the side of its blocks, what the pirate is granted, and which draw it is."""

    block_size: int
    threat: ThreatModel
    draw: int = 0

    @property
    def file(self) -> str:
        """Where it lies in the folder of a part, and its answer in the other folder."""
        return file_of(self.block_size, drawn(self.threat.name, self.draw))

    @property
    def protected(self) -> str:
        """Where the layer lies as its defence has left it."""
        return protected_file(self.block_size, self.draw)


def file_of(block_size: int, threat: str) -> str:
    """The same, by the name of the threat's draw."""
    return f"b{block_size}/{threat}.safetensors"


def protected_file(block_size: int, draw: int) -> str:
    """Where a layer lies as its defence has left it, in the defence's folder."""
    return f"{drawn(f'b{block_size}', draw)}.safetensors"


def paths(folders: Sequence[str], files: Sequence[str]) -> list[Path]:
    """The paths of one file in each folder."""
    return [Path(folder) / file for folder, file in zip(folders, files, strict=True)]


def grid_threat(study: Study) -> ThreatModel:
    """What the puzzles of P1 and S1 grant: every block, and the images that corrections are estimated on."""
    return ThreatModel(scatter=study.scatter, images=study.prune.images_needed)


def puzzle_parts(study: Study) -> dict[str, list[Cut]]:
    """The puzzles of every part, by its name; a part of one threat of the searches, the plateau or the traffic has the
    threat's. Which victims' a study needs, the rules that read them ask for."""
    main = study.block_sizes[0]
    parts = {"grid": [Cut(size, grid_threat(study)) for size in study.block_sizes]}
    alone = list(threats(study.search, study.scatter).values())
    alone += [plateau_threat(study.plateau, study.scatter)] if study.plateau.correct else []
    alone += stream_threats(study.stream).values()
    parts |= {threat.name: [Cut(main, threat)] for threat in alone}
    attacked = attacks_on(study.attacks, study.scatter)
    for number, names in enumerate(attack_jobs(study.attacks, study.scatter)):
        parts[f"attacks.{number}"] = [
            Cut(study.attacked_size, attacked[without_draw(name)][0], draw_of(name)) for name in names
        ]
    if study.fineness.block_sizes:
        parts["fineness"] = [Cut(size, study.fineness.threat) for size in study.fineness.block_sizes]
    return parts


def protected_layers(study: Study) -> dict[str, tuple[DefenceSettings, list[tuple[int, int]]]]:
    """The defences of a study by their labels, each with the block sizes and draws that its layers are cut into."""
    layers: dict[str, tuple[DefenceSettings, list[tuple[int, int]]]] = {}
    for cut in (cut for cuts in puzzle_parts(study).values() for cut in cuts if cut.threat.defended):
        cuts = layers.setdefault(cut.threat.defence.label, (cut.threat.defence, []))[1]
        each = cut.block_size, cut.draw
        cuts += [each] if each not in cuts else []
    return layers


def defence_labels(cuts: Sequence[Cut]) -> list[str]:
    """The labels of the defences that these puzzles need, each once."""
    return list(dict.fromkeys(cut.threat.defence.label for cut in cuts if cut.threat.defended))


def cuts_json(cuts: Sequence[Cut]) -> str:
    """Puzzles to cut as text, for a rule's parameter."""
    return json.dumps([{"block_size": cut.block_size, "threat": cut.threat.model_dump()} | _draw(cut) for cut in cuts])


def cuts_of_json(text: str) -> list[Cut]:
    """The inverse of `cuts_json`."""
    return [
        Cut(each["block_size"], ThreatModel.model_validate(each["threat"]), each.get("draw", 0))
        for each in json.loads(text)
    ]


def _draw(cut: Cut) -> dict[str, int]:
    """No word of the first draw: its puzzles stay where more are asked for."""
    return {"draw": cut.draw} if cut.draw else {}
