"""The attacks: an attack is in the registry by being imported here."""

from scatterproof.attacks.annealing import Annealing
from scatterproof.attacks.base import Attack
from scatterproof.attacks.blackbox import Surrogate
from scatterproof.attacks.borrow import Borrow
from scatterproof.attacks.direct import DirectAttack
from scatterproof.attacks.fingerprint import Fingerprint
from scatterproof.attacks.genetic import Genetic
from scatterproof.attacks.hill_climbing import HillClimbing
from scatterproof.attacks.nothing import Nothing
from scatterproof.attacks.prior import Prior
from scatterproof.attacks.random_search import RandomSearch
from scatterproof.attacks.refine import Refine
from scatterproof.attacks.reinforce import Reinforce
from scatterproof.attacks.relax import Relax
from scatterproof.attacks.retrain import Blocks, Finetune, Layer, Probe

ATTACKS: dict[str, type[Attack]] = {
    attack.name: attack for attack in (RandomSearch, HillClimbing, Annealing, Genetic, Reinforce)
}
DIRECT: dict[str, type[DirectAttack]] = {
    attack.name: attack
    for attack in (Fingerprint, Prior, Relax, Refine, Blocks, Nothing, Borrow, Probe, Layer, Finetune, Surrogate)
}
