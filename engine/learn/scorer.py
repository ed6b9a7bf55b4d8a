"""A network that scores every item of the catalogue for a state; the actor of all policies that draw slates."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Items, Obs, StateView


class Scorer(nn.Module):
    """Logits κ·cos(f(ŝ), e_i) + b_i over the catalogue, ordered heads first (`order`).

    f(ŝ) = ŝ/|ŝ| + residual(inputs), the residual starting at 0; the item vectors e_i, the intercepts b_i and κ start from
    stage I, so that an untrained scorer ranks items about as predicted clicks do, and all are trained.
    """

    order: Tensor
    position: Tensor
    level: Tensor

    def __init__(self, states: StateView, items: Items, inputs: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        width = states.items.shape[1]
        order = heads_first(items)
        self.head_items = int(items.head.sum())
        self.register_buffer("order", order)
        self.register_buffer("position", order.argsort())
        self.register_buffer("level", items.log_popularity()[order])
        self.vectors = nn.Parameter(states.items[order].clone())
        self.bias = nn.Parameter((states.bias + states.curve)[order].clone())
        self.log_scale = nn.Parameter(start_scale(states).log().clone())
        self.residual = nets.mlp((inputs, hidden, width), generator, activation=nn.Tanh, last_gain=0.0)

    def query(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(n,D) the direction of f(ŝ)."""
        return F.normalize(F.normalize(state, dim=1) + self.residual(inputs), dim=1)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(n,I) logits for inputs (n,F) and states (n,D)."""
        query = self.query(inputs, state)
        return torch.addmm(self.bias, query, F.normalize(self.vectors, dim=1).T * self.log_scale.exp())

    def weighted(self, inputs: Tensor, state: Tensor, weight: Tensor, against: Tensor) -> Tensor:
        """(n,I) weight·logits − against·level, for weight and against (n,): one product, and no other pass over (n,I)."""
        query = self.query(inputs, state) * (weight * self.log_scale.exp()).unsqueeze(1)
        rows = torch.cat([query, weight.unsqueeze(1), -against.unsqueeze(1)], 1)
        columns = torch.cat([F.normalize(self.vectors, dim=1), self.bias.unsqueeze(1), self.level.unsqueeze(1)], 1)
        return rows @ columns.T

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """See `_groups`."""
        return _groups(self, learning_rate)


class PredictingScorer(nn.Module):
    """As `Scorer`, but logits are κ times stage I's own prediction of a click, plus ⟨residual(inputs), v_i⟩ + b_i.

    Where item vectors' lengths tell something (raw states), this starts at better slates than cosines do. The residual and
    the b_i start at 0; κ, the item vectors v_i, the b_i and the residual are trained.
    """

    order: Tensor
    position: Tensor

    def __init__(
        self, states: StateView, items: Items, inputs: int, hidden: int, generator: torch.Generator, sharpness: float
    ) -> None:
        super().__init__()
        order = heads_first(items)
        self.register_buffer("order", order)
        self.register_buffer("position", order.argsort())
        self.predict = states.predict
        self.vectors = nn.Parameter(states.items[order] / states.items.norm(dim=1).mean().clamp_min(1e-6))
        self.bias = nn.Parameter(torch.zeros_like(states.bias))
        self.log_scale = nn.Parameter(torch.tensor(sharpness, device=order.device).log())
        self.residual = nets.mlp((inputs, hidden, states.items.shape[1]), generator, activation=nn.Tanh, last_gain=0.0)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(n,I) logits for inputs (n,F) and states (n,D)."""
        learnt = torch.addmm(self.bias, self.residual(inputs), self.vectors.T)
        return torch.add(learnt, self.predict(state)[:, self.order] * self.log_scale.exp())

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """See `_groups`."""
        return _groups(self, learning_rate)


def _groups(scorer: Scorer | PredictingScorer, learning_rate: float) -> list[dict[str, Any]]:
    """Item intercepts move 20 times, item vectors twice as fast as the rest: each is touched by few samples."""
    rest = [p for name, p in scorer.named_parameters() if name not in ("vectors", "bias")]
    return [
        {"params": rest, "lr": learning_rate},
        {"params": [scorer.vectors], "lr": 2 * learning_rate},
        {"params": [scorer.bias], "lr": 20 * learning_rate},
    ]


def start_scale(states: StateView) -> Tensor:
    """() stage I's κ: what a cosine of a typical state and item is worth in logits of a click."""
    typical = getattr(states, "scale", torch.ones(())) * states.centre.pow(2).sum().add(states.spread.pow(2).sum()).sqrt()
    return (typical * states.items.norm(dim=1).mean()).clamp(0.5, 20.0)


def heads_first(items: Items) -> Tensor:
    """int64 (I,): item ids, the head items first, otherwise by id."""
    return (~items.head).int().argsort(stable=True)


def places_shown(obs: Obs, position: Tensor, repeats: bool) -> Tensor | None:
    """int64 (B,n): columns, in the order that `position` (I,) gives the catalogue, of what may not be shown; None where that
    is nothing."""
    closed = obs.closed(repeats)
    return None if closed is None else position[closed]


def feasible_heads(heads: Tensor, shown: Tensor | None, head_items: int, items: int, slate: int) -> Tensor:
    """(B,) the head counts nearest to `heads` (B,) that what is left of each group allows; shown (B,n) as columns."""
    gone = torch.zeros_like(heads) if shown is None else (shown < head_items).sum(1)
    total = 0 if shown is None else shown.shape[1]
    return _feasible(heads, head_items - gone, items - head_items - total + gone, slate)


def heads_left(heads: Tensor, blocked: Tensor | None, order: Tensor, head_items: int, slate: int) -> Tensor:
    """`feasible_heads` where what may not be shown is told by items: bool (B,I), or None where that is nothing."""
    if blocked is None:
        return feasible_heads(heads, None, head_items, len(order), slate)
    open_ = ~blocked[:, order]
    return _feasible(heads, open_[:, :head_items].sum(1), open_[:, head_items:].sum(1), slate)


def _feasible(heads: Tensor, open_heads: Tensor, open_tails: Tensor, slate: int) -> Tensor:
    return torch.minimum(torch.maximum(heads, slate - open_tails), open_heads.clamp_max(slate))
