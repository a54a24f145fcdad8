"""The words of the page, each defined once."""

GLOSSARY = (
    ("victim", "The model that is scattered and attacked. A study trains several from different random seeds."),
    ("pirate", "The adversary. It wants a copy of the victim for less than training one costs."),
    ("block", "A rectangle cut from a layer's weight matrix. Each device gets blocks, unencrypted."),
    ("position", "A block's row and column in the matrix that it was cut from."),
    ("placement", "An assignment of blocks to positions. The true one is secret."),
    ("threat", "What a pirate is granted: which blocks, which {inputs}, and what it sees of requests. The layer's "
     "defence is part of it."),
    ("attack", "A method by which a pirate makes a network of what it is granted. It never sees the true placement."),
    ("fingerprint", "The attack that reads a block's position from its weights. It needs no labels and scores no "
     "placement."),
    ("search", "An attack that tries placements and keeps those that score well on the pirate's {inputs}."),
    ("clue", "A placement of a random population in which a block lies at its true position."),
    ("control", "A test of an attack on a puzzle with a known outcome. Where something was planted it must be found; "
     "where nothing is to be found it must find nothing. An attack that fails a control is never the best."),
    ("ends with", "The accuracy of the pirate's best attack, with the blocks or without. It is chosen for each victim "
     "on the other victims, so it may lie slightly below both. It is red from 95 % of the victim's accuracy on."),
    ("gain", "The accuracy of the best attack with the blocks, less that of the best without them."),
    ("headroom", "The victim's accuracy less that of the best attack without the blocks: what there is to protect."),
    ("margin", "The gain that counts: a fifth of the headroom, but at least one and at most two points."),
    ("told ceiling", "What a pirate makes of the blocks once it is told every position and key. It has up to four "
     "forms: the blocks as they are (told), trained on (told+train), with a missing core fitted (told+core), and "
     "trained without labels (told+free). The table names the best form's accuracy, and the most that any form may "
     "gain over the best without the blocks, a one-sided 95 % bound."),
    ("whitebox", "The victim itself, whole: the most accuracy there is to steal. It is no attack."),
    ("agreement", "The share of test {inputs} on which a copy answers as the victim does."),
    ("placed rightly", "The share of the whole blocks that an attack puts at their true positions."),
    ("chance", "The share of the largest class of the test {inputs}: what always naming that class would reach."),
    ("trusted party", "A small machine of the owner's that takes part in requests where a defence needs one."),
    ("adjusted Rand index", "How well groups were found: 1 is right, 0 is what random groups would reach."),
    ("device-minute", "A minute of the named device, with all the threads that a job was given."),
)  # fmt: skip


def entries(inputs: str) -> list[tuple[str, str]]:
    """Each term and what it means, by the alphabet; inputs: what a study's inputs are called."""
    return sorted((term, meaning.format(inputs=inputs)) for term, meaning in GLOSSARY)
