"""Tables lose no bit and no row between the jobs that write them and the study's own."""

from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scatterproof.analysis.columns import COLUMNS, HEAD
from scatterproof.analysis.older_tables import read_study_table
from scatterproof.analysis.tables import cell_table, concatenate, curve_table, victim_table
from scatterproof.running.files import read_table, write_csv, write_json
from scatterproof.victims.training import Epoch
from scatterproof.victims.training import curve_table as own_curve


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_floats_survive_to_the_last_bit(tmp_path: Path, values: list[float]) -> None:
    write_csv(tmp_path / "x.csv", pd.DataFrame({"value": values}))
    assert [float(value) for value in read_table(str(tmp_path / "x.csv"))["value"]] == values


def test_slices_are_joined_in_order(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{i}.csv") for i in (2, 0, 1)]
    for i, path in enumerate(paths):
        write_csv(path, pd.DataFrame({"part": [i, i], "loss": [0.1 + 0.2, 1 / 3], "gpu_minutes": [None, None]}))
    concatenate(paths, str(tmp_path / "all.csv"))
    table = read_table(str(tmp_path / "all.csv"))
    assert table["part"].tolist() == [0, 0, 1, 1, 2, 2]
    assert set(table["loss"]) == {0.1 + 0.2, 1 / 3}
    assert table["gpu_minutes"].isna().all()


def test_tables_of_older_versions_have_the_names_of_now(tmp_path: Path) -> None:
    about = {"params": "decoys=2 fixed=1", "defence": "cover", "seed": 0}
    threat = "layer-1-100-none+stream-0-1"
    older = {
        "attacks": pd.DataFrame([{"threat": "layer-1-0-none", **about, "params": None, "defence": "none"}]),
        "hijacks": pd.DataFrame([{"threat": f"{threat}+coordinator-decoys=2-fixed=1", **about}]),
        "controls": pd.DataFrame([{"threat": f"{threat}+decoys=2-fixed=1", "control": "random"}]),
        "stream": pd.DataFrame([about | {"hijack": "naive"}]),
    }
    for name, table in older.items():
        write_csv(tmp_path / f"{name}.csv", table)
    now = {name: read_study_table(tmp_path / f"{name}.csv") for name in older}
    parts = ["activations", "requests", "defence", "defence_params", "obfuscation"]
    assert list(now["hijacks"]) == ["threat", *parts, "params", "seed"]
    row = now["hijacks"].drop(columns="defence_params").iloc[0].tolist()
    assert row == [f"{threat}+coordinator-cover=2-fixed=1", "none", 0, "none", "cover", "cover=2 fixed=1", 0]
    assert now["attacks"][["defence", "obfuscation"]].iloc[0].tolist() == ["none", "none"]
    assert now["controls"].iloc[0].tolist() == [f"{threat}+cover=2-fixed=1", "random"]
    assert list(now["stream"]) == ["params", "obfuscation", "seed", "hijack"]
    assert now["stream"].iloc[0].tolist() == ["cover=2 fixed=1", "cover", 0, "naive"]
    for name, table in now.items():
        write_csv(tmp_path / f"{name}.csv", table)
        pd.testing.assert_frame_equal(read_study_table(tmp_path / f"{name}.csv"), table)


def test_tables_on_fineness_of_older_versions_have_their_threat(tmp_path: Path) -> None:
    for name in ("fineness", "fineness_threshold"):
        newer = ("threat", "own_evidence", "own_evidence_of_chance")
        columns = [column for column in COLUMNS[name] if column not in newer]
        row = dict.fromkeys(columns, 1) | {"keep": 0.25, "images": 100, "attack": "fingerprint", "victim": "victim"}
        write_csv(tmp_path / f"{name}.csv", pd.DataFrame([row])[columns])
        now = read_study_table(tmp_path / f"{name}.csv")
        assert list(now) == COLUMNS[name]
        assert now["threat"].item() == "layer-0.25-100-none"
        write_csv(tmp_path / f"{name}.csv", now)
        pd.testing.assert_frame_equal(read_study_table(tmp_path / f"{name}.csv"), now)


def test_rows_of_a_slice_say_what_they_were_measured_on() -> None:
    about = {"study": "s", "victim_seed": 3, "layer": "a+b", "victim": "copy_free", "scatter": "dense"}
    row = {"block_size": 16, "moved": 0.5, "repeat": 0, "accuracy": 0.5, "loss": 1.0}
    rows = [row | {"keep": keep} for keep in (0.1, 1.0)]
    cost = {"device": "cpu: x", "device_minutes": 0.5, "gpu_minutes": None}
    table = cell_table("shuffle", rows, about, cost)
    assert list(table.columns) == COLUMNS["shuffle"]
    assert set(table.columns) == {*rows[0], *about, *cost}
    assert table["keep"].tolist() == [0.1, 1.0]
    assert table.loc[1, HEAD].tolist() == ["s", 3, "a+b", 16, 1.0, "copy_free"]
    assert table[["victim", "scatter"]].drop_duplicates().to_numpy().tolist() == [["copy_free", "dense"]]
    assert table["gpu_minutes"].isna().all()


def test_victims_and_curves_are_gathered(tmp_path: Path) -> None:
    names = [("victim", 0), ("victim", 1), ("own", 0)]
    metrics, curves = [], []
    for i, _ in enumerate(names):
        metrics.append(str(tmp_path / f"{i}.json"))
        measured = dict.fromkeys(set(COLUMNS["victim"]) - {"study", "victim_seed", "keep", "victim"})
        about = {"layer": "fc", "block_size": 8, "accuracy": 1 / 3, "grids": {}}
        write_json(metrics[-1], measured | about)
        curves.append(str(tmp_path / f"{i}.csv"))
        write_csv(curves[-1], own_curve([Epoch(n + 1, n / 7, 1.0, 0.1 * n) for n in range(i)]))
    victims = victim_table("s", names, metrics)
    assert list(victims.columns) == COLUMNS["victim"]
    assert victims["accuracy"].tolist() == [1 / 3] * 3
    table = curve_table(victims, curves)
    assert list(table.columns) == COLUMNS["curve"]
    assert table[["victim", "victim_seed", "epoch"]].to_numpy().tolist() == [
        ["victim", 1, 1],
        ["own", 0, 1],
        ["own", 0, 2],
    ]
    none = curve_table(victims[:1], curves[:1])
    assert len(none) == 0
    assert list(none.columns) == list(table.columns)
