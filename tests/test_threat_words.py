"""A threat's name parts into what it was made of, and the page says all of it in words; of what is absent, nothing."""

import re
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scatterproof.analysis.threat_key import KEY, undefended_first, with_key
from scatterproof.analysis.verdict import verdict_table
from scatterproof.config.settings.defences import defence_of, defence_of_label
from scatterproof.config.stream import service_of
from scatterproof.config.threat import ThreatModel, granted_knowledge, knows_of, parts_of, rest_of
from scatterproof.report.sections import defences as section
from scatterproof.report.sections import verdicts
from scatterproof.report.table import DEFENCE, Table
from scatterproof.report.threat_words import besides, defence_words, grants
from scatterproof.report.words import cut, setting
from test_defences import SETTINGS
from test_grouping import attacks, controls, defences

SHARES = [0.1, 0.25, 1.0, 1e-05, 0.123456]
STREAMS = ["", "+stream-0-1", "+stream-0.25-10-3labelled+coordinator-relays=2-batch=64"]
SEEN = [("none", 0), ("inputs", 1), ("both", 25)]


@given(
    *(st.sampled_from(each) for each in (SHARES, ["layer", "dense"], [0, 100], ["none", "labels", "logits"])),
    *(st.booleans(), st.sampled_from(SETTINGS), st.sampled_from(SEEN), st.sampled_from(STREAMS)),
)
def test_a_name_parts_into_what_it_was_made_of(
    share: float, scatter: Any, images: int, knows: Any, base: bool, defence: Any, seen: tuple[Any, int], stream: str
) -> None:
    seen = seen if scatter == "layer" else ("none", 0)
    about: dict[str, Any] = {"share": share, "scatter": scatter, "images": images, "knows": knows, "base_model": base}
    threat = ThreatModel(**about, defence=defence, activations=seen[0], requests=seen[1])
    parts = parts_of(threat.name + stream)
    label = threat.defence.label if threat.defended else ""
    assert parts[:5] == (scatter, f"{share:g}", str(images), knows, "base" * base)
    assert parts[5:] == (label, f"{seen[0]}-{seen[1]}" if seen[1] else "", stream)
    assert (knows_of(threat.name + stream), granted_knowledge(threat.name + stream)) == (knows, threat.granted)
    assert rest_of(threat.name + stream) == threat.name + stream
    assert rest_of(threat.name + stream, "stream") == threat.name
    assert rest_of(threat.name, "defence") == threat.undefended.name
    assert service_of(threat.name + stream) == stream.partition("+stream")[2].partition("+")[2]


def test_the_rest_of_a_name_lacks_what_is_varied_over() -> None:
    name = "layer-0.25-100-labels-base-rescale-10-inputs-25+stream-1-10"
    assert rest_of(name, "share", "images") == "layer-labels-base-rescale-10-inputs-25+stream-1-10"
    assert rest_of(name, "knows", "base", "activations", "stream") == "layer-0.25-100-rescale-10"


@pytest.mark.parametrize("name", ["", "layer", "layer-1-100", "layer-1-100-some", "x-1-100-none", "layer-1-100-none-"])
def test_what_is_no_name_of_a_threat_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"^no threat's name: {name}$"):
        parts_of(name)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda each: defence_of(each).label)
def test_the_label_of_a_defence_reads_back(settings: Any) -> None:
    defence = defence_of(settings)
    assert defence_of_label(defence.label) == defence


def test_a_key_is_text_and_threats_without_a_defence_come_first() -> None:
    names = [
        "layer-1-1000-none-rescale-10",
        "layer-1-1000-none",
        "layer-1-100-none-home-0.5-drawn",
        "layer-0.5-100-none",
    ]
    table = with_key(pd.DataFrame({"threat": names, "victim": "victim"}), "share")
    assert table.sort_values(KEY)["threat"].tolist() == [names[3], names[1], names[2], names[0]]
    assert undefended_first(table)["threat"].tolist() == [names[1], names[3], names[0], names[2]]
    assert len(set(with_key(table, "share", "images", "defence")[KEY])) == 1
    two = pd.DataFrame({"threat": names[:2] * 2, "victim": ["victim", "victim", "other", "other"]}, index=[0, 0, 1, 1])
    assert undefended_first(two)["victim"].tolist() == ["victim", "victim", "other", "other"]


def test_a_threat_is_said_in_words_and_of_what_is_absent_nothing() -> None:
    plain, defended = "layer-0.25-100-labels", "layer-0.25-100-labels-rescale-10"
    assert setting("victim", 16, 0.25, plain) == "victim, blocks of 16 x 16, 25 % of them held"
    assert besides(plain) == defence_words(plain) == ""
    where = "victim, blocks of 16 x 16, defended by rescale (factor=10), 25 % of them held"
    assert setting("victim", 16, 0.25, defended) == where
    assert cut("victim", 16, "dense-1-0-none-home-0.5-largest") == (
        "victim, all dense layers in blocks of 16 x 16, defended by home (share=0.5, choice=largest)"
    )
    inputs, both = f"{plain}-inputs-25", f"{plain}-both-1"
    assert grants(100, "labels", plain) == "100 labelled images"
    assert grants(100, "labels", inputs) == "100 labelled images; sees the inputs of the layer for 25 requests"
    assert grants(0, "none", both) == "no images; sees the layer's inputs and the next layer's for 1 request"
    assert besides(both) == ", the pirate sees the layer's inputs and the next layer's for 1 request"


def judged(part: str) -> pd.DataFrame:
    return verdict_table(attacks(part), controls(part))


def test_each_defence_has_verdicts_of_its_own() -> None:
    texts = verdicts.sentences(judged("defence"))
    counted = [str(text) for text in texts if "under" in text]
    assert "victim, blocks of 16 x 16: under 0 of 1 threats" in counted[0]
    assert "victim, blocks of 16 x 16, defended by rescale (factor=10): under 1 of 1 threats" in counted[1]
    ends = [re.sub("<[^>]+>", "", text) for text in texts if "the pirate ends with" in text and "verdict:" in text]
    assert [re.findall(r"ends with (\d+\.\d)", text) for text in ends] == [["10.0"], ["90.0"]]
    broken = [text for text in texts if "the model is broken" in text]
    assert ["defended by" in text for text in broken] == [False, True], "the cheapest of each"


def test_the_column_of_defences_is_there_where_the_study_has_any() -> None:
    for part, shown in (("defence", True), ("share", False)):
        table = Table("", verdicts.TABLE_HEAD, verdicts.table_rows(judged(part))).shown()
        assert (DEFENCE in table.head[0].split(", ")) == shown
        assert {len(row) for row in table.rows} == {len(table.head)}
    rows = verdicts.table_rows(judged("defence"))
    assert [row[verdicts.TABLE_HEAD.index(DEFENCE)] for row in rows] == ["", "rescale (factor=10)"]


def test_what_a_defence_costs_stands_beside_its_worst_verdict() -> None:
    tables = {"defences": defences("parameter"), "verdict": judged("parameter")}
    shown = section.section(tables)
    first, second = (dict(zip(shown["defences"].head, row, strict=True)) for row in shown["defences"].rows)
    of = "victim, block size, defence"
    assert first[of].endswith(", rescale (factor=10)") and second[of].endswith(", rescale (factor=100)")
    assert (first["trusted party's operations"], second["trusted party's operations"]) == ("0.1", "0.9")
    assert first["verdicts"] == "broken 1 of 1 threat"
    assert first["ends with at most"] == "10.0 of 90.0 % (fingerprint, with the blocks): 25 %, 100 labelled images"
    assert "90.0 of 90.0 %" in second["ends with at most"] and "alarm" in second["ends with at most"]
    assert (
        "A share of 1 means that the trusted party might as well compute the whole layer" in shown["defences_words"][0]
    )
    dear = tables["defences"].assign(trusted_flops_share=1.0, defence="home", defence_params="share=1, choice=drawn")
    other = section.section({"defences": dear})
    assert other["defences_words"][1] == "By operations that is so of home (share=1, choice=drawn)."
    row = dict(zip(other["defences"].head, other["defences"].rows[0], strict=True))
    assert (row["verdicts"], row["ends with at most"]) == ("not attacked", "")
    assert section.section({}) == {"defences": None, "defences_words": []}
