"""Which items are popular: the paper's split of the catalogue into head and long tail."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.contracts import Data

HEAD_SHARE = 0.2  # paper §5.1.1


def head_items(exposures: Tensor, share: float = HEAD_SHARE) -> Tensor:
    """bool (I,): the `share` of items with the most exposures (at least one item); ties go to the smaller id."""
    count = max(1, round(share * len(exposures)))
    head = torch.zeros(len(exposures), dtype=torch.bool)
    head[exposures.argsort(descending=True, stable=True)[:count]] = True
    return head


def with_head_share(data: Data, share: float) -> Data:
    """The same data with another share of its items called head."""
    items = replace(data.train.items, head=head_items(data.train.items.popularity, share))
    logs = {name: replace(getattr(data, name), items=items) for name in ("train", "test", "train_start", "test_start")}
    return replace(data, **logs)
