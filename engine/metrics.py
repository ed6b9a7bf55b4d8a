"""The measures of the paper (§5.1.2) and their companions, as pure functions of recorded sessions.

AD = |p − (1 − p)| with p the head share of everything shown: 0 is half head, half tail. Means over users are plain means.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from engine.contracts import Items, Sessions, Truth


def gini(exposure: Tensor) -> float:
    """Gini coefficient of exposure (I,) over the world's *full* catalogue, items that were never shown included; 0 is equal.

    G = Σ_i (2i − I − 1)·x_(i) / (I·Σ x), x ascending. (One public code of this line drops the zeros first, which
    understates inequality.) 0 where nothing was shown.
    """
    x = exposure.double().sort().values
    count, total = len(x), x.sum()
    if total == 0:
        return 0.0
    place = torch.arange(1, count + 1, dtype=torch.float64, device=x.device)
    return float(((2 * place - count - 1) * x).sum() / (count * total))


def lorenz(exposure: Tensor, points: int = 101) -> Tensor:
    """(points,) share of all exposure that the least shown q of the catalogue takes, q from 0 to 1."""
    x = exposure.double().sort().values
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), x.cpu().cumsum(0)]) / x.sum().clamp_min(1).cpu()
    return cumulative[torch.linspace(0, len(x), points).round().long()]


def entropy(exposure: Tensor) -> float:
    """Shannon entropy of exposure (I,) over log I: 1 is even, 0 a single item."""
    p = exposure.double() / exposure.double().sum().clamp_min(1)
    return float(torch.special.entr(p).sum() / torch.log(torch.tensor(float(max(len(p), 2)))))


def coverage(exposure: Tensor) -> float:
    """Share of the catalogue that was shown at least once."""
    return float((exposure > 0).double().mean())


def absolute_difference(head_share: Tensor) -> Tensor:
    """AD of head shares: |2p − 1|."""
    return (2 * head_share - 1).abs()


def exposure_counts(sessions: Sessions, items: int) -> Tensor:
    """int64 (I,) how often each item was shown."""
    return torch.bincount(sessions.slates[sessions.alive].flatten(), minlength=items)


def per_user(sessions: Sessions, items: Items, truth: Truth | None) -> dict[str, Tensor]:
    """Columns (B,) of the per-user table: user, len, r_cum, r_each, head_share, ad, and utility where the truth is known."""
    length = sessions.alive.sum(0)
    shown = (length * sessions.slates.shape[2]).clamp_min(1)
    alive = sessions.alive.unsqueeze(2)
    head = (items.head[sessions.slates.clamp_min(0)] & alive).sum((0, 2))
    reward = sessions.rewards.sum(0)
    table = {
        "user": sessions.users,
        "len": length.float(),
        "r_cum": reward,
        "r_each": reward / length.clamp_min(1),
        "head_share": head / shown,
        "ad": absolute_difference(head / shown),
    }
    if truth is not None:
        table["utility"] = (_genuine(sessions, truth) * alive).sum((0, 2)) / shown
    return table


def summary(sessions: Sessions, items: Items, truth: Truth | None = None) -> dict[str, float]:
    """len, r_each (pooled over all steps), r_cum, ad (of everything shown), ad_session and ad_slate (means of each one's
    own AD), gini, coverage, entropy (over the items in play), and utility (mean genuine preference of what was shown) where
    the truth is known."""
    users = per_user(sessions, items, truth)
    counts = exposure_counts(sessions, len(items))
    steps = sessions.alive.sum().clamp_min(1)
    head_of_slates = items.head[sessions.slates.clamp_min(0)].float().mean(2)[sessions.alive]
    head_share = counts[items.head].sum() / counts.sum().clamp_min(1)
    result = {
        "len": users["len"].mean(),
        "r_each": sessions.rewards.sum() / steps,
        "r_cum": users["r_cum"].mean(),
        "ad": absolute_difference(head_share),
        "ad_session": users["ad"].mean(),
        "ad_slate": absolute_difference(head_of_slates).mean(),
    }
    values: dict[str, Any] = {name: float(value) for name, value in result.items()}
    counted = counts if items.absent is None else counts[items.in_play()]
    values |= {"gini": gini(counted), "coverage": coverage(counted), "entropy": entropy(counted)}
    if truth is not None:
        values["utility"] = float((_genuine(sessions, truth) * sessions.alive.unsqueeze(2)).sum() / counts.sum().clamp_min(1))
    return values


def _genuine(sessions: Sessions, truth: Truth) -> Tensor:
    return torch.stack([truth.genuine(sessions.users, slate.clamp_min(0)) for slate in sessions.slates])
