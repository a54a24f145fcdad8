"""What the report says of the stream: each kind of service once, what hides what at which cost."""

from itertools import product
from pathlib import Path

import pandas as pd

import report_tables as made_up
from scatterproof.report.figures.stream import draw_stream
from scatterproof.report.sections.stream import TABLE_HEAD, sentences, table_rows

CONTROLS = pd.DataFrame(
    [
        {"victim": "copy_free", "attack": "hijack-adaptive", "threat": f"layer-1-0-none+stream-1-1{service}"}
        | {"control": "random", "passed": not service}
        for service in ("", "+relays=2-batch=64")
    ]
)


def stream() -> pd.DataFrame:
    rows = []
    kinds = [("none", ""), ("relays", "relays=2 batch=64"), ("relays", "relays=2 batch=8")]
    for seed, layout, (obfuscation, params), share, requests, hijack in product(
        range(3), range(2), kinds, (0.5, 1.0), (1, 10), ("naive", "adaptive")
    ):
        hidden = obfuscation == "relays" and (hijack == "naive" or requests == 1)
        leaked = (0.1 if hidden else share) - 0.01 * seed
        rows.append(row(seed, layout, obfuscation, params, share, 0.0, requests, hijack, leaked, None))
    for seed, held in product(range(3), (0.25, 1.0)):
        rows.append(row(seed, 0, "none", "", 0.0, held, 1, "adaptive", 1.0, 0.6 * held))
    return made_up.marked("stream", pd.DataFrame(rows), CONTROLS)


def row(
    seed: int, layout: int, obfuscation: str, params: str, share: float, held: float, requests: int, hijack: str,
    leaked: float, accuracy: float | None,
) -> dict[str, object]:  # fmt: skip
    head = {"study": "made-up", "victim_seed": seed, "layer": "classifier.0", "block_size": 16, "keep": held}
    service = {"victim": "copy_free", "obfuscation": obfuscation, "params": params or None, "topology": "sources"}
    service |= {"order": "random", "observed_share": share, "labelled": 0, "requests": requests, "hijack": hijack}
    found = {"column_ari": leaked, "row_ari": leaked, "position_accuracy": 0.5, "accuracy": accuracy}
    found |= {"known_places_accuracy": None if accuracy is None else 0.9, "anonymity_bits": 10 * (1 - leaked)}
    cost = {"bandwidth_overhead": float(obfuscation == "relays"), "latency_overhead": 3.0 * (obfuscation == "relays")}
    return head | service | found | cost | {"seed": layout, "device": made_up.DEVICE, "device_minutes": 0.1}


def test_each_kind_of_service_is_one_row() -> None:
    rows = table_rows(stream())
    assert len(rows) == 3 * 2 * 2 * 2 + 2
    assert {len(one) for one in rows} == {len(TABLE_HEAD)}
    (plain,) = [one for one in rows if one[2] == "none" and one[5] == "100 %" and one[8:10] == ("10", "adaptive")]
    assert plain[10].startswith("0.99 [")
    assert plain[14] == "", "without blocks there is no accuracy"
    assert plain[-3:] == ("+0 %", "+0 %", "3 x 2")
    (owner,) = [one for one in rows if one[6] == "25 %"]
    assert owner[14].startswith("15.0 %")
    assert owner[15].startswith("90.0 %")


def test_sentences_say_what_leaks_what_hides_it_and_what_it_costs() -> None:
    found = "\n".join(sentences(stream()))
    whose = "copy free, blocks of 16 x 16, 0 % of them held"
    assert f"{whose}, nothing hidden (sources, sent in random order), every link tapped, 1 request: by the" in found
    assert f"{whose}, relays (relays=2 batch=64), every link tapped, after 10 requests: the adaptive hijack " in found
    assert "(control failed: random), which knows of it, groups columns with an index of 0.99" in found
    assert "relays=2 batch=8), every link tapped, after 10 requests: the adaptive hijack (no control)" in found
    assert "for +100 % bytes and +300 % latency. Mean of 6 draws." in found
    assert "copy free, blocks of 16 x 16, 100 % of them held with their devices and 0 % of the links tapped" in found
    assert "reaches 60.0 % accuracy; with every place known they reach 90.0 %. Mean of 3 draws." in found


def test_the_figure_shows_what_was_varied(tmp_path: Path) -> None:
    text = draw_stream(stream(), tmp_path / "stream.svg").read_text()
    for title in ("leakage against overhead", "share of the links tapped", "requests watched", "devices held"):
        assert title in text
    assert (tmp_path / "stream.png").exists()
    held = stream()
    text = draw_stream(held[held["keep"] > 0], tmp_path / "held.svg").read_text()
    assert "leakage against overhead" not in text
