"""The task `embedding`: a network's vectors are judged by the cosine to the victim's own."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

import scatterproof
import transformers_folders as folders
from scatterproof.errors import UserError
from scatterproof.victims.tasks import agreement, answers, chance, loss, task_of


def vectors(count: int, seed: int, centre: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64) + centre, dim=1)


def test_the_score_is_the_cosine() -> None:
    """Of any length of the outputs; 0 where it is negative; and the loss is what the cosine lacks of 1."""
    own = vectors(50, 0)
    assert task_of(own) == "embedding"
    assert agreement(answers(3 * own.float(), "embedding"), own).numpy() == pytest.approx(1.0, abs=1e-6)
    assert float(agreement(answers(-own, "embedding"), own).max()) == 0.0
    half = F.normalize(own + F.normalize(vectors(50, 1), dim=1), dim=1)
    expected = (half * own).sum(1)
    assert torch.allclose(agreement(answers(half, "embedding"), own), expected.clamp(0, 1))
    assert torch.allclose(loss(half, own, "embedding", "none"), 1 - expected)


@pytest.mark.parametrize("centre", [0.5, 3.0])
def test_chance_is_what_the_best_single_vector_scores(centre: float) -> None:
    """Where vectors crowd together it is high, and no other vector that is tried does better."""
    own = vectors(400, 2, centre)
    best = chance(own)
    mean = F.normalize(own.mean(0), dim=0).expand(400, -1)
    assert float(agreement(mean, own).mean()) == pytest.approx(best, abs=0.01)
    others = [float(agreement(each.expand(400, -1), own).mean()) for each in vectors(50, 3, centre)]
    assert max(others) <= best + 0.01
    assert best > 0.9 if centre == 3.0 else best < 0.6


@pytest.mark.slow
def test_an_encoder_is_audited_by_its_vectors_alone(tmp_path: Path) -> None:
    folders.write_folder(tmp_path / "bert", "bert")
    text = str(folders.write_text(tmp_path / "text.txt"))
    result = scatterproof.audit(
        f"hf:{tmp_path / 'bert'}", text, task="embedding", blocks=8, inputs=20, layers=["encoder.layer.0.output.dense"],
        out=tmp_path / "out",
    )  # fmt: skip
    (each,) = result.estimates
    assert not each.note and each.own == pytest.approx(1.0, abs=1e-5) and 0 <= (each.without or 0) <= 1
    page = result.page.read_text()
    assert "mean cosine" in page and "texts of the test" in page
    with pytest.raises(UserError, match="--task embedding: is for a sentence encoder"):
        scatterproof.audit("vgg16", "digits", task="embedding", checkpoint=tmp_path / "none.pt")
