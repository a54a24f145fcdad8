"""Bad input ends Snakemake with one clear line, before anything is trained, and leaves nothing half-written.

Snakemake itself runs once or twice for each place where bad input is met: the study, the results folder,
prepare_dataset, check_study. The other cases of a place call what Snakemake calls there.
"""

import resource
import runpy
import subprocess
import threading
from collections.abc import Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import workflow
from scatterproof.config.study import parse_study
from scatterproof.config.victim import VictimConfig
from scatterproof.errors import UserError
from scatterproof.victims.models import build_model
from workflow import RESULTS, ROOT, TINY

LINE = "scatterproof: error in "


def changed(keys: dict[str, Any]) -> dict[str, Any]:
    """The tiny study with some keys changed, given as `{"victim.layer": ...}`; without controls."""
    study = deepcopy(TINY)
    study["further_victims"] = {}
    for path, value in keys.items():
        *sections, key = path.split(".")
        part = study
        for section in sections:
            part = part.setdefault(section, {})
        part[key] = value
    return study


def nothing_was_made(folder: Path) -> None:
    """No victim, no table, no half-written file; no cost record of a training."""
    made = [path for path in (folder / "results").rglob("*") if path.is_file()]
    assert {path.relative_to(folder / RESULTS).parts[0] for path in made} <= {
        *("logs", "benchmarks", "records", ".controller", "dataset.safetensors")
    }
    assert not [path for path in made if path.suffix == ".tmp"]
    assert {path.parent.name for path in made if "records" in path.parts} <= {"prepare_dataset", "check_study"}
    assert not (folder / RESULTS / "victim").exists()


def refused_while_parsing(folder: Path, study: dict[str, Any], *named: str, **options: Any) -> None:
    """Snakemake says one line that holds `named`, shows no traceback, starts no job."""
    status, output = workflow.snakemake(folder, study, **options)
    assert status not in (0, None), output
    lines = [line for line in output.splitlines() if all(name in line for name in named)]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    assert "Building DAG" not in output
    assert len(output.splitlines()) <= 5, output


def refused_in(folder: Path, study: dict[str, Any], rule: str, *named: str, **options: Any) -> None:
    """The rule's job says one line that holds `named`, on the terminal and in its log; no other job starts."""
    status, output = workflow.snakemake(folder, study, **options)
    assert status not in (0, None), output
    said = {line for line in output.splitlines() if line.startswith(LINE)}
    assert len(said) == 1, output
    line = said.pop()
    assert line.startswith(f"{LINE}{rule}: ")
    assert all(name in line for name in named), line
    assert "Traceback" not in output
    assert (folder / RESULTS / "logs" / f"{rule}.log").read_text().splitlines()[-1] == line
    nothing_was_made(folder)


def run_script(folder: Path, study: dict[str, Any], rule: str) -> None:
    """A local rule's script as Snakemake runs it in a folder, but in this process."""
    for name in ("logs", "records"):
        (folder / RESULTS / name).mkdir(parents=True, exist_ok=True)
    dataset = f"{RESULTS}/dataset.safetensors"
    params = {"records": f"{RESULTS}/records", "config": parse_study(study, "tiny.yaml").dataset.model_dump_json()}
    files = {
        "prepare_dataset": {"input": [], "output": [dataset]},
        "check_study": {"input": [dataset], "output": [f"{RESULTS}/checked.json"]},
    }[rule]
    job = SimpleNamespace(
        rule=rule, wildcards={}, params=SimpleNamespace(**params), config=study, log=[f"{RESULTS}/logs/{rule}.log"]
    )
    vars(job).update(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path(str(ROOT / "workflow/scripts" / f"{rule}.py"), {"snakemake": job})


def refused_by(folder: Path, study: dict[str, Any], rule: str, capfd: pytest.CaptureFixture[str], *named: str) -> None:
    """The rule's script fails with the line of which `refused_in` says more."""
    with pytest.raises(SystemExit) as end:
        run_script(folder, study, rule)
    assert end.value.code == 1
    line = capfd.readouterr().err.rstrip("\n")
    assert "\n" not in line
    assert line.startswith(f"{LINE}{rule}: ")
    assert all(name in line for name in named), line
    assert (folder / RESULTS / "logs" / f"{rule}.log").read_text().splitlines()[-1] == line
    nothing_was_made(folder)


@pytest.fixture
def with_data(tmp_path: Path) -> Path:
    """A folder where the dataset has been read already."""
    run_script(tmp_path, TINY, "prepare_dataset")
    return tmp_path


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"prune.repeats": "many"}, "prune.repeats: Input should be a valid integer, got 'many'"),
        ({"shuffle.keep": [0.5, 1.5]}, "shuffle.keep.1: Input should be less than or equal to 1, got 1.5"),
        ({"retraining.recipes.short.epoch": 3}, "retraining.recipes.short.epoch: unknown key"),
        (
            {"search.reinforce.minibatch": 24},
            "search.reinforce.steps 32: expected a multiple of walks 4 and minibatch 24",
        ),
        ({"search.genetic.tournament": 9}, "search.genetic.tournament 9: expected 1 to the population of 8"),
    ],
    ids=["wrong type", "kept share", "recipe", "search", "tournament"],
)
def test_a_value_that_is_not_allowed(keys: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as refusal:
        parse_study(changed(keys), "tiny.yaml")
    assert f"tiny.yaml: {named}" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_study_that_is_none(tmp_path: Path) -> None:
    study = changed({"victim.train.epoch": 3})
    refused_while_parsing(tmp_path, study, "tiny.yaml: victim.train.epoch: unknown key")
    assert not (tmp_path / "results").exists()


def test_a_block_size_that_does_not_fit_the_layer(with_data: Path) -> None:
    named = "block_sizes: block size 65 is larger than the layer: classifier.0 is 64 x 392"
    refused_in(with_data, changed({"block_sizes": [16, 65]}), "check_study", named)


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"victim.layer": "features.0"}, "victim.layer 'features.0' is Conv2d, expected a dense layer"),
        (
            {"attacks.grids": [{"images": [298]}]},
            "attacks.grids.images is 298, but the pirate has 297 images: lower it, or raise dataset",
        ),
        ({"plateau.images": [298]}, "plateau.images is 298, but the pirate has 297 images: lower it, or raise dataset"),
        (
            {"retraining.pirate_images": [8, 298]},
            "retraining.pirate_images is 298, but the pirate has 297 images: lower",
        ),
    ],
    ids=["layer", "attack images", "images", "more images"],
)
def test_what_does_not_fit_the_victim(
    with_data: Path, capfd: pytest.CaptureFixture[str], keys: dict[str, Any], named: str
) -> None:
    refused_by(with_data, changed(keys), "check_study", capfd, named)


def test_a_checkpoint_of_another_architecture(with_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = build_model(VictimConfig(model="vgg16_bn", width=1 / 64), 7)
    save_file(other.state_dict(), with_data / "other.safetensors")
    study = changed({"victim.kind": "checkpoint", "victim.checkpoint": "other.safetensors", "victim.seeds": [0]})
    named = ("other.safetensors", "classifier.6.weight is [7, 64], the model has [10, 64]", "classifier.6.bias is [7]")
    refused_by(with_data, study, "check_study", capfd, *named)


def test_a_checkpoint_with_values_that_are_no_numbers(with_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = build_model(VictimConfig(width=1 / 64), 10).state_dict()
    state["classifier.3.weight"][2, 5] = float("nan")
    save_file(state, with_data / "odd.safetensors")
    study = changed({"victim.kind": "checkpoint", "victim.checkpoint": "odd.safetensors", "victim.seeds": [0]})
    named = (
        "victim.checkpoint 'odd.safetensors': classifier.3.weight has 1 of 4,096 values",
        "the first nan at [2, 5]",
    )
    refused_by(with_data, study, "check_study", capfd, *named)


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        (
            {"y_test": None},
            "missing y_test (present: x_train, y_train, x_test), expected x_train, y_train, x_test, y_t",
        ),
        ({"y_test": np.array([0, 1, 2, 9])}, "y_test has the label 9, expected 0 to 2 (the classes of y_train)"),
        (
            {"y_train": np.arange(30) % 3 + 1, "y_test": np.array([1, 2, 3, 1])},
            "y_train: labels run 1..3, expected 0..2: subtract 1, from y_test too",
        ),
    ],
    ids=["missing array", "label", "labels from 1"],
)
def test_a_bad_npz(tmp_path: Path, capfd: pytest.CaptureFixture[str], arrays: dict[str, Any], named: str) -> None:
    good = {
        "x_train": np.zeros((30, 8, 8), np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": np.zeros((4, 8, 8), np.uint8),
    }
    np.savez(tmp_path / "bad.npz", **{key: value for key, value in (good | arrays).items() if value is not None})
    study = changed({"dataset.kind": "npz", "dataset.path": "bad.npz"})
    refused_by(tmp_path, study, "prepare_dataset", capfd, f"bad.npz: {named}")


@pytest.fixture
def damaged() -> Iterator[str]:
    """The address of an archive that is not the one expected."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "4096")
            self.end_headers()
            self.wfile.write(b"damaged " * 512)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/cifar-100-python.tar.gz"
        server.shutdown()


def test_a_corrupted_download(tmp_path: Path, capfd: pytest.CaptureFixture[str], damaged: str) -> None:
    study = changed({"dataset.kind": "cifar100", "dataset.url": damaged})
    named = (damaged, "checksum (md5)", "expected eb9058c3a382ffc7106e4002c42a8d85")
    refused_by(tmp_path, study, "prepare_dataset", capfd, *named)
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_a_file_in_the_place_of_the_results(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("mine\n")
    refused_while_parsing(tmp_path, TINY, f"{RESULTS}: ", f"{tmp_path}/results is not a folder")
    assert (tmp_path / "results").read_text() == "mine\n"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where even root makes no files")
def test_a_read_only_results_folder(tmp_path: Path) -> None:
    (tmp_path / "results").symlink_to("/proc")
    refused_while_parsing(tmp_path, TINY, f"{RESULTS}: cannot write in {tmp_path}/results: ")


def test_a_full_results_folder(tmp_path: Path) -> None:
    """A disk of 1 MB of its own where users may mount one, else the room found is pretended."""
    (tmp_path / "results").mkdir()
    mount = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    small = f'mount -t tmpfs -o size=1m none {tmp_path}/results && exec "$@"'
    named = (f"{RESULTS}: ", f"GB free on the disk of {tmp_path}/results, expected at least 0.210 GB")
    if _works([*mount, small, "sh", "true"]):
        refused_while_parsing(tmp_path, TINY, *named, prefix=[*mount, small, "sh"])
    else:
        pretend = "import shutil\nshutil.disk_usage = lambda path: shutil._ntuple_diskusage(10**6, 0, 10**6)\n"
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "sitecustomize.py").write_text(pretend)
        refused_while_parsing(tmp_path, TINY, *named, path=tmp_path / "site")
    assert not list((tmp_path / "results").iterdir())


def _works(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_disk_that_fills_up_while_it_is_written_to(tmp_path: Path) -> None:
    """As a file larger than is allowed: the write fails half-way."""
    limit = 100_000

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    refused_in(tmp_path, TINY, "prepare_dataset", "dataset.safetensors", "File too large", preexec_fn=small_files)
    assert not (tmp_path / RESULTS / "dataset.safetensors").exists()
