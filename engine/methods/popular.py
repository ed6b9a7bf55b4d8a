"""The most exposed items of the training log, whoever asks"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs, Recorder, StateView, World
from engine.learn.ranking import RankingPolicy
from engine.options import Config as BaseConfig

LEARNS = False


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `popular`: no options."""


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> RankingPolicy:
    """Nothing is learnt."""
    return load_policy({"slate": world.slate, "repeats": world.repeats}, states, world.items, config)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> RankingPolicy:
    """The policy whose `state_dict()` gave `state`."""
    popularity = items.popularity.float()

    def score(obs: Obs) -> Tensor:
        return popularity.expand(obs.users.shape[0], -1)

    return RankingPolicy(score, items, state["slate"], state["repeats"], None, {})
