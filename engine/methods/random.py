"""Uniformly random items: the floor of every table"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine import luck
from engine.contracts import Budget, Dataset, Items, Obs, Recorder, StateView, World
from engine.learn.slate import top
from engine.options import Config as BaseConfig

LEARNS = False


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `random`: no options."""


class RandomPolicy:
    """Draws by counting, so that a user's session does not depend on who else is in the batch."""

    def __init__(self, seed: int, items: int, slate: int, repeats: bool) -> None:
        self.seed, self.items, self.slate, self.repeats = seed, items, slate, repeats

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        catalogue = torch.arange(self.items, device=obs.users.device).expand(len(obs), -1)
        draw = luck.uniform(luck.key(self.seed, obs.users), obs.step, catalogue)
        return top(draw, self.slate, obs.closed(self.repeats))

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return dict(vars(self))


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> RandomPolicy:
    """Nothing is learnt; the seed is drawn."""
    seed = int(torch.randint(1 << 31, (1,), generator=generator))
    return RandomPolicy(seed, len(world.items), world.slate, world.repeats)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> RandomPolicy:
    """The policy whose `state_dict()` gave `state`."""
    return RandomPolicy(**state)
