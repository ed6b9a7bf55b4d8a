"""The best predicted items under a fixed quota of head items: no learning, and hard to beat"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engine.contracts import Budget, Dataset, Items, Recorder, StateView, World
from engine.learn.ranking import RankingPolicy
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

LEARNS = False


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `balanced`."""

    heads: int | None = option(None, "head items in each slate; none means half of the slate", low=0, high=1000)


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
    if config.heads is not None and config.heads > world.slate:
        raise BadInput(f"method.heads = {config.heads} is not legal: it must be 0 to world.slate = {world.slate}")
    return load_policy({"slate": world.slate, "repeats": world.repeats}, states, world.items, config)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> RankingPolicy:
    """The policy whose `state_dict()` gave `state`."""
    heads = state["slate"] // 2 if config.heads is None else config.heads
    return RankingPolicy(lambda obs: states.predict(states(obs)), items, state["slate"], state["repeats"], heads, {})
