"""What the page and the code rest on: the talk, and every paper that the code cites."""

from typing import NamedTuple


class Reference(NamedTuple):
    """A source, what it is used for here, and its address; empty where it has none."""

    source: str
    used: str
    address: str = ""


TALK = Reference(
    "Bohan Cui: Explore the Possibility of Fine-grained Non-encrypted Distributed MLaaS: an Adversary View. Talk for "
    "CyberSec & Privacy, Nanjing University, November 2024",
    "'the talk': the question, its first experiments and its claim of cost",
)
PAPERS = (
    Reference("Simonyan & Zisserman 2014", "the victims' architecture VGG16", "https://arxiv.org/abs/1409.1556"),
    Reference("Zhang et al., No Privacy Left Outside, S&P 2024", "training a hidden layer; its figures are shown",
              "https://arxiv.org/abs/2310.07152"),
    Reference("Orekondy et al. 2019, Knockoff Nets", "the attack surrogate", "https://arxiv.org/abs/1812.02766"),
    Reference("Game of Arrows, USENIX Security 2025", "the attack prior, and a reported figure"),
    Reference("I Dropped a Neural Net", "the fingerprint, and neuron alignment", "https://arxiv.org/abs/2602.19845"),
    Reference("Du et al. 2018", "balancedness of layers: evidence of the fingerprint",
              "https://arxiv.org/abs/1806.00900"),
    Reference("Mena et al. 2018", "beliefs over placements, and the attack relax", "https://arxiv.org/abs/1802.08665"),
    Reference("Sinkhorn & Knopp 1967", "scaling of beliefs", "https://doi.org/10.2140/pjm.1967.21.343"),
    Reference("Field 1987", "made-up images of a pirate that has none", "https://doi.org/10.1364/JOSAA.4.002379"),
    Reference("Neyshabur et al. 2015, Path-SGD", "networks that differ and compute the same: the defence rescale",
              "https://arxiv.org/abs/1506.02617"),
    Reference("SLIP 2024", "the defence withhold", "https://arxiv.org/abs/2407.10886"),
    Reference("Bridle et al. 1991", "the attack nothing",
              "https://papers.nips.cc/paper/1991/hash/a8abb4bb284b5b27aa7cb790dc20f80b-Abstract.html"),
    Reference("O'Donoghue & Candès 2015", "restarts of the attack regress", "https://arxiv.org/abs/1204.3982"),
    Reference("Schulman et al. 2017", "PPO: search by reinforcement learning", "https://arxiv.org/abs/1707.06347"),
    Reference("Hinton et al. 2015", "training towards the victim's answers", "https://arxiv.org/abs/1503.02531"),
    Reference("Kumar et al. 2022", "the attack finetune", "https://arxiv.org/abs/2202.10054"),
    Reference("Li et al. 2018, L2-SP", "weight decay towards a start", "https://arxiv.org/abs/1802.01483"),
    Reference("Shazeer & Stern 2018, Adafactor", "rates as shares of a tensor's size",
              "https://arxiv.org/abs/1804.04235"),
    Reference("Alain & Bengio 2016", "the attack probe", "https://arxiv.org/abs/1610.01644"),
    Reference("Liang et al. 2020, SHOT", "training without labels, in the told ceiling",
              "https://arxiv.org/abs/2002.08546"),
    Reference("Wilson 1927", "intervals of the controls", "https://doi.org/10.1080/01621459.1927.10502953"),
    Reference("Cawley & Talbot 2010", "why no victim judges an attack that was chosen on it",
              "https://jmlr.org/papers/v11/cawley10a.html"),
    Reference("Hubert & Arabie 1985", "the adjusted Rand index", "https://doi.org/10.1007/BF01908075"),
    Reference("Vinh et al. 2010", "information adjusted for chance", "https://jmlr.org/papers/v11/vinh10a.html"),
    Reference("Danezis 2003", "the statistical disclosure attack", "https://doi.org/10.1007/978-0-387-35691-4_40"),
    Reference("Danezis & Troncoso 2009", "its scores as likelihoods", "https://doi.org/10.1007/978-3-642-03168-7_5"),
    Reference("Vogelstein et al. 2015", "graph matching in the hijacks",
              "https://doi.org/10.1371/journal.pone.0121002"),
    Reference("Dhillon 2001", "clustering of devices and partners", "https://doi.org/10.1145/502512.502550"),
    Reference("Chaum 1981", "mixes: the obfuscation by relays", "https://doi.org/10.1145/358549.358563"),
    Reference("Serjantov et al. 2002", "threshold mixes", "https://doi.org/10.1007/3-540-36415-3_3"),
    Reference("Matsumoto & Nishimura 1998", "the generator whose seeds the attack seed_search tries",
              "https://doi.org/10.1145/272991.272995"),
    Reference("Juarez et al. 2016", "how overheads are given", "https://arxiv.org/abs/1512.00524"),
)  # fmt: skip
