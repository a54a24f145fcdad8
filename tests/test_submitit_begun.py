"""What a cell found when it began, and what has changed since."""

import os
import time
from pathlib import Path

from snakemake_executor_plugin_submitit.begun import SOURCES, begin, changed_since, has_begun, is_revoked, revoke_cell
from snakemake_executor_plugin_submitit.shared_files import digest_of, write_json

LATER = time.time() + 1e6  # later than all that a test does, however long the tests before it take


def touch(path: Path, text: str | None = None) -> Path:
    """A file with a text, or its own, changed later than all that a test does."""
    path.write_text(path.read_text() if text is None else text)
    os.utime(path, (LATER, LATER))
    return path


def test_an_input_is_told_by_its_content_not_by_a_touch(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("old")
    assert begin(tmp_path, 0, 0, [str(data)])
    assert changed_since(tmp_path, 0, 0, [str(data)]) is None
    touch(data)
    assert changed_since(tmp_path, 0, 0, [str(data)]) is None
    touch(data, "new")
    assert changed_since(tmp_path, 0, 0, [str(data)]) == str(data)
    touch(data, "old")
    assert changed_since(tmp_path, 0, 0, [str(data)]) is None


def test_a_large_input_a_folder_and_one_that_is_gone_are_told_by_time(tmp_path: Path) -> None:
    large, folder, gone = tmp_path / "large", tmp_path / "folder", tmp_path / "gone"
    large.write_bytes(bytes(2**20 + 1))
    folder.mkdir()
    gone.write_text("here")
    inputs = [str(large), str(folder), str(gone)]
    assert begin(tmp_path, 0, 0, inputs)
    assert changed_since(tmp_path, 0, 0, inputs) is None
    os.utime(large, (LATER, LATER))
    assert changed_since(tmp_path, 0, 0, inputs) == str(large)
    os.utime(folder, (LATER, LATER))
    assert changed_since(tmp_path, 0, 0, [str(folder)]) == str(folder)
    gone.unlink()
    assert changed_since(tmp_path, 0, 0, [str(gone)]) is None  # Snakemake will say so


def test_a_link_is_as_young_as_the_younger_of_itself_and_its_target(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(bytes(2**20 + 1))
    link.symlink_to(target)
    assert begin(tmp_path, 0, 0, [str(link)])
    assert changed_since(tmp_path, 0, 0, [str(link)]) is None
    os.utime(link, (LATER, LATER), follow_symlinks=False)
    assert changed_since(tmp_path, 0, 0, [str(link)]) == str(link)


def test_a_source_that_was_another_one_when_it_began_shows_though_it_is_back(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("a")
    write_json(tmp_path / SOURCES, {str(script): digest_of(script)})
    script.write_text("b")  # edited while the job waited in the queue
    assert begin(tmp_path, 0, 0, [])
    assert changed_since(tmp_path, 0, 0, []) is None  # it runs what is there now
    script.write_text("a")
    assert changed_since(tmp_path, 0, 0, []) == str(script)


def test_a_cell_that_waits_in_a_task_can_be_taken_out_and_one_that_has_begun_cannot(tmp_path: Path) -> None:
    assert begin(tmp_path, 0, 0, [])
    assert begin(tmp_path, 0, 0, []), "a requeued task begins its cell again"
    assert not revoke_cell(tmp_path, 0, 0, "out of date")
    assert revoke_cell(tmp_path, 0, 1, "out of date")
    assert revoke_cell(tmp_path, 0, 1, "out of date")
    assert not begin(tmp_path, 0, 1, [])
    assert has_begun(tmp_path, 0, 0)
    assert not has_begun(tmp_path, 0, 1)
    assert is_revoked(tmp_path, 0, 1)
    assert changed_since(tmp_path, 0, 2, []) is None


def test_without_its_file_the_time_that_its_result_names_counts(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("x")
    assert changed_since(tmp_path, 0, 0, [str(data)], started=time.time() - 100) == str(data)
    assert changed_since(tmp_path, 0, 0, [str(data)], started=time.time() + 100) is None
