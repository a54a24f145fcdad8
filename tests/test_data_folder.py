"""Image folders: what is read, and one clear line for every unusable folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scatterproof.config.dataset import DatasetConfig
from scatterproof.victims.data import DatasetError, read_dataset


def write_folder(root: Path) -> Path:
    for part in ("train", "test"):
        for label, name in enumerate(("cat", "dog")):
            (root / part / name).mkdir(parents=True)
            for i in range(4):
                Image.new("RGB", (20, 12), (100 * label, i, 7)).save(root / part / name / f"{i}.png")
    return root


def folder_config(path: Path) -> DatasetConfig:
    return DatasetConfig(kind="folder", path=str(path), image_size=8, pirate=2)


def test_folders_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = read_dataset(folder_config(write_folder(tmp_path / "pets")))
    assert (data.name, data.classes, len(data.victim), len(data.pirate)) == ("pets", 2, 6, 2)
    assert data.test.images.shape == (8, 3, 8, 8)
    assert data.test.labels.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert torch.equal(data.test.images[:, 0, 4, 4], data.test.labels.to(torch.uint8) * 100)
    before = data.source
    Image.new("L", (9, 9)).save(tmp_path / "pets" / "train" / "cat" / "0.png")
    assert read_dataset(folder_config(tmp_path / "pets")).source != before


def test_the_middle_square_of_a_long_image_is_kept(tmp_path: Path) -> None:
    root = write_folder(tmp_path)
    picture = np.zeros((8, 24, 3), dtype=np.uint8)
    picture[:, 8:16] = 200
    Image.fromarray(picture).save(root / "test" / "cat" / "0.png")
    assert (read_dataset(folder_config(root)).test.images[0] == 200).all()


def break_folder(root: Path, case: str) -> str:
    """Damage a good folder, and say what the error must contain."""
    if case == "absent":
        return "elsewhere"
    if case == "class":
        (root / "test" / "dog").rename(root / "test" / "cow")
        return r"\(cow, dog\)"
    if case == "broken":
        (root / "test" / "dog" / "2.png").write_bytes((root / "test" / "dog" / "2.png").read_bytes()[:40])
        return r"test/dog/2\.png: cannot be decoded"
    for path in [*(root / "train").rglob("*.png"), *(root / "train").glob("*")]:
        if path.is_file():
            path.unlink()
        elif case == "no classes":
            path.rmdir()
    return "train: .*expected one folder of images per class"


@pytest.mark.parametrize("case", ["absent", "class", "broken", "no classes", "no images"])
def test_bad_folders_are_named(tmp_path: Path, case: str) -> None:
    message = break_folder(write_folder(tmp_path / "pets"), case)
    with pytest.raises(DatasetError, match=message) as error:
        read_dataset(folder_config(tmp_path / ("elsewhere" if case == "absent" else "pets")))
    assert "\n" not in str(error.value)
