"""How open the log leaves what comes next: the entropy of the next tag given the last few (the diversity term of DORL)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Dataset


class LogEntropy:
    """H_k(tags) = entropy of the log's next main tag given the last k main tags, in no order, k = 1 … `window` (1 or 2).

    In units of log G, G the tags that the log holds, so that 1 is an even choice; where the log never shows the tags in a row,
    H is 1.
    """

    def __init__(self, logs: Dataset, window: int) -> None:
        self.tag = logs.items.main_tag
        self.tags = int(self.tag.max()) + 1
        tag = self.tag[logs.item]
        self.tables = []  # k → (G^k,) entropies
        for k in range(1, window + 1):
            same = logs.user[k:] == logs.user[:-k]  # rows k apart belong to one user
            given = self._key([tag[k - 1 - back : len(tag) - 1 - back] for back in range(k)])[same]
            self.tables.append(_entropies(given, tag[k:][same], self.tags**k, self.tags))

    def to(self, device: torch.device) -> LogEntropy:
        """The same on another device."""
        self.tag, self.tables = self.tag.to(device), [table.to(device) for table in self.tables]
        return self

    def __call__(self, items: Tensor) -> Tensor:
        """(B,L) Σ_k H_k of the k items that end at each place of the rows of items (B,L), in the order they were shown; −1,
        no item, and windows that reach before the first place count as never seen."""
        tag = torch.where(items >= 0, self.tag[items.clamp_min(0)], -1)
        total = torch.zeros(items.shape, device=items.device)
        for back, table in enumerate(self.tables):
            shifted = [F.pad(tag, (shift, 0), value=-1)[:, : tag.shape[1]] for shift in range(back + 1)]
            known = torch.stack(shifted).amin(0) >= 0
            total += torch.where(known, table[self._key([part.clamp_min(0) for part in shifted])], 1.0)
        return total

    def _key(self, parts: list[Tensor]) -> Tensor:
        """One number for a set of tags."""
        ordered = torch.stack(parts).sort(0).values
        key = torch.zeros_like(parts[0])
        for part in ordered:
            key = key * self.tags + part
        return key


def _entropies(given: Tensor, following: Tensor, keys: int, tags: int) -> Tensor:
    """(keys,) entropy of `following` (n,) given each key, in units of log of how many tags there are; 1 where there is none."""
    cell, count = torch.unique(given * tags + following, return_counts=True)
    total = torch.bincount(given, minlength=keys)
    key = cell // tags
    share = count / total[key]
    entropy = torch.zeros(keys).index_add_(0, key, -share * share.log())
    different = max(2, len(torch.unique(following)))
    return torch.where(total > 0, entropy / math.log(different), 1.0)
