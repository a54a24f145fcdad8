"""Exchanges of two blocks as an environment for reinforcement learning (the API of https://gymnasium.farama.org)."""

from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from scatterproof.attacks.base import Search
from scatterproof.blocks import invert
from scatterproof.moves import moved

Observation = NDArray[np.float32]
Action = NDArray[np.int64]


class ExchangeEnv(gymnasium.Env[Observation, Action]):
    """A walk over the placements of a search; each step counts as one evaluation of its budget.

    Observation float32 [2 * held]: the row and the column of each block, scaled to -1..1. What a block does depends on
    its row and column, and that it is home shows in its own two numbers wherever the others lie; a filling by
    position, whose numbers are names without an order, would show it in none. Empty places follow from the rest.

    Action [2]: a block and a place. The block is exchanged with what lies there, another block or nothing. Where that
    is of another shape, or the block itself, nothing happens; it costs its evaluation all the same.

    Reward: the change of the search's fitness. Every `episode` steps the walk is cut off (truncated), and restarts
    from the best placement that the search has found (Go-Explore: Ecoffet et al., Nature 590, 2021) or from `start`.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self, search: Search, start: torch.Tensor, start_fitness: float, episode: int, restart: Literal["best", "start"]
    ) -> None:
        """start: the filling [positions] that the run began with, and its fitness."""
        space = search.space
        self._search, self._start, self._start_fitness = search, start, start_fitness
        self._episode, self._restart = episode, restart
        layout = search.evaluator.layout
        self._shape_at = layout.shape_classes().numpy()
        lines = [line.double() for line in layout.rows_and_columns()]
        scaled = [line / line.max().clamp(min=1) * 2 - 1 for line in lines]
        self._scaled_at: Observation = torch.stack(scaled, 1).float().numpy()
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2 * space.held,), np.float32)
        self.action_space = gymnasium.spaces.MultiDiscrete([space.held, space.positions])
        self.begin(start, start_fitness)

    def begin(self, filling: torch.Tensor, fitness: float, steps: int = 0) -> None:
        """Go on from a filling [positions] of known fitness, `steps` into an episode; rounding starts afresh."""
        self.filling, self.fitness, self.steps = filling.to(self._search.space.device), fitness, steps
        self._at = self._search.evaluator.at(self._search.space.placements(self.filling))
        self._number_at: Action = self.filling.cpu().numpy().copy()
        self._place_of: Action = invert(self.filling, len(self.filling)).cpu().numpy().copy()

    @property
    def observation(self) -> Observation:
        """The present placement as the class says."""
        return self._scaled_at[self._place_of[: self._search.space.held]].ravel()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """A new episode. With a seed it begins at `start`, so that episodes repeat; with the options `filling`
        [positions] and `fitness` there."""
        super().reset(seed=seed)
        best = self._search.best
        if options:
            self.begin(options["filling"], options["fitness"])
        elif self._restart == "best" and seed is None and best is not None:
            self.begin(best, self._search.best_fitness)
        else:
            self.begin(self._start, self._start_fitness)
        return self.observation, {}

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Exchange a block with what lies at a place."""
        number, there = int(action[0]), int(action[1])
        here = int(self._place_of[number])
        reward = 0.0
        if self._search.left > 0:  # several walks may share the last evaluations
            if here == there or self._shape_at[here] != self._shape_at[there]:
                self._search.evaluations += 1
            else:
                reward = self._exchange(here, there)
        self.steps += 1
        return self.observation, reward, False, self.steps >= self._episode, {}

    def _exchange(self, here: int, there: int) -> float:
        move = torch.tensor([[here, there]], device=self.filling.device)
        filling = moved(self.filling, move)
        fitness = float(self._search.offer(self._at.score(move), filling)[0])
        self._at.apply(move[0])
        first, second = self._number_at[here], self._number_at[there]
        self._number_at[here], self._number_at[there] = second, first
        self._place_of[first], self._place_of[second] = there, here
        change = fitness - self.fitness
        self.filling, self.fitness = filling[0], fitness
        return change
