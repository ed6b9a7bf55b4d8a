"""Logs as rectangles: one row a user."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.contracts import Dataset


def last_rows(log: Dataset, width: int) -> tuple[Tensor, Tensor]:
    """Each user's last `width` items (users,W) and rewards (users,W), right-aligned, −1 and 0 where there is none.

    W is `width` or the longest history, whichever is smaller, and at least 1.
    """
    lengths = log.lengths()
    width = max(1, min(width, int(lengths.max()))) if len(log) else 1
    place = width - (lengths.cumsum(0)[log.user] - torch.arange(len(log)))
    rows = place >= 0
    items = torch.full((log.users, width), -1, dtype=torch.int64)
    rewards = torch.zeros(log.users, width)
    items[log.user[rows], place[rows]] = log.item[rows]
    rewards[log.user[rows], place[rows]] = log.reward[rows]
    return items, rewards
