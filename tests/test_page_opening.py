"""The page's first screen, its glossary and its references: what they say, without a browser."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from scatterproof.analysis.verdict import BOUNDED, BROKEN, INVALID, LOST, MOOT, NOT_YET, UNDECIDED, VERDICTS
from scatterproof.report.glossary import GLOSSARY, entries
from scatterproof.report.opening import HEAD, LEAD, MOST_WORDS, answer, helped, opening, telling
from scatterproof.report.page import TEMPLATES
from scatterproof.report.references import PAPERS

ROOT = Path(__file__).parents[1]
DEMO = pd.read_csv(Path(__file__).with_name("page_questions") / "verdict.csv")
NAN = float("nan")
CITED = re.compile(r"https://(?:arxiv\.org/abs|doi\.org|jmlr\.org|papers\.nips\.cc)/[^\s,;)`]+[^\s,;)`.]")


def row(**changed: Any) -> Any:
    """The demo's first verdict, changed."""
    return next(DEMO.iloc[:1].assign(**changed).itertuples(index=False))


def plain(text: str) -> str:
    return re.sub("<[^>]+>", "", text)


def test_the_demo_is_answered_by_the_broken_threat_that_grants_least() -> None:
    shown = opening({"verdict": DEMO}, 16)
    assert shown.red and shown.sentence == (
        "No: holding 100 % of the victim's 64 x 64 blocks and no images, a pirate ends with 97.2 of 97.2 % accuracy."
    )
    assert [each.value for each in shown.numbers] == ["97.2 of 97.2 %", "+87.3 points", "7.46 %"]
    assert shown.setting == "victim, blocks of 64 x 64, 100 % of them held, no images. Mean of 5 victims."
    assert [group.title for group in shown.groups] == ["victim, blocks of 64 x 64", "copy free, blocks of 16 x 16"]
    assert sum(len(group.rows) for group in shown.groups) == len(DEMO)
    assert {len(each) for group in shown.groups for each in group.rows} == {len(HEAD)}


THREATS = (
    *("layer-1-0-none", "layer-0.1-1000-logits-base", "dense-1-10000-labels", "dense-0.25-100-none-home-1-drawn"),
    *("layer-1-100-none-rescale-10", "layer-1-100-none+stream-0-1", "layer-1-100-none-inputs-25"),
)


@pytest.mark.parametrize("threat", THREATS)
@pytest.mark.parametrize("victim", ["victim", "copy_free"])
@pytest.mark.parametrize("attack", ["fingerprint", "layer"])
@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_answer_has_few_words_and_names_size_share_and_victim(
    threat: str, victim: str, attack: str, verdict: str
) -> None:
    keep, images, knows = threat.split("-")[1:4]
    granted = {"keep": float(keep), "images": int(images), "knows": knows.split("+")[0]}
    said = answer(row(threat=threat, victim=victim, verdict=verdict, ends_with_attack=attack, **granted))
    assert len(said.split()) <= MOST_WORDS, said
    assert f"{100 * float(keep):g} % of " in said and "64 x 64 blocks" in said and victim.replace("_", " ") in said
    assert said.startswith(f"{LEAD[verdict]}: ") and "97.2 of 97.2 %" in said
    assert ("or none" in said) == (attack == "layer"), "what the pirate ends with needs no block"


def test_only_a_bounded_threat_is_answered_without_a_doubt() -> None:
    assert {verdict for verdict, lead in LEAD.items() if not lead.startswith(("No", "Not"))} == {BOUNDED, MOOT}
    assert {LEAD[each] for each in (BROKEN, LOST)} == {"No"}
    assert {LEAD[each] for each in (UNDECIDED, NOT_YET, INVALID)} == {"Not shown", "Not known"}
    assert set(LEAD) == set(VERDICTS)


def test_one_broken_threat_outweighs_all_that_are_bounded() -> None:
    bounded = DEMO.assign(verdict=BOUNDED, ends_with=0.1)
    bounded.loc[3, ["verdict", "ends_with"]] = BROKEN, 0.5
    assert telling(bounded).threat == DEMO["threat"][3]
    bounded.loc[3, "verdict"] = UNDECIDED
    assert telling(bounded).verdict == UNDECIDED


def test_the_worst_threats_to_the_layer_as_it_is_come_first() -> None:
    mixed = DEMO.sample(frac=1, random_state=3)
    (group,) = (each for each in opening({"verdict": mixed}, 16).groups if each.title.startswith("victim"))
    shown = [plain(row[-1]) for row in group.rows]
    assert shown == ["broken", "broken", "lost", "lost", "lost", "undecided", "undecided", "undecided"]
    assert ["(" in row[0] for row in group.rows] == [False] * 6 + [True] * 2, "defended ones last"


def test_of_the_unbroken_the_one_that_ends_with_most_is_told() -> None:
    open_ = DEMO[:3].assign(verdict=NOT_YET, ends_with=[0.1, 0.4, 0.2])
    assert telling(open_).ends_with == 0.4 and not opening({"verdict": open_}, 16).red


def test_whether_the_blocks_help_follows_the_margin() -> None:
    yes, no = {"ci_low": 0.021, "gain_most": 0.2, "margin": 0.02}, {"ci_low": -0.1, "gain_most": 0.019, "margin": 0.02}
    assert plain(helped(row(**yes))).startswith("yes ") and plain(helped(row(**no))).startswith("no ")
    for between in (yes | {"ci_low": 0.02}, no | {"gain_most": 0.02}, {"ci_low": NAN, "gain_most": NAN}):
        assert plain(helped(row(**between))).startswith("not shown ")
    assert helped(row(gain=NAN)) == "not known"


def test_a_threat_without_a_trusted_attack_has_no_numbers_of_one() -> None:
    nothing = DEMO[:1].assign(verdict=INVALID, attack=None, accuracy=NAN, gain=NAN, ci_low=NAN, minutes=NAN)
    shown = opening({"verdict": nothing}, 16)
    assert shown.sentence.startswith("Not known: ") and [each.value for each in shown.numbers][1:] == ["not known"] * 2
    assert "no attack on the blocks passed its controls" in shown.numbers[1].of


def test_each_term_is_defined_once_and_without_words_that_promise() -> None:
    terms = [term for term, _ in GLOSSARY]
    asked = {"pirate", "block", "position", "placement", "threat", "control", "told ceiling", "gain", "headroom"}
    assert asked | {"margin", "ends with", "whitebox"} <= set(terms) and len(terms) == len(set(terms))
    shown = entries("texts")
    assert [term for term, _ in shown] == sorted(terms)
    assert not re.search(r"\{|images|\b(protected|safe)\b", " ".join(meaning for _, meaning in shown))


def test_references_are_those_that_the_code_cites() -> None:
    report = ROOT / "src/scatterproof/report"
    sources = [path for path in (ROOT / "src/scatterproof").rglob("*.py") if report not in path.parents]
    cited = {address for path in sources for address in CITED.findall(path.read_text(encoding="utf-8"))}
    assert len(cited) > 20 and {one.address for one in PAPERS if one.address} == cited


def test_the_drawing_of_the_threat_is_the_same_in_the_documents() -> None:
    assert (ROOT / "docs/threat.svg").read_bytes() == (TEMPLATES / "threat.svg").read_bytes()
