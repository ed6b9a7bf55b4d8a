"""What learned policies are told of a user: the state, and what the running session itself shows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Obs, StateView

RECENT_SLATES = 3


def width(states: StateView) -> int:
    """Columns of `policy_inputs`."""
    return 2 * states.items.shape[1] + 2


def policy_inputs(states: StateView, state: Tensor, obs: Obs, slate: int, max_len: int) -> Tensor:
    """(B,2D+2): the standardised state (B,D), the mean direction of what the last three slates showed (a category that is
    shown again and again tires), the share of the longest session that is over, and the session's response rate so far."""
    standard = (state - states.centre) / states.spread
    shown = min(RECENT_SLATES * slate, obs.session)
    if shown:
        recent = F.normalize(states.items, dim=1)[obs.history[:, -shown:]].mean(1) * (shown / (RECENT_SLATES * slate))
        rate = obs.rewards[:, -obs.session :].mean(1, keepdim=True)
    else:
        recent, rate = torch.zeros_like(standard), torch.zeros_like(standard[:, :1])
    return torch.cat([standard, recent, torch.full_like(rate, obs.step / max_len), rate], 1)
