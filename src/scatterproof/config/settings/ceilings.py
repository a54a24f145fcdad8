"""The forms of the told ceiling, and what each needs of a threat. Imports no torch."""

from collections.abc import Iterable
from typing import Literal, get_args

from scatterproof.config.settings.training import TRAINED

Form = Literal["told", "told+train", "told+core", "told+free"]
FORMS: tuple[Form, ...] = get_args(Form)
AS_IS, TRAINED_ON, CORE, LABEL_FREE = FORMS
ROLE: Literal["told"] = "told"
CONTROL = "told-planted"
CEILINGS = ("ceiling", ROLE)  # the roles of rows that are no attack's
LEAST_IMAGES = 2


def granted_forms(forms: Iterable[str], images: int, knows: str) -> list[Form]:
    """Of these forms those that so many images, and what is known of them, allow, in the order of `FORMS`.

    The blocks as they are need none. knows: as the tables have it, `labels-base` with a public base model.
    """
    taught = images >= TRAINED.images and knows.removesuffix("-base") in TRAINED.knows
    runs = {AS_IS: True, TRAINED_ON: taught, CORE: taught, LABEL_FREE: images >= LEAST_IMAGES}
    wanted = set(forms)
    return [form for form in FORMS if form in wanted and runs[form]]
