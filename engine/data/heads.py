"""Which items are popular: the paper's split of the catalogue into head and long tail."""

from __future__ import annotations

import torch
from torch import Tensor

HEAD_SHARE = 0.2  # paper §5.1.1


def head_items(exposures: Tensor, share: float = HEAD_SHARE) -> Tensor:
    """bool (I,): the `share` of items with the most exposures (at least one item); ties go to the smaller id."""
    count = max(1, round(share * len(exposures)))
    head = torch.zeros(len(exposures), dtype=torch.bool)
    head[exposures.argsort(descending=True, stable=True)[:count]] = True
    return head
