"""Reassembly from the weights: it finds what was planted, and nothing where nothing is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import small
from scatterproof.attacks.base import AttackError, Copy, Machine, Placed, Run, Snapshot
from scatterproof.attacks.fingerprint import attack as fingerprint
from scatterproof.attacks.fingerprint.assignment import Candidates, beliefs, best_assignment
from scatterproof.attacks.fingerprint.attack import Fingerprint
from scatterproof.attacks.fingerprint.context import Surroundings, find_surroundings, made_up_images
from scatterproof.attacks.fingerprint.evidence import group_evidence, unit_evidence
from scatterproof.attacks.fingerprint.mean_field import MeanField, Round
from scatterproof.attacks.fingerprint.neuron_sizes import is_rescaled
from scatterproof.attacks.store import load_found, save_found
from scatterproof.config.settings.base import Needs
from scatterproof.config.settings.blocks import FingerprintSettings
from scatterproof.config.threat import ThreatModel
from scatterproof.cutting import make_puzzle
from scatterproof.defences.network import protect_network
from scatterproof.judging.judge import placed
from scatterproof.puzzle import Answer, Puzzle
from scatterproof.victims.models import dense_layers

HERE = Run(Machine(torch.device("cpu"), 1))
CHANCE_BOUND = 3


def planted(seed: int, leak: float, share: float = 1.0, images: int = 100) -> tuple[Puzzle, Answer]:
    """An untrained network, but that its layer has in it what training leaves: products of what flows back through
    the next layer with what flows in, `leak` times as strong as the noise. 8 x 16 blocks."""
    model = small.network(small.WIDE, seed=seed)
    data = small.dataset(pirate=images)
    empty, _ = small.puzzle(model, small.WIDE, data, 16, seed, images=images)
    inputs = find_surroundings(empty, "3", HERE.machine.device).inputs
    layer, after = dense_layers(model)["3"], dense_layers(model)["5"]
    generator = torch.Generator().manual_seed(seed)
    back = torch.randn(len(inputs), after.out_features, generator=generator) @ after.weight.detach()
    learned = back.T @ (inputs - inputs.mean(0))
    noise = torch.randn(layer.weight.shape, generator=generator)
    layer.weight.data = noise + leak * learned / learned.std()
    return small.puzzle(model, small.WIDE, data, 16, seed, images=images, share=share)


def reached(puzzle: Puzzle) -> Placed:
    found = Fingerprint().run(puzzle, HERE)[-1].reached
    assert isinstance(found, Placed)
    return found


@pytest.mark.parametrize(("share", "least"), [(1.0, 0.99), (0.5, 0.9)])
def test_a_planted_leak_is_found(share: float, least: float) -> None:
    found = [placed(reached(puzzle), puzzle, answer) for puzzle, answer in (planted(s, 3.0, share) for s in range(3))]
    assert sum(one["position_accuracy"] for one in found) / 3 > least
    assert max(one["residual_bits"] for one in found) < 0.2 * 128 * 7, "of the 7 bits of each of 128 blocks"


def test_random_weights_give_nothing_away() -> None:
    """Pooled over 20 shuffles, the upper 95 % bound of the right positions is below three times chance."""
    right = total = 0
    for seed in range(20):
        puzzle, answer = planted(seed, 0.0)
        right += round(placed(reached(puzzle), puzzle, answer)["position_accuracy"] * len(puzzle.blocks))
        total += len(puzzle.blocks)
    chance = 1 / puzzle.layout.positions
    bound = (right + 1.92 + 1.96 * (right + 0.96) ** 0.5) / total  # Wilson's, for a rare event
    assert bound < CHANCE_BOUND * chance


def rescaled(around: Surroundings, blocks: torch.Tensor, places: torch.Tensor, seed: int, factor: float) -> Any:
    """The same layer with each neuron scaled by up to this factor, up or down, its reader inversely."""
    drawn = torch.rand(around.grid.outputs, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    factors = factor**drawn
    assert around.following is not None and around.bias is not None
    changed = replace(around, following=around.following / factors, bias=around.bias * factors)
    by_row = factors.view(around.grid.rows, around.grid.height)
    return changed, blocks * by_row[places // around.grid.columns][:, :, None]


@pytest.mark.parametrize(("leak", "least", "most"), [(3.0, 0.97, 1.0), (0.0, 0.0, 0.03)])
@pytest.mark.parametrize("factor", [1.3, 2.0, 10.0])
def test_neurons_of_secret_sizes_give_up_as_much(leak: float, least: float, most: float, factor: float) -> None:
    """And random ones nothing; the readers tell of large factors, and of smaller ones what is explained."""
    shares = []
    for seed in range(5):
        puzzle, answer = planted(seed, leak)
        around = find_surroundings(puzzle, "3", HERE.machine.device)
        assert around.homogeneous and not is_rescaled(around)
        changed, blocks = rescaled(around, puzzle.blocks, answer.placement.positions, seed, factor)
        assert is_rescaled(changed) == (factor == 10)
        *_, last = Fingerprint().placements(blocks, puzzle.shapes, changed)
        shares.append(placed(last, puzzle, answer)["position_accuracy"])
    assert least <= sum(shares) / 5 <= most


def test_a_threat_that_says_so_is_believed() -> None:
    model, data = small.network(small.WIDE), small.dataset()
    threat = ThreatModel(images=4, defence={"name": "rescale", "factor": 1.2})
    layout = small.puzzle(model, small.WIDE, data)[0].layout
    made = protect_network(model, layout, threat.defence, torch.rand(4, 3, 8, 8), (0,))
    puzzle, _ = make_puzzle(model, small.WIDE, data, threat, 16, (0,), protected=made)
    assert is_rescaled(find_surroundings(puzzle, "3", HERE.machine.device))
    plain, _ = make_puzzle(model, small.WIDE, data, threat.undefended, 16, (0,))
    assert not is_rescaled(find_surroundings(plain, "3", HERE.machine.device))


def right(attack: Fingerprint, puzzle: Puzzle, answer: Answer) -> float:
    found = attack.run(puzzle, HERE)[-1].reached
    assert isinstance(found, Placed)
    return float(placed(found, puzzle, answer)["position_accuracy"])


def always_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start made wrong by a test explains nothing, and would be left as it is."""
    monkeypatch.setattr(fingerprint, "CHANCE", 0.0)
    monkeypatch.setattr(fingerprint, "LITTLE", -1.0)


def test_rounds_that_do_not_settle_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On at a temperature, from each block's own evidence, which is not enough."""
    always_again(monkeypatch)
    puzzle, answer = planted(0, 0.3)
    assert right(Fingerprint(rounds=0, tempered_rounds=0), puzzle, answer) < 0.5
    assert right(Fingerprint(rounds=0, restarts=0), puzzle, answer) > 0.9


def test_a_restart_finds_what_the_first_try_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first start is a wrong placement that each block is sure of; a half of the inputs starts anew."""
    puzzle, answer = planted(0, 0.5)
    around, known = find_surroundings(puzzle, "3", HERE.machine.device), MeanField.rounds

    def misled(self: MeanField, most: int, temperature: float = 1.0, start: Round | None = None) -> Iterator[Round]:
        if len(self.around.inputs) == len(around.inputs) and (start is None or start.belief is wrong.belief):
            return iter([wrong])
        return known(self, most, temperature, start)

    count = puzzle.layout.positions
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    everywhere = torch.arange(count).expand(count, -1)
    sure = torch.nn.functional.one_hot(order, count).float()
    wrong = Round(Candidates(everywhere, 20 * sure), sure)
    monkeypatch.setattr(MeanField, "rounds", misled)
    always_again(monkeypatch)
    assert right(Fingerprint(restarts=0), puzzle, answer) < 0.1
    assert right(Fingerprint(), puzzle, answer) > 0.9


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_what_a_temperature_would_lose_is_kept(seed: int) -> None:
    puzzle, answer = planted(seed, 0.2)
    first = right(Fingerprint(tempered_rounds=0), puzzle, answer)
    assert first > 0.5
    assert right(Fingerprint(), puzzle, answer) == first


def tries(attack: Fingerprint, puzzle: Puzzle, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often it starts anew."""
    count, known = 0, Fingerprint._started_anew

    def counted(*args: Any) -> Round:
        nonlocal count
        count += 1
        return known(*args)

    monkeypatch.setattr(Fingerprint, "_started_anew", counted)
    attack.run(puzzle, HERE)
    return count


def test_tries_are_made_where_something_is_left_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not on noise, of which enough shuffles don't settle either; not where blocks are missing."""
    assert tries(Fingerprint(), planted(1, 0.2)[0], monkeypatch) > 0
    assert tries(Fingerprint(), planted(1, 0.2, share=0.75)[0], monkeypatch) == 0
    for seed in (0, 2, 6):
        assert tries(Fingerprint(), planted(seed, 0.0)[0], monkeypatch) == 0


def test_placements_explain_more_the_more_blocks_lie_right() -> None:
    puzzle, answer = planted(3, 0.3)
    around = find_surroundings(puzzle, "3", HERE.machine.device)
    field = Fingerprint().field(puzzle.blocks, puzzle.shapes, around)
    truth = answer.placement.positions
    exchanged = truth.clone()
    exchanged[:8] = truth[:8].roll(1)
    assert field.explained(truth) > field.explained(exchanged) > field.explained(truth.roll(1))
    assert field.tells(field.explained(truth)) > 1 > field.tells(field.explained(truth.roll(1)))


def test_the_attack_gets_the_puzzle_alone_and_numbers_mean_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The puzzle's file alone, in an empty folder, its blocks renumbered: the same placement up to the renumbering."""
    puzzle, _ = planted(1, 1.0)
    before = reached(puzzle).placement
    order = torch.randperm(len(puzzle.blocks), generator=torch.Generator().manual_seed(3))
    replace(puzzle, blocks=puzzle.blocks[order].contiguous(), shapes=puzzle.shapes[order].contiguous()).save(
        tmp_path / "puzzle.safetensors"
    )
    monkeypatch.chdir(tmp_path)
    after = reached(Puzzle.load(Path("puzzle.safetensors"))).placement
    assert (after == before[order]).double().mean() > 0.98  # sums in another order round differently
    assert [path.name for path in tmp_path.iterdir()] == ["puzzle.safetensors"]


def test_the_same_puzzle_gives_the_same_bits() -> None:
    puzzle, _ = planted(2, 1.0)
    first, second = reached(puzzle), reached(puzzle)
    assert torch.equal(first.placement, second.placement)
    assert torch.equal(first.beliefs, second.beliefs)


def test_a_pirate_without_images_makes_some_up() -> None:
    puzzle, answer = planted(0, 3.0, images=40)
    without = replace(puzzle, images=puzzle.images[:0], threat=puzzle.threat.model_copy(update={"images": 0}))
    images = made_up_images(without)
    assert images.dtype == torch.uint8
    assert images.shape[1:] == puzzle.images.shape[1:]
    assert images.float().std() > 10
    assert placed(reached(without), without, answer)["position_accuracy"] > 10 / puzzle.layout.positions


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("candidates", [100, 2])
def test_blocks_of_other_shapes_stay_where_they_fit(
    dense: bool, candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every block keeps two candidates only, and where the sparse solver is at work."""
    if not dense:
        monkeypatch.setattr("scatterproof.attacks.fingerprint.assignment.DENSE", 0)
    config = small.vgg()
    puzzle, _ = small.puzzle(small.network(config), config, small.dataset(), 24, images=12)
    attack = Fingerprint(candidates=candidates * len(puzzle.blocks))
    found = attack.run(puzzle, HERE)[-1].reached
    assert isinstance(found, Placed)
    placement = found.placement
    assert torch.equal(puzzle.layout.shapes()[placement], puzzle.shapes)
    assert sorted(placement.tolist()) == list(range(puzzle.layout.positions))


def test_a_threat_that_grants_too_little_is_refused() -> None:
    class OfOneLayer(FingerprintSettings):
        needs = Needs(scatter=("layer",), images=5)

    config = small.vgg()
    for threat, named in ({"scatter": "dense"}, "what is scattered to be layer"), ({"images": 4}, "at least 5 images"):
        puzzle, _ = small.puzzle(small.network(config), config, small.dataset(), 8, **threat)
        with pytest.raises(AttackError, match=f"fingerprint needs {named}, the threat"):
            Fingerprint(OfOneLayer()).run(puzzle, HERE)


def test_evidence_tells_groups_of_different_covariance() -> None:
    generator = torch.Generator().manual_seed(0)
    moments = torch.stack([torch.diag(torch.tensor(d)) for d in ([9.0, 1, 1, 1], [1.0, 1, 9, 1], [1.0, 9, 1, 9])])
    truth = torch.arange(60) % 3
    vectors = torch.randn(60, 30, 4, generator=generator) @ moments.sqrt()[truth]
    evidence = group_evidence(vectors, moments, torch.tensor([[30, 4]] * 60))
    assert (evidence.log_likelihood.argmax(1) == truth).double().mean() > 0.95


@pytest.mark.parametrize("sign", [1, -1])
def test_units_are_told_by_what_goes_with_their_biases(sign: int) -> None:
    """Rows of 8 units, the last one of 5; blocks that know nothing of the biases give nothing away."""
    generator = torch.Generator().manual_seed(0)
    biases, rows = torch.randn(6, 8, generator=generator), torch.tensor([8] * 5 + [5])
    truth = torch.arange(60) % 6
    noise = torch.randn(60, 8, generator=generator)
    found = unit_evidence(sign * 2 * biases[truth] + noise + 3, rows[truth], biases, rows)
    assert found.share * sign > 0.5
    whole = rows[truth] == 8
    assert (found.log_likelihood[:, :5].argmax(1) == truth)[whole].double().mean() > 0.8
    nothing = unit_evidence(noise, rows[truth], biases, rows)
    assert nothing.share == 0
    assert not nothing.log_likelihood.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(0, 4), st.integers(0, 10**6))
def test_beliefs_are_probabilities_that_fill_no_position_twice(blocks: int, empty: int, seed: int) -> None:
    slots = blocks + empty
    scores = torch.randn(blocks, slots, generator=torch.Generator().manual_seed(seed)) * 3
    candidates = Candidates(torch.arange(slots).expand(blocks, slots), scores)
    found = beliefs(candidates, slots, rounds=300)
    assert bool((found >= 0).all())
    assert bool((found.sum(1) <= 1 + 1e-4).all())
    assert bool((found.sum(0) <= 1 + 0.05).all())
    placement = best_assignment(candidates, *one_shape(blocks, slots))
    assert len(set(placement.tolist())) == blocks


def one_shape(blocks: int, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(blocks, dtype=torch.int64), torch.zeros(slots, dtype=torch.int64)


def test_knowing_nothing_leaves_the_whole_secret() -> None:
    puzzle, answer = planted(0, 1.0)
    count = len(puzzle.blocks)
    candidates = torch.arange(16).expand(count, 16)
    nothing = Placed(torch.arange(count), candidates, torch.full((count, 16), 1 / count))
    assert placed(nothing, puzzle, answer)["residual_bits"] == pytest.approx(count * 7, rel=1e-3)


def test_the_sparse_solver_agrees_with_the_dense_one(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.randn(40, 50, generator=torch.Generator().manual_seed(5))
    candidates = Candidates(torch.arange(50).expand(40, 50), scores)
    dense = best_assignment(candidates, *one_shape(40, 50))
    monkeypatch.setattr("scatterproof.attacks.fingerprint.assignment.DENSE", 0)
    assert torch.equal(best_assignment(candidates, *one_shape(40, 50)), dense)
    few = Candidates(torch.zeros(40, 1, dtype=torch.int64), scores[:, :1])
    assert len(set(best_assignment(few, *one_shape(40, 50)).tolist())) == 40, (
        "blocks that want one place still get one each"
    )


def test_what_was_found_survives_its_file(tmp_path: Path) -> None:
    puzzle, _ = planted(0, 1.0)
    copy = Copy({"3.weight": torch.ones(2, 3)}, small.WIDE)
    same = reached(puzzle)
    steps = [Snapshot(0.1, same), Snapshot(0.2, copy), Snapshot(0.3, same)]
    save_found(tmp_path / "found.safetensors", {"layer-1-100-none/fingerprint": steps})
    first, second, _ = load_found(tmp_path / "found.safetensors")["layer-1-100-none/fingerprint"]
    assert [first.minutes, second.minutes] == [0.1, 0.2]
    assert isinstance(first.reached, Placed)
    assert isinstance(second.reached, Copy)
    assert torch.equal(first.reached.placement, reached(puzzle).placement)
    assert torch.equal(first.reached.beliefs, reached(puzzle).beliefs)
    assert torch.equal(second.reached.tensors["3.weight"], copy.tensors["3.weight"])
    assert second.reached.config == small.WIDE
