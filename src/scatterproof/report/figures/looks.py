"""How each attack looks, in every figure alike."""

from scatterproof.config.attacks import AttackSettings
from scatterproof.report.figures.base import COLOURS, MARKERS

_NUMBERS = {name: number for number, name in enumerate(AttackSettings.model_fields)}
DASHES = ("-", "--", ":", "-.")


def look_of(attack: str) -> tuple[str, str]:
    """Colour and marker of an attack; no two of the study's attacks have both alike."""
    number = _NUMBERS.get(attack, len(_NUMBERS))
    return COLOURS[number % len(COLOURS)], MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
