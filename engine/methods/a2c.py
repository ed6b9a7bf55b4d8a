"""Advantage actor–critic over slates: the general RL baseline, with no word on fairness

Mnih et al. 2016. The actor scores every item; a slate is drawn by Plackett–Luce without replacement and its *sequential*
log-probability is used. One gradient step per batch of finished sessions; nothing is bootstrapped at a user's exit.

Differences from the source: 1. whole sessions of many users are one batch instead of five steps of sixteen. 2. Adam instead
of RMSProp. 3. the actor starts at stage I's predicted clicks, as all learned methods here do. 4. the entropy bonus is on the
first item of the slate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from engine.contracts import Budget, Dataset, Items, Recorder, StateView, World
from engine.learn.actor_critic import ActorCriticConfig, ActorCriticPolicy, learn, load

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "entropy": (0.0, 0.01, 0.1), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(ActorCriticConfig):
    """`method.*` of `a2c`."""


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> ActorCriticPolicy:
    """The policy whose `state_dict()` gave `state`."""
    return load(state, states, items, config)


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> ActorCriticPolicy:
    """Play in the train world, for its own reward."""
    return learn("a2c", world, states, config, budget, recorder, generator)
