"""Generalised advantage estimation over sessions of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def advantages(rewards: Tensor, values: Tensor, alive: Tensor, gamma: float, lam: float) -> Tensor:
    """(T,B) A_t = δ_t + γλ·A_{t+1}, δ_t = r_t + γ·V_{t+1} − V_t (Schulman et al. 2016, Eq. 16), 0 where not alive.

    rewards, values (T,B); alive bool (T,B). A user who is not there at t+1 has left for good, so nothing is bootstrapped:
    the session's end is part of the task (patience ran out), not a limit of the simulation.
    """
    result = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[0])
    for t in range(len(rewards) - 1, -1, -1):
        if t + 1 < len(rewards):
            stays = alive[t + 1].to(rewards.dtype)
            delta = rewards[t] + gamma * values[t + 1] * stays - values[t]
            following = delta + gamma * lam * following * stays
        else:
            following = rewards[t] - values[t]
        result[t] = following * alive[t]
    return result
