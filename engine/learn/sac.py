"""Soft actor–critic for discrete actions (Christodoulou 2019; Haarnoja et al. 2018), as pure functions.

All expectations over actions are exact sums. log_pi (n,A) are log-probabilities; actions that cannot be taken have large
negative finite ones, so that they weigh 0.
"""

from __future__ import annotations

from torch import Tensor

CLOSED = -1e9  # the logit of an action that cannot be taken: a number, so that p·log p is 0 and not undefined


def log_policy(logits: Tensor, blocked: Tensor | None = None) -> Tensor:
    """(n,A) log π(·|s) over the actions that are not `blocked` (n,A)."""
    return (logits if blocked is None else logits.masked_fill(blocked, CLOSED)).log_softmax(1)


def entropy(log_pi: Tensor) -> Tensor:
    """(n,) H(π(·|s)) in nats."""
    return -(log_pi.exp() * log_pi).sum(1)


def soft_value(values: Tensor, log_pi: Tensor, alpha: Tensor) -> Tensor:
    """(n,) V(s) = Σ_a π(a|s)·(Q(s,a) − α·log π(a|s)); values (n,A), the smaller of two critics."""
    return (log_pi.exp() * (values - alpha * log_pi)).sum(1)


def policy_loss(values: Tensor, log_pi: Tensor, alpha: Tensor) -> Tensor:
    """E_s Σ_a π(a|s)·(α·log π(a|s) − Q(s,a)): the policy moves to softmax(Q/α). No gradient reaches values or α."""
    return -soft_value(values.detach(), log_pi, alpha.detach()).mean()


def temperature_loss(log_alpha: Tensor, log_pi: Tensor, target: float) -> Tensor:
    """log α·(H(π) − target): α rises while the policy's entropy is below `target` nats, and falls above it."""
    return log_alpha * (entropy(log_pi.detach()).mean() - target)
