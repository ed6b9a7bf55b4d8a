"""A world whose answers are observed, not fitted: the table of responses of a (nearly) complete log."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.contracts import Dataset


@dataclass(frozen=True)
class ResponseTable:
    """values float32 (U,C): each user's response to each item in play, in [0, 1]. column int64 (I,): an item's place in it,
    −1 where it is not in play. missing: how many pairs no row tells of."""

    values: Tensor
    column: Tensor
    missing: int

    def reordered(self, order: Tensor) -> ResponseTable:
        """The same for a catalogue whose item i is this one's order[i]."""
        return replace(self, column=self.column[order])


def response_table(log: Dataset) -> ResponseTable:
    """The table of a log over its items in play. Of several rows of one pair the last counts.

    A pair without a row is answered by what its user and its item are otherwise: mean + (user's mean − mean) + (item's mean
    − mean), cut to [0, 1]; a user or an item without any row is at the mean.
    """
    column = torch.full((len(log.items),), -1, dtype=torch.int64)
    in_play = log.items.in_play()
    column[in_play] = torch.arange(int(in_play.sum()))
    known = np.full((log.users, int(in_play.sum())), np.nan, dtype=np.float32)
    known[log.user.numpy(), column[log.item].numpy()] = log.reward.numpy()  # numpy: of equal places the last is assigned
    values = torch.from_numpy(known)
    gone = values.isnan()
    missing = int(gone.sum())
    if missing:
        mean = values.nanmean()
        own = [values.nanmean(dim, keepdim=True).nan_to_num(mean.item()) for dim in (0, 1)]
        filled = (own[0] + own[1] - mean).clamp_(0, 1)
        values = torch.where(gone, filled, values)
    return ResponseTable(values, column, missing)
