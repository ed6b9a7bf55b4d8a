"""Eq. 6 with one constant weight on popularity, the best of a grid on the train world"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs, Recorder, StateView, World
from engine.learn.ranking import RankingPolicy
from engine.learn.rollout import play
from engine.options import Config as BaseConfig
from engine.options import Stopped, option

LEARNS = False
GRID = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `fixed_weights`."""

    omega_fair: float | None = option(
        None,
        "weight on standardised log-popularity; none: the one of 13 with the best R_cum in the train world",
        low=-100,
        high=100,
    )
    users: int = option(256, "training users that the grid is tried on", low=1, high=100_000)


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> RankingPolicy:
    """Try the grid on the same users under the same luck."""
    best, best_reward = config.omega_fair, -1.0
    if best is None:
        users = torch.randperm(world.users, generator=generator)[: config.users]
        for place, omega in enumerate(GRID):
            if recorder.stop_requested():
                raise Stopped("stopped while trying weights")
            recorder.progress("trying weights", place, len(GRID))
            policy = _policy(omega, states, world.items, world.slate, world.repeats)

            def act(obs: Obs, policy: RankingPolicy = policy) -> tuple[Tensor, dict[str, Tensor]]:
                return policy.act(obs), {}

            reward = play(world, users, 0, act).rewards.sum(0).mean().item()
            recorder.scalars(place, {"omega_fair": omega, "grid_r_cum": reward})
            if reward > best_reward:
                best, best_reward = omega, reward
        recorder.progress("trying weights", 1, 1)
    assert best is not None
    return _policy(best, states, world.items, world.slate, world.repeats)


def _policy(omega: float, states: StateView, items: Items, slate: int, repeats: bool) -> RankingPolicy:
    level = items.log_popularity()
    # Eq. 6 with the predicted response for ω_acc·Sim.
    return RankingPolicy(
        lambda obs: states.predict(states(obs)) - omega * level, items, slate, repeats, None, {"omega_fair": omega}
    )


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> RankingPolicy:
    """The policy whose `state_dict()` gave `state`."""
    return _policy(state["omega_fair"], states, items, state["slate"], state["repeats"])
