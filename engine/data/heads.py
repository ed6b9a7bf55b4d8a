"""Which items are popular: the paper's split of the catalogue into head and long tail."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from engine.contracts import Data

HEAD_SHARE = 0.2  # paper §5.1.1


def head_items(exposures: Tensor, share: float = HEAD_SHARE, in_play: Tensor | None = None) -> Tensor:
    """bool (I,): the `share` of items with the most exposures (at least one item); ties go to the smaller id.

    Where `in_play` (I,) is given, the share is of those; another item is head if it was shown at least as often as the least
    shown of their heads, so that one border holds for all.
    """
    if in_play is not None and not in_play.all():
        head = torch.zeros_like(in_play)
        head[in_play] = head_items(exposures[in_play], share)
        return head | (~in_play & (exposures >= exposures[head].min()) & (exposures > 0))
    count = max(1, round(share * len(exposures)))
    head = torch.zeros(len(exposures), dtype=torch.bool)
    head[exposures.argsort(descending=True, stable=True)[:count]] = True
    return head


def with_head_share(data: Data, share: float) -> Data:
    """The same data with another share of the items of its test world called head."""
    head = head_items(data.train.items.popularity, share, data.test.items.in_play())
    logs = {name: getattr(data, name) for name in ("train", "test", "train_start", "test_start")}
    return replace(data, **{name: replace(log, items=replace(log.items, head=head)) for name, log in logs.items()})
