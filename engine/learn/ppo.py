"""The clipped objective of proximal policy optimisation (Schulman et al. 2017, Eq. 7), as pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def clipped_loss(log_probability: Tensor, old: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """− E[min(ρA, clip(ρ, 1 − ε, 1 + ε)A)], ρ = exp(log_probability − old); all (n,)."""
    ratio = torch.exp(log_probability - old)
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


def approximate_kl(log_probability: Tensor, old: Tensor) -> Tensor:
    """E[(ρ − 1) − log ρ], the low-variance estimate of KL(old ‖ new) (Schulman, joschu.net/blog/kl-approx)."""
    difference = log_probability - old
    return (torch.exp(difference) - 1 - difference).mean()


def standardise(advantage: Tensor) -> Tensor:
    """Zero mean and unit deviation over a batch (n,)."""
    return (advantage - advantage.mean()) / advantage.std(correction=0).clamp_min(1e-6)
