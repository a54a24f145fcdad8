"""Files are whole or absent, and what was written is what is read."""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from scatterproof.running.files import (
    FolderError,
    WriteError,
    atomic,
    check_writable,
    write_bytes,
    write_csv,
    write_json,
    write_text,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError, match="half-way"), atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("ne")
        raise RuntimeError("half-way")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == {"a.txt"}


def test_the_target_is_untouched_until_the_block_ends(tmp_path: Path) -> None:
    with atomic(tmp_path / "new" / "a.bin") as temporary:
        temporary.write_bytes(b"whole")
        assert temporary.parent == tmp_path / "new"
        assert not (tmp_path / "new" / "a.bin").exists()
    assert (tmp_path / "new" / "a.bin").read_bytes() == b"whole"
    assert names(tmp_path / "new") == {"a.bin"}


def test_writers_of_others_end_with_the_mode_of_a_new_file(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.safetensors") as temporary:
        save_file({"x": torch.arange(3)}, temporary)
    (tmp_path / "plain").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert load_file(tmp_path / "a.safetensors")["x"].tolist() == [0, 1, 2]


def test_a_file_that_cannot_be_written_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=rf"^{tmp_path}/file/a\.txt: cannot be written: File exists$"):
        write_text(tmp_path / "file" / "a.txt", "x")
    with pytest.raises(WriteError, match="cannot be written: "), atomic(tmp_path / "a.safetensors") as temporary:
        save_file({"x": torch.arange(3)}, temporary / "below a file")
    assert names(tmp_path) == {"file"}


def test_bytes_text_and_json(tmp_path: Path) -> None:
    write_bytes(tmp_path / "b", b"\0\xff")
    write_text(tmp_path / "t", "é\r\n")
    write_json(tmp_path / "j", {"kept": 0.1, "name": "é"})
    assert (tmp_path / "b").read_bytes() == b"\0\xff"
    assert (tmp_path / "t").read_bytes() == "é\r\n".encode()
    assert json.loads((tmp_path / "j").read_bytes()) == {"kept": 0.1, "name": "é"}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "j", {"loss": math.nan})
    assert json.loads((tmp_path / "j").read_bytes())["kept"] == 0.1


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_floats_survive_a_csv(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.getbasetemp() / "floats.csv"
    write_csv(path, pandas.DataFrame({"value": values, "name": "é"}))
    again = pandas.read_csv(path)
    assert again["value"].astype(float).tolist() == values
    assert list(again.columns) == ["value", "name"]


def test_files_needs_no_pandas_to_be_imported() -> None:
    code = "import sys, scatterproof.running.files; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_check_writable_accepts_a_folder_still_to_be_made(tmp_path: Path) -> None:
    check_writable(tmp_path / "results" / "demo", 1)
    assert names(tmp_path) == set()


def test_check_writable_names_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"GB free on the disk of .*, expected at least 1000000000\.000 GB") as error:
        check_writable(tmp_path / "results", 10**18)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "results") in str(error.value)


def test_check_writable_names_a_file_that_stands_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file")
    with pytest.raises(FolderError, match="is not a folder"):
        check_writable(tmp_path / "results" / "demo", 1)


def test_check_writable_names_a_folder_without_permission() -> None:
    """In a process without root's rights: root may write anywhere."""
    code = (
        "import os, sys\n"
        "from scatterproof.running.files import FolderError, check_writable\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: check_writable('demo', 1)\n"
        "except FolderError as error: sys.exit(str(error))\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        Path(folder).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"demo: cannot write in {folder}: Permission denied\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where even root makes no files")
def test_check_writable_names_a_read_only_folder() -> None:
    with pytest.raises(FolderError, match="/proc/results: cannot write in /proc"):
        check_writable("/proc/results", 1)
