"""The items with the highest predicted response, nothing else asked"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engine.contracts import Budget, Dataset, Items, Recorder, StateView, World
from engine.learn.ranking import RankingPolicy
from engine.options import Config as BaseConfig

LEARNS = False


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `greedy`: no options."""


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> RankingPolicy:
    """The prediction was fitted in stage I; nothing more is learnt."""
    return load_policy({"slate": world.slate, "repeats": world.repeats}, states, world.items, config)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> RankingPolicy:
    """The policy whose `state_dict()` gave `state`."""
    return RankingPolicy(lambda obs: states.predict(states(obs)), items, state["slate"], state["repeats"], None, {})
