"""The attacks: an attack is in the registry by standing in `ATTACKS`."""

from typing import Any

from scatterproof.attacks.base import Attack
from scatterproof.attacks.borrow import Borrow
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.nothing import Nothing
from scatterproof.attacks.prior import Prior
from scatterproof.attacks.refine import Refine
from scatterproof.attacks.regress.attack import Regress
from scatterproof.attacks.relax import Relax
from scatterproof.attacks.search.annealing import Annealing
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.attacks.search.hill_climbing import HillClimbing
from scatterproof.attacks.search.random_search import RandomSearch
from scatterproof.attacks.search.reinforce import Reinforce
from scatterproof.attacks.seed_search import SeedSearch
from scatterproof.attacks.training.finetune import Finetune
from scatterproof.attacks.training.from_blocks import Blocks
from scatterproof.attacks.training.layer import Layer
from scatterproof.attacks.training.probe import Probe
from scatterproof.attacks.training.surrogate import Surrogate

SEARCHES = (RandomSearch, HillClimbing, Annealing, Genetic, Reinforce)
ATTACKS: dict[str, type[Attack[Any]]] = {
    attack.name: attack
    for attack in (
        *(Fingerprint, Prior, SeedSearch, Relax, Refine, Blocks),
        *(Nothing, Borrow, Regress, Probe, Layer, Finetune, Surrogate),
        *SEARCHES,
    )
}
