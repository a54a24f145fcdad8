"""Exchanges of two blocks as an environment for reinforcement learning (the API of https://gymnasium.farama.org)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from scatterproof.attacks.search.base import Progress
from scatterproof.evaluation.moves import CurrentPlacement, PlainPlacement

Observation = NDArray[np.float32]
Numbers = NDArray[np.int64]


@dataclass
class Frontier:
    """What walks share: the filling [positions] that they began with, the best that any has reached, their fitness."""

    start: torch.Tensor
    start_fitness: float
    best: torch.Tensor
    best_fitness: float

    @classmethod
    def at(cls, start: torch.Tensor, fitness: float) -> "Frontier":
        return cls(start, fitness, start, fitness)


class ExchangeEnv(gymnasium.Env[Observation, Numbers]):
    """A walk over the placements of a search; each step counts as one evaluation of its budget.

    Observation float32 [2 * held]: the row and the column of each block, scaled to -1..1. What a block does depends on
    its row and column, and whether it is home shows in its own two numbers wherever the others lie; in a filling by
    position the numbers would be names, without an order to learn from. Empty places follow from the rest.

    Action [2]: a block and a place. The block is exchanged with what lies there, another block or nothing. Where that
    is of another shape, or the block itself, nothing happens; it costs its evaluation all the same.

    Reward: the change of the search's fitness. Every `episode` steps the walk is cut off (truncated), and restarts
    from the best placement that the walks have reached (Go-Explore: Ecoffet et al., Nature 590, 2021) or their start.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, search: Progress, frontier: Frontier, episode: int, restart: Literal["best", "start"]) -> None:
        space, layout = search.space, search.evaluator.layout
        self._search, self.frontier = search, frontier
        self._episode, self._restart = episode, restart
        shape_at = torch.empty(space.positions, dtype=torch.int64)
        for shape, part in enumerate(space.classes):
            shape_at[part.positions.cpu()] = shape
        self._shape_at = shape_at.tolist()
        lines = [line.double() for line in layout.rows_and_columns()]
        scaled = [line / line.max().clamp(min=1) * 2 - 1 for line in lines]
        self._scaled_at: Observation = torch.stack(scaled, 1).float().numpy()
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2 * space.held,), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([space.held, space.positions])
        self.begin(frontier.start, frontier.start_fitness)

    def begin(self, filling: torch.Tensor, fitness: float, steps: int = 0) -> None:
        """Go on from a filling [positions] of known fitness, `steps` into an episode."""
        self.number_at: Numbers = filling.cpu().numpy().copy()
        self._place_of: Numbers = self.number_at.argsort()
        self.fitness, self.steps = fitness, steps
        self._at: CurrentPlacement | PlainPlacement | None = None  # made anew: rounding starts afresh

    @property
    def state(self) -> dict[str, Any]:
        """What `begin` takes."""
        return {"filling": torch.from_numpy(self.number_at.copy()), "fitness": self.fitness, "steps": self.steps}

    @property
    def observation(self) -> Observation:
        """The present placement as the class says."""
        return self._scaled_at[self._place_of[: self._search.space.held]].ravel()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode. With a seed it begins at the start, so that it can be repeated; with the options of `begin`,
        there."""
        super().reset(seed=seed)
        if options:
            self.begin(**options)
        elif self._restart == "best" and seed is None:
            self.begin(self.frontier.best, self.frontier.best_fitness)
        else:
            self.begin(self.frontier.start, self.frontier.start_fitness)
        return self.observation, {}

    def step(self, action: Numbers) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Exchange a block with what lies at a place, scored as a delta. At a spent budget nothing happens."""
        if self._search.left <= 0:
            return self.arrive(self.number_at, self.fitness)
        if self._at is None:
            filling = torch.from_numpy(self.number_at).to(self._search.space.device)
            self._at = self._search.evaluator.at(self._search.space.placements(filling))
        move, after = torch.tensor(self._places(action)), self.after(action)
        scores = self._at.score(move[None])
        self._at.apply(move)
        fitness = self._search.offer(scores, torch.from_numpy(after[None]).to(self._search.space.device))
        return self.arrive(after, float(fitness[0]))

    def after(self, action: Numbers) -> Numbers:
        """The filling that an action leads to."""
        here, there = self._places(action)
        after = self.number_at.copy()
        after[here], after[there] = self.number_at[there], self.number_at[here]
        return after

    def arrive(self, after: Numbers, fitness: float) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """What a step returns that has led to a filling of this fitness."""
        changed = (after != self.number_at).nonzero()[0]
        self._place_of[after[changed]] = changed
        reward = fitness - self.fitness
        self.number_at, self.fitness, self.steps = after, fitness, self.steps + 1
        if fitness > self.frontier.best_fitness:
            self.frontier.best, self.frontier.best_fitness = torch.from_numpy(after.copy()), fitness
        return self.observation, reward, False, self.steps >= self._episode, {}

    def _places(self, action: Numbers) -> tuple[int, int]:
        """The places exchanged; twice the same where nothing happens."""
        here, there = int(self._place_of[action[0]]), int(action[1])
        return here, there if self._shape_at[there] == self._shape_at[here] else here


class Walks(DummyVecEnv):
    """Several walks side by side for Stable-Baselines3, each step of all scored as one batch.

    With few images a batch of whole placements is faster than as many deltas, one by one.
    """

    def __init__(self, walks: Sequence[ExchangeEnv], search: Progress) -> None:
        super().__init__([lambda walk=walk: walk for walk in walks])  # type: ignore[misc]
        self._walks, self._search = walks, search

    def step_wait(self) -> VecEnvStepReturn:
        walks = self._walks[: self._search.left]  # the last evaluations may not suffice for all
        after = [walk.after(action) for walk, action in zip(walks, self.actions, strict=False)]
        fitness = self._search.score(torch.from_numpy(np.stack(after)).to(self._search.space.device)).tolist()
        for place, walk in enumerate(walks):
            seen, reward, _, over, info = walk.arrive(after[place], fitness[place])
            self.buf_rews[place], self.buf_dones[place] = reward, over
            self.buf_infos[place] = info | {"TimeLimit.truncated": over}
            if over:
                self.buf_infos[place]["terminal_observation"] = seen
                seen, _ = walk.reset()
            self._save_obs(place, seen)
        return self._obs_from_buf(), self.buf_rews.copy(), self.buf_dones.copy(), list(self.buf_infos)
