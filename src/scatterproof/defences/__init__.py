"""What may be done to a layer before it is scattered: one file a defence, by its own name. Imports no torch."""

from scatterproof.config.settings.defences import DefenceSettings
from scatterproof.defences.base import Defence
from scatterproof.defences.home import Home
from scatterproof.defences.none import Undefended
from scatterproof.defences.rescale import Rescale
from scatterproof.defences.withhold import Withhold

DEFENCES: dict[str, type[Defence]] = {kind.name: kind for kind in (Undefended, Rescale, Home, Withhold)}


def make_defence(settings: DefenceSettings) -> Defence:
    """The defence with these settings."""
    return DEFENCES[settings.name](settings)
