"""Policies that rank the catalogue by a fixed rule: what the references are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.contracts import Items, Obs
from engine.learn.moment import Moment
from engine.learn.scorer import feasible_heads, heads_first, heads_left, places_shown
from engine.learn.slate import top, top_quota


class RankingPolicy:
    """Shows the best items by `score(obs)` (B,I), overall, or with `heads` head items where a quota is given."""

    def __init__(
        self, score: Callable[[Obs], Tensor], items: Items, slate: int, repeats: bool, heads: int | None, state: dict[str, Any]
    ) -> None:
        self.score, self.slate, self.repeats, self.heads = score, slate, repeats, heads
        self.order, self.head_items = heads_first(items), int(items.head.sum())
        self.state = {"slate": slate, "repeats": repeats, **state}

    def act(self, obs: Obs, *, generator: torch.Generator | None = None) -> Tensor:
        """int64 (B,K); nothing is drawn."""
        scores = self.score(obs)
        if self.heads is None:
            return top(scores, self.slate, obs.closed(self.repeats))
        shown = places_shown(obs, self.order.argsort(), self.repeats)
        wanted = torch.full_like(obs.users, self.heads)
        heads = feasible_heads(wanted, shown, self.head_items, len(self.order), self.slate)
        return self.order[top_quota(scores[:, self.order], heads, self.slate, self.head_items, shown)]

    @torch.no_grad()
    def rank(self, moment: Moment) -> Tensor:
        """int64 (B,K): the slates of users at steps of their own."""
        scores = self.score(moment.obs)
        if self.heads is None:
            return moment.best(scores, self.slate)
        wanted = torch.full_like(moment.obs.users, self.heads)
        heads = heads_left(wanted, moment.blocked, self.order, self.head_items, self.slate)
        scores = moment.open(scores[:, self.order], self.order)
        return self.order[top_quota(scores, heads, self.slate, self.head_items, None)]

    def state_dict(self) -> dict[str, Any]:
        """All that a method's `load_policy` needs."""
        return self.state
