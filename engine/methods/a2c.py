"""Advantage actor–critic over slates: the general RL baseline, with no word on fairness

Mnih et al. 2016. The actor scores every item; a slate is drawn by Plackett–Luce without replacement and its *sequential*
log-probability is used. One gradient step per batch of finished sessions; nothing is bootstrapped at a user's exit.

Differences from the source: 1. whole sessions of many users are one batch instead of five steps of sixteen. 2. Adam instead
of RMSProp. 3. the actor starts at stage I's predicted clicks, as all learned methods here do. 4. the entropy bonus is on the
first item of the slate. 5. a draw answers for its own click and what follows the slate, not for the slate's other clicks
(`credit=slate` is the source's one advantage for all).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Recorder, Sessions, StateView, World
from engine.learn.actor_critic import ActorCriticConfig, ActorCriticPolicy, learn, load
from engine.options import option

LEARNS = True
SEARCH = {"learning_rate": (1e-4, 3e-4, 1e-3), "entropy": (0.01, 0.1, 0.5), "gamma": (0.5, 0.8, 0.9)}  # of `engine tune`


@dataclass(frozen=True)
class Config(ActorCriticConfig):
    """`method.*` of `a2c`."""

    learning_rate: float = option(1e-4, "Adam's step size of actor and critic", above=0, high=1, source="tuned")
    gamma: float = option(0.8, "discount per step", low=0, high=1, source="tuned")
    entropy: float = option(0.5, "weight of the entropy bonus", low=0, high=10, source="tuned; EasyRL4Rec 0–0.01")
    credit: str = option(
        "draw",
        "what a draw answers for: its own click and what follows, or the whole slate's clicks and what follows",
        choices=("draw", "slate"),
        source="docs/methods.md",
    )


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
    reward = _clicks if config.credit == "draw" else None
    return learn("a2c", world, states, config, budget, recorder, generator, reward=reward)


def _clicks(sessions: Sessions) -> Tensor:
    return sessions.clicks
