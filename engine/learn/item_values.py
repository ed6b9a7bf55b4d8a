"""Q(s, a) of every item of the catalogue: the critic of the discrete off-policy methods."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Items, StateView
from engine.learn.scorer import Scorer


class ItemValues(nn.Module):
    """Q(s, a) = σ(scorer(s, a)) + ⟨g(s), e_a⟩ + c_a + V(s), items ordered heads first.

    The first term is a click's probability and starts at stage I's prediction; g and c, which hold what an item brings
    beyond its click, start at 0 (c at `extra`, what is known of it), V near 0. An untrained network thus ranks items as
    predicted clicks (plus `extra`) do; all parts are trained.
    """

    def __init__(
        self, states: StateView, items: Items, inputs: int, hidden: int, extra: Tensor | None, generator: torch.Generator
    ) -> None:
        super().__init__()
        width = states.items.shape[1]
        self.scorer = Scorer(states, items, inputs, hidden, generator)
        order = self.scorer.order
        with torch.no_grad():
            self.scorer.bias.copy_(states.predict(torch.zeros_like(states.items[:1]))[0, order])
        self.beyond = nets.mlp((inputs, hidden, width), generator, activation=nn.Tanh, last_gain=0.0)
        self.lift = nn.Parameter(torch.zeros_like(self.scorer.bias) if extra is None else extra[order].clone())
        self.value = nets.mlp((inputs, hidden, 1), generator, activation=nn.Tanh, last_gain=0.1)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        """(n,I) for inputs (n,F) and states (n,D)."""
        directions = F.normalize(self.scorer.vectors, dim=1)
        logits = torch.addmm(self.scorer.bias, self.scorer.query(inputs, state), directions.T * self.scorer.log_scale.exp())
        more = torch.addmm(self.lift, self.beyond(inputs), directions.T)
        return logits.sigmoid() + more + self.value(inputs)

    def at(self, inputs: Tensor, state: Tensor, place: Tensor) -> Tensor:
        """(n,K) the same for the items in columns `place` (n,K) alone."""
        directions = F.normalize(self.scorer.vectors[place], dim=2)
        queries = torch.stack([self.scorer.query(inputs, state) * self.scorer.log_scale.exp(), self.beyond(inputs)], 2)
        logits, more = (directions @ queries).unbind(2)
        return torch.sigmoid(logits + self.scorer.bias[place]) + more + self.lift[place] + self.value(inputs)

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """As the scorer's: what belongs to single items moves faster, for each is touched by few samples."""
        rest = [*self.beyond.parameters(), *self.value.parameters()]
        return [
            *self.scorer.parameter_groups(learning_rate),
            {"params": rest, "lr": learning_rate},
            {"params": [self.lift], "lr": 2 * learning_rate},
        ]
