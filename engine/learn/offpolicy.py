"""The loop that off-policy methods share: play, remember, take gradient steps from what is remembered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.contracts import Budget, Obs, Policy, Recorder, Sessions, World
from engine.learn.loop import Count, Learns, Training, exploration, until_spent
from engine.learn.replay import Replay
from engine.options import Config, option


@dataclass(frozen=True)
class ReplayConfig(Config):
    """What every method that learns from replay can set; methods add their own fields."""

    users: int = option(128, "users in parallel", low=1, high=65_536)
    batch: int = option(256, "user-steps in one gradient step", low=1, high=1_000_000, source="authors' codes: 64 to 256")
    updates: int = option(16, "gradient steps after each batch of sessions", low=1, high=100_000)
    replay: int = option(2048, "sessions that replay keeps", low=1, high=10_000_000)
    warm_up: int = option(128, "sessions played before the first gradient step", low=0, high=10_000_000)


class Learner(Learns, Protocol):
    """What a method brings. `act` must choose as the method is evaluated; `explore` as it learns."""

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor: ...

    def state_dict(self) -> dict[str, Any]: ...

    def explore(self, obs: Obs, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Slates (B,K) and what replay must remember of the moment (B,…)."""

    def update(self, replay: Replay, generator: torch.Generator) -> Mapping[str, Tensor]:
        """One gradient step; losses and the like as scalars. Must not leave the device for them."""


def learn(
    name: str,
    learner: Learner,
    world: World,
    config: ReplayConfig,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> Policy:
    """Until the budget is spent: `config.users` sessions, then `config.updates` gradient steps. Returns the learner.

    Raises Stopped after keeping a checkpoint when the recorder asks to stop, and Diverged where losses are not finite.
    """
    replay = Replay(config.replay, world.max_len)

    def turn(count: Count, left: int) -> tuple[Sessions, dict[str, float]]:
        sessions = exploration(world, lambda obs: learner.explore(obs, generator), config.users, count, left, generator)
        replay.add(sessions)
        if count["episodes"] < config.warm_up:
            return sessions, {}
        found = [learner.update(replay, generator) for _ in range(config.updates)]
        count["updates"] += len(found)
        return sessions, {key: float(torch.stack([each[key] for each in found]).mean()) for key in found[0]}

    until_spent(name, learner, {"learner": Training(learner), "replay": replay}, turn, world, budget, recorder, generator)
    return learner
