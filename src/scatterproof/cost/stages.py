"""Which stage a rule belongs to, and what its wildcards tell, for attempts that left no record of their own."""

from typing import NamedTuple

STAGES = [
    "data",
    "victim",
    "defences",
    "blocks",
    "prune",
    "shuffle",
    "theory",
    "search",
    "plateau",
    "attacks",
    "ceilings",
    "fineness",
    "stream",
    "retraining",
    "report",
]
UNKNOWN, NONE = "(unknown)", "(none)"


class Rule(NamedTuple):
    """A rule's stage; whether its first wildcard is the victim; whether it runs attacks."""

    stage: str
    of_victim: bool = False
    attacks: bool = False


RULES = {
    **dict.fromkeys(("prepare_dataset", "check_study"), Rule("data")),
    "train_victim": Rule("victim", of_victim=True),
    "tabulate_victims": Rule("report"),
    "protect_layer": Rule("defences", of_victim=True),
    "cut_puzzle": Rule("blocks", of_victim=True),
    "measure_victims": Rule("blocks"),
    # Of versions before cut_puzzle: a study that goes on has attempts of them
    **dict.fromkeys(("partition_blocks", "grant_puzzle", "grant_puzzles"), Rule("blocks", of_victim=True)),
    "grant_fineness": Rule("fineness", of_victim=True),
    "evaluate_prune": Rule("prune", of_victim=True),
    "evaluate_shuffle": Rule("shuffle", of_victim=True),
    "compute_theory": Rule("theory"),
    "search_placements": Rule("search", of_victim=True, attacks=True),
    "score_search": Rule("search", of_victim=True),
    "tabulate_search": Rule("report"),
    "measure_plateau": Rule("plateau", of_victim=True),
    "attack_puzzle": Rule("attacks", of_victim=True, attacks=True),
    "score_attack": Rule("attacks", of_victim=True),
    "control_attacks": Rule("attacks", of_victim=True, attacks=True),
    "measure_ceilings": Rule("ceilings", of_victim=True, attacks=True),
    **dict.fromkeys(("tabulate_attacks", "tabulate_verdicts", "tabulate_defences"), Rule("report")),
    "attack_fineness": Rule("fineness", of_victim=True, attacks=True),
    "score_fineness": Rule("fineness"),
    "tap_stream": Rule("stream", of_victim=True),
    "hijack_stream": Rule("stream", of_victim=True, attacks=True),
    "control_stream": Rule("stream", of_victim=True, attacks=True),
    "score_stream": Rule("stream", of_victim=True),
    "tabulate_stream": Rule("report"),
    "train_recipes": Rule("retraining", of_victim=True),
    "tabulate_retraining": Rule("retraining"),
    **dict.fromkeys(("tabulate_prune", "tabulate_shuffle", "tabulate_plateau"), Rule("report")),
    **dict.fromkeys(("tabulate_thresholds", "draw_figures", "tabulate_costs", "build_report"), Rule("report")),
}


def stage_of(rule: str) -> str:
    """The stage of a rule, or of a group's first one that is known (`a+b`)."""
    return next((RULES[name].stage for name in rule.split("+") if name in RULES), UNKNOWN)


def victim_of(rule: str, job: str) -> str:
    """The victim of a job, which is named by its wildcards with points between."""
    if rule not in RULES:
        return UNKNOWN
    return job.partition(".")[0] if RULES[rule].of_victim else NONE


def attack_of(rule: str) -> str:
    """What is known of a job's attacks without its record."""
    return UNKNOWN if rule not in RULES or RULES[rule].attacks else NONE
