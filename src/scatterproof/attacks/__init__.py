"""The attacks: an attack is in the registry by being imported here."""

from scatterproof.attacks.base import DirectAttack
from scatterproof.attacks.borrow import Borrow
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.nothing import Nothing
from scatterproof.attacks.prior import Prior
from scatterproof.attacks.refine import Refine
from scatterproof.attacks.relax import Relax
from scatterproof.attacks.search.annealing import Annealing
from scatterproof.attacks.search.base import Attack
from scatterproof.attacks.search.genetic import Genetic
from scatterproof.attacks.search.hill_climbing import HillClimbing
from scatterproof.attacks.search.random_search import RandomSearch
from scatterproof.attacks.search.reinforce import Reinforce
from scatterproof.attacks.training.retrain import Blocks, Finetune, Layer, Probe
from scatterproof.attacks.training.surrogate import Surrogate

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack for attack in (RandomSearch, HillClimbing, Annealing, Genetic, Reinforce)
}
DIRECT: dict[str, type[DirectAttack]] = {
    attack.name: attack
    for attack in (Fingerprint, Prior, Relax, Refine, Blocks, Nothing, Borrow, Probe, Layer, Finetune, Surrogate)
}
