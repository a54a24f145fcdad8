"""Reinforcement learning: a policy that exchanges blocks, learned by PPO while it searches.

Proximal policy optimisation (Schulman et al., https://arxiv.org/abs/1707.06347) as Stable-Baselines3 has it (Raffin et
al., JMLR 22(268), 2021), on ExchangeEnv. The policy is learned on the puzzle itself, from nothing, and each of its
steps is an evaluation of the attack's budget.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch

from scatterproof.attacks.search.base import Progress, SearchAttack
from scatterproof.config.settings.search import ReinforceSettings
from scatterproof.errors import MissingExtraError

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from scatterproof.attacks.search.exchange_env import ExchangeEnv


class Reinforce(SearchAttack[ReinforceSettings]):
    """A generation is a rollout of `steps` exchanges, shared by `walks` walks, and `epochs` passes of PPO over it.

    episode, restart: as ExchangeEnv has them; minibatch: steps of the rollout per update; entropy: the bonus for
    trying; discount: what the next reward is worth now; hidden: sizes of the policy's and the value's layers.
    After `patience` generations that reached nothing better, all begins anew, from another random placement or the
    start given: at a local optimum the policy learns to do nothing, and a new policy from there gets no further.
    With a learning rate of 0 the policy stays as it began, nearly uniform: the control of whether learning helps.
    """

    name = "reinforce"
    Settings = ReinforceSettings

    def start(self, search: Progress) -> None:
        try:
            from scatterproof.attacks.search.exchange_env import Frontier
        except ModuleNotFoundError as error:
            raise MissingExtraError("the attack reinforce", "search", error) from None
        filling = search.first_filling()
        fitness = float(search.score(filling[None])[0])
        walks = [{"filling": filling, "fitness": fitness, "steps": 0} for _ in range(self.settings.walks)]
        search.state = {"frontier": vars(Frontier.at(filling, fitness)), "walks": walks, "stale": 0}

    def step(self, search: Progress) -> None:
        """One rollout and update. All is made anew from the state, so that an interruption changes nothing."""
        stale, before = search.state["stale"], search.state["frontier"]["best_fitness"]
        if stale >= self.settings.patience:
            return self.start(search)
        with _own_random(search):
            model, walks = self._model(search)
            model.learn(self.settings.steps, callback=lambda scope, _: search.left > 0, reset_num_timesteps=False)
        frontier = walks[0].frontier
        search.state = {
            "frontier": vars(frontier),
            "walks": [env.state for env in walks],
            "stale": 0 if frontier.best_fitness > before else stale + 1,
            "policy": dict(model.policy.state_dict()),
            "optimizer": model.policy.optimizer.state_dict(),
        }
        return None

    def _model(self, search: Progress) -> tuple["PPO", list["ExchangeEnv"]]:
        """PPO and its walks where the state says that they are."""
        from stable_baselines3 import PPO
        from stable_baselines3.common.logger import Logger

        from scatterproof.attacks.search.exchange_env import ExchangeEnv, Frontier, Walks

        state = search.state
        frontier = Frontier(**state["frontier"])
        walks = [
            ExchangeEnv(search, frontier, self.settings.episode, self.settings.restart)
            for _ in range(self.settings.walks)
        ]
        for env, walk in zip(walks, state["walks"], strict=True):
            env.begin(**walk)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*primarily intended to run on the CPU")
            model = PPO(
                "MlpPolicy",
                Walks(walks, search),
                learning_rate=self.settings.learning_rate,
                n_steps=self.settings.steps // self.settings.walks,
                batch_size=self.settings.minibatch,
                n_epochs=self.settings.epochs,
                gamma=self.settings.discount,
                ent_coef=self.settings.entropy,
                policy_kwargs={"net_arch": list(self.settings.hidden)},
                device=search.space.device,
            )
        model.set_logger(Logger(None, []))  # its default makes a folder
        if "policy" in state:
            model.policy.load_state_dict(state["policy"])
            model.policy.optimizer.load_state_dict(state["optimizer"])
        model._last_obs = np.stack([env.observation for env in walks])
        model._last_episode_starts = np.array([env.steps == 0 for env in walks])
        return model, walks


@contextmanager
def _own_random(search: Progress) -> Iterator[None]:
    """Stable-Baselines3 draws from the global generators: seed them from the search's, and put them back after."""
    seed = int(torch.randint(2**31, (), generator=search.generator))
    before = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng([search.space.device] if search.space.device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(before)  # noqa: NPY002
