"""The environment keeps both libraries' contracts and the search's count; an interrupted PPO repeats every bit."""

import warnings
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium.utils.env_checker as gymnasium_checker
import numpy as np
import pytest
import stable_baselines3.common.env_checker as baselines_checker
import torch
from pydantic import ValidationError

from scatterproof.attacks.search import base
from scatterproof.attacks.search.base import Progress, scorer_of
from scatterproof.attacks.search.exchange_env import ExchangeEnv, Frontier, Walks
from scatterproof.attacks.search.reinforce import Reinforce
from scatterproof.attacks.search.space import PlacementSpace
from scatterproof.config.study import StudyError, parse_study
from scatterproof.evaluation.evaluator import PlacementEvaluator
from scatterproof.puzzle import Puzzle
from scatterproof.running.seeds import torch_generator
from searching import MACHINE, SearchResult, checkpoint_of, searched, with_settings, without_times
from small import dataset, network, puzzle, vgg

ATTACK = Reinforce(steps=16, walks=2, episode=6, minibatch=8, epochs=2, hidden=[8])
BUDGET = 50  # the start, three rollouts, and one step of a fourth


@cache
def made(share: float = 1.0) -> tuple[Puzzle, PlacementEvaluator]:
    """64 x 392 in blocks of 16: the last of 25 columns has edge blocks."""
    config = vgg()
    found, _ = puzzle(network(config), config, dataset(), images=12, knows="labels", share=share)
    return found, scorer_of(found, MACHINE)


def search_on(share: float = 1.0, budget: int = 1000) -> Progress:
    found, evaluator = made(share)
    return Progress(evaluator, PlacementSpace(found, MACHINE.device), torch_generator("test"), "loss", budget)


def env_on(search: Progress, episode: int = 10, restart: Any = "best") -> ExchangeEnv:
    filling = search.space.random(1, search.generator)[0]
    return ExchangeEnv(search, Frontier.at(filling, float(search.score(filling[None])[0])), episode, restart)


def attacked(attack: Reinforce = ATTACK, work: Path | None = None, share: float = 1.0) -> SearchResult:
    found, evaluator = made(share)
    return searched(attack, found, BUDGET, work=work, scorer=evaluator)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_both_checkers_pass(share: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baselines_checker.check_env(env_on(search_on(share)))
        warnings.filterwarnings("ignore", message=".*not.*registered|.*render|.*spec")
        gymnasium_checker.check_env(env_on(search_on(share)), skip_render_check=True)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_rewards_add_up_and_every_step_costs_one(share: float) -> None:
    search = search_on(share)
    env = env_on(search, episode=40)
    env.action_space.seed(0)
    env.reset()
    shapes, began, rewards, refused = made(share)[0].layout.shape_classes(), env.fitness, 0.0, 0
    for step in range(1, 41):
        action = env.action_space.sample()
        here = int((torch.from_numpy(env.number_at) == action[0]).nonzero())
        before = env.number_at.copy()
        seen, reward, ended, cut, _ = env.step(action)
        rewards += reward
        refused += bool((before == env.number_at).all())
        lawful = shapes[here] == shapes[action[1]]
        assert env.number_at[action[1]] == (action[0] if lawful else before[action[1]])
        assert env.observation_space.contains(seen) and not ended and cut == (step == 40)
        assert search.evaluations == 1 + step
    assert refused > 0
    filling = torch.from_numpy(env.number_at)
    scratch = search.fitness_of(search.evaluator.score(search.space.placements(filling[None])))
    assert began + rewards == pytest.approx(env.fitness)
    assert env.fitness == pytest.approx(float(scratch[0]), abs=1e-5)


def test_the_observation_is_each_blocks_row_and_column() -> None:
    search = search_on(0.4)
    env = env_on(search)
    placement = search.space.placements(torch.from_numpy(env.number_at))
    seen = env.observation.reshape(-1, 2)
    assert np.allclose((seen[:, 0] + 1) * 3 / 2, placement // 25)
    assert np.allclose((seen[:, 1] + 1) * 24 / 2, placement % 25, atol=1e-5)


@pytest.mark.parametrize("restart", ["best", "start"])
def test_an_episode_restarts_where_it_should(restart: str) -> None:
    search = search_on()
    env = env_on(search, restart=restart)
    start = env.number_at
    better = search.space.random(4, search.generator)
    env.arrive(better[0].numpy(), env.fitness - 1)
    env.arrive(better[1].numpy(), env.fitness + 2)
    env.arrive(better[2].numpy(), env.fitness - 1)
    env.reset()
    assert np.array_equal(env.number_at, start if restart == "start" else better[1].numpy())
    env.reset(options={"filling": better[3], "fitness": -1.0})
    assert np.array_equal(env.number_at, better[3].numpy()) and env.fitness == -1
    env.reset(seed=3)
    assert np.array_equal(env.number_at, start)


def test_walks_side_by_side_step_as_one_does_and_share_the_last_evaluation() -> None:
    search, alone = search_on(budget=8), search_on()
    envs, one = [env_on(search) for _ in range(3)], env_on(alone)
    walks = Walks(envs, search)
    walks.reset()
    envs[0].begin(**one.state)
    action = np.array([5, 7])
    seen, rewards, _, _ = walks.step(np.stack([action] * 3))
    expected, reward, *_ = one.step(action)
    assert np.array_equal(seen[0], expected) and rewards[0] == pytest.approx(reward, abs=1e-5)
    assert search.evaluations == 6
    walks.step(np.stack([action + 1] * 3))
    assert search.evaluations == search.budget
    before = envs[2].number_at
    envs[2].step(action)
    assert search.evaluations == search.budget and np.array_equal(envs[2].number_at, before)


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_budget_is_kept_and_global_randomness_untouched(share: float) -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = float(torch.rand(())), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    result = attacked(share=share)
    assert (float(torch.rand(())), np.random.rand()) == expected  # noqa: NPY002
    assert [row["evaluations"] for row in result.history] == [1, 17, 33, 49, BUDGET]


@pytest.mark.parametrize("restart", ["best", "start"])
@pytest.mark.parametrize("generation", [1, 2, 4])
def test_an_interrupted_run_repeats_every_bit(
    generation: int, restart: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attack = with_settings(ATTACK, restart=restart)
    whole = attacked(attack)
    monkeypatch.setattr(base, "CHECKPOINT_SECONDS", 0)
    go_on = Reinforce.step

    def killed(self: Reinforce, search: Progress) -> None:
        if search.generation == generation:
            raise KeyboardInterrupt
        go_on(self, search)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reinforce, "step", killed)
        attacked(attack, tmp_path / "killed")
    resumed = attacked(attack, tmp_path / "killed")
    assert torch.equal(resumed.placements, whole.placements)
    assert without_times(resumed.rows) == without_times(whole.rows)
    assert without_times(resumed.history) == without_times(whole.history)[generation:]
    assert final_state(attack, tmp_path / "killed") == final_state_of(attack, tmp_path / "whole")


def final_state_of(attack: Reinforce, work: Path) -> list[bytes]:
    attacked(attack, work)
    return final_state(attack, work)


def final_state(attack: Reinforce, work: Path) -> list[bytes]:
    """The learned weights, bit for bit."""
    state = torch.load(checkpoint_of(attack, made()[0], BUDGET, work), weights_only=True)
    assert state["evaluations"] == BUDGET
    return [tensor.numpy().tobytes() for tensor in state["state"]["policy"].values()]


def test_it_begins_anew_where_nothing_better_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = with_settings(ATTACK, patience=1)
    monkeypatch.setattr(ExchangeEnv, "after", lambda self, action: self.number_at)  # no walk moves
    result = attacked(attack)
    assert any(later["evaluations"] - row["evaluations"] == 1 for row, later in pairwise(result.history))


def test_a_policy_learns_unless_its_rate_is_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHECKPOINT_SECONDS", 0)
    states = [final_state_of(attack, tmp_path) for attack in (ATTACK, with_settings(ATTACK, learning_rate=0.0))]
    assert len(states[0]) == len(states[1]) and states[0] != states[1]


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"steps": 0}, "steps: Input should be greater than or equal to 2, got 0"),
        ({"walks": 3}, "steps 256: expected a multiple of walks 3 and minibatch 128"),
        ({"minibatch": 100}, "steps 256: expected a multiple of walks 16 and minibatch 100"),
        ({"minibatch": 1}, "minibatch: Input should be greater than or equal to 2, got 1"),
        ({"episode": 0}, "episode: Input should be greater than or equal to 1, got 0"),
        ({"epochs": 0}, "epochs: Input should be greater than or equal to 1, got 0"),
        ({"patience": 0}, "patience: Input should be greater than or equal to 1, got 0"),
        ({"hidden": [64, 0]}, "hidden.1: Input should be greater than or equal to 1, got 0"),
        ({"restart": "never"}, "restart: Input should be 'best' or 'start', got 'never'"),
        ({"discount": 1.5}, "discount: Input should be less than or equal to 1, got 1.5"),
        ({"learning_rate": -1.0}, "learning_rate: Input should be greater than or equal to 0, got -1.0"),
        ({"entropy": float("nan")}, "entropy: Input should be a finite number, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError):
        Reinforce(**keys)
    with pytest.raises(StudyError) as error:
        parse_study({"study": "x", "attacks": {"reinforce": keys}}, "x.yaml")
    assert str(error.value) == f"x.yaml: attacks.reinforce.{line}"
