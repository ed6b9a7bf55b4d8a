"""True click probabilities, the best of the balanced quotas, one step ahead: a strong upper reference, no proven limit"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Budget, Dataset, Items, Obs, Recorder, StateView, World
from engine.learn.scorer import feasible_heads, heads_first, places_shown
from engine.learn.slate import top_quota
from engine.options import Config as BaseConfig
from engine.options import option

LEARNS = False


@dataclass(frozen=True)
class Config(BaseConfig):
    """`method.*` of `oracle`."""

    ad_bound: float = option(
        0.3, "quotas whose AD reaches this are not considered", low=0, high=2, source="world.ad_bound's default"
    )


class OraclePolicy:
    """Evaluation hands it `reveal`; training never does, and without it the oracle refuses to act."""

    def __init__(self, items: Items, slate: int, repeats: bool, ad_bound: float) -> None:
        self.order, self.head_items = heads_first(items), int(items.head.sum())
        self.slate, self.repeats = slate, repeats
        uneven = math.ceil(ad_bound * slate - 1e-9)
        allowed = [h for h in range(slate + 1) if abs(2 * h - slate) < uneven]
        self.quotas = allowed or sorted(range(slate + 1), key=lambda h: abs(2 * h - slate))[:1]
        self._probabilities: Callable[[], Tensor] | None = None

    def reveal(self, probabilities: Callable[[], Tensor]) -> None:
        """Take the evaluation world's click probabilities (B,I)."""
        self._probabilities = probabilities

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K)."""
        if self._probabilities is None:
            raise RuntimeError("the oracle was not shown the truth: it can only be evaluated")
        scores = self._probabilities()[:, self.order]
        shown = places_shown(obs, self.order.argsort(), self.repeats)
        best, best_value = None, None
        for quota in self.quotas:
            heads = feasible_heads(torch.full_like(obs.users, quota), shown, self.head_items, len(self.order), self.slate)
            slate = top_quota(scores, heads, self.slate, self.head_items, shown)
            value = scores.gather(1, slate).sum(1)
            if best is None or best_value is None:
                best, best_value = slate, value
            else:
                better = (value > best_value).unsqueeze(1)
                best, best_value = torch.where(better, slate, best), torch.maximum(value, best_value)
        assert best is not None
        return self.order[best]

    def state_dict(self) -> dict[str, Any]:
        """All that `load_policy` needs."""
        return {"slate": self.slate, "repeats": self.repeats}


def train(
    world: World,
    states: StateView,
    logs: Dataset,
    config: Config,
    budget: Budget,
    recorder: Recorder,
    generator: torch.Generator,
) -> OraclePolicy:
    """Nothing is learnt, and nothing is revealed here."""
    return OraclePolicy(world.items, world.slate, world.repeats, config.ad_bound)


def load_policy(state: Mapping[str, Any], states: StateView, items: Items, config: Config) -> OraclePolicy:
    """The policy whose `state_dict()` gave `state`."""
    return OraclePolicy(items, state["slate"], state["repeats"], config.ad_bound)
