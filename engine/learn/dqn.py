"""Deep Q-learning (Mnih et al. 2015) with a slowly following target network (Lillicrap et al. 2016), as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def greedy_value(values: Tensor, count: int, blocked: Tensor | None = None) -> Tensor:
    """(n,) the mean of the `count` largest Q(s, ·) (n,A) that are not `blocked` (n,A): for count 1, max_a Q(s, a)."""
    open_values = values if blocked is None else values.masked_fill(blocked, -torch.inf)
    return open_values.max(1).values if count == 1 else open_values.topk(count, dim=1).values.mean(1)


def targets(reward: Tensor, following: Tensor, stays: Tensor, gamma: float) -> Tensor:
    """y = r + γ·V(s′), and y = r where the session ended. reward (n,) or (n,K); following (n,) V(s′); stays bool (n,)."""
    future = gamma * torch.where(stays, following, 0.0)
    return reward + (future if reward.dim() == 1 else future.unsqueeze(1))


def loss(values: Tensor, wanted: Tensor) -> Tensor:
    """Huber's loss, mean over all: half the squared error up to 1, linear beyond (Mnih et al. 2015 clip the error)."""
    return F.smooth_l1_loss(values, wanted)


@torch.no_grad()
def follow(target: nn.Module, source: nn.Module, rate: float) -> None:
    """θ′ ← (1 − rate)·θ′ + rate·θ for every parameter; 1 copies."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)
