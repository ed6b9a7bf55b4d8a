"""Discrete batch-constrained Q-learning as pure functions: what is allowed, and the three losses.

Fujimoto et al. 2019, "Benchmarking Batch Deep Reinforcement Learning Algorithms", Eqs. 12 and 13. An action is allowed where
the imitation G gives it at least `threshold` of what it gives to the likeliest one; Q is maximised over those alone, so that
values of actions that the log never shows cannot leak into the targets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Transitions:
    """Logged moments. inputs, following (n,…): what is known before and after; action int64 (n,), or slates (n,K), or vectors
    (n,A); returns (n,): the reward, or the discounted sum of several; discount (n,): what the value of `following` counts, 0
    where nothing follows."""

    inputs: Tensor
    action: Tensor
    returns: Tensor
    following: Tensor
    discount: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def select(self, rows: Tensor) -> Transitions:
        """Some of them."""
        return Transitions(*(part[rows] for part in vars(self).values()))


def ratio(logits: Tensor, blocked: Tensor | None = None) -> Tensor:
    """(n,A) log of G(a) / max G, the maximum over what is not blocked (bool (n,A)); −∞ where blocked."""
    if blocked is not None:
        logits = logits.masked_fill(blocked, -torch.inf)
    return logits - logits.amax(1, keepdim=True)


def constrained(q: Tensor, logits: Tensor, threshold: float, blocked: Tensor | None = None) -> Tensor:
    """(n,A) scores to rank actions by: Q where allowed, below all of those the others by G, −∞ where blocked."""
    relative = ratio(logits, blocked)
    allowed = relative >= (math.log(threshold) if threshold > 0 else -torch.inf)
    scores = torch.where(allowed, q, q.amin(1, keepdim=True) - 1 + relative)
    return scores if blocked is None else scores.masked_fill(blocked, -torch.inf)


@torch.no_grad()
def targets(batch: Transitions, q: Tensor, logits: Tensor, target_q: Tensor, threshold: float) -> Tensor:
    """(n,) y = returns + discount · Q′(s′, argmax of the allowed of Q(s′, ·)): double Q. All (n,A) are of `following`."""
    action = constrained(q, logits, threshold).argmax(1, keepdim=True)
    return batch.returns + batch.discount * target_q.gather(1, action)[:, 0]


def losses(q: Tensor, logits: Tensor, action: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Smooth L1 of Q, negative log-likelihood of G, and mean squared logit of G, from (n,A), (n,A), (n,), (n,)."""
    q_loss = F.smooth_l1_loss(q.gather(1, action[:, None])[:, 0], target)
    return q_loss, F.cross_entropy(logits, action), logits.pow(2).mean()
