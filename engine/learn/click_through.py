"""Item-to-item click-through: how often those who answered one item soon answered another, by the log.

SAC4IR's reward (Shi et al., authors' code) is the sum of such rates from a user's latest items to the item shown. How its rates
were made is not published; here they are, of the times that an item was shown within the next RECENT interactions of somebody
who had answered the first, the share that was answered, with one more time in the denominator, so that a chance pair is no
certainty. Pairs that the log never has are 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.contracts import Dataset, Obs

RECENT = 10  # items that a state holds in the authors' configuration


class ClickThrough:
    """Rates of pairs, kept by the pairs that occur."""

    def __init__(self, logs: Dataset, device: torch.device) -> None:
        self.items = len(logs.items)
        pairs, shown, answered = [], [], []
        for lag in range(1, min(RECENT, len(logs) - 1) + 1):
            first, second = slice(None, -lag), slice(lag, None)
            rows = ((logs.user[first] == logs.user[second]) & (logs.reward[first] > 0)).nonzero()[:, 0]
            pairs.append(logs.item[rows] * self.items + logs.item[rows + lag])
            shown.append(logs.reward[rows])
            answered.append(logs.reward[rows] * logs.reward[rows + lag])
        nothing = torch.zeros(0)
        keys, place = torch.cat([nothing.long(), *pairs]).unique(return_inverse=True)
        totals = [torch.zeros(len(keys)).index_add_(0, place, torch.cat([nothing, *part])) for part in (shown, answered)]
        self.keys, self.rates = keys.to(device), (totals[1] / (totals[0] + 1)).to(device)

    def rate(self, first: Tensor, second: Tensor) -> Tensor:
        """Rates from items `first` to items `second`, int64 of one shape; 0 where `first` is −1, no item."""
        if not len(self.keys):
            return torch.zeros(first.shape, device=first.device)
        wanted = first * self.items + second
        place = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        return torch.where((self.keys[place] == wanted) & (first >= 0), self.rates[place], 0.0)

    def of(self, obs: Obs, slates: Tensor) -> Tensor:
        """(B,K) for each item of slates (B,K) the rates from the last RECENT items that the user answered, each weighted by its
        response, over RECENT: in [0, 1], as a response is (the authors' sum is ten times that)."""
        if not obs.history.shape[1]:
            return torch.zeros(slates.shape, device=slates.device)
        columns = torch.arange(obs.history.shape[1], device=slates.device)
        last = torch.where(obs.rewards > 0, columns, -1).topk(min(RECENT, len(columns)), dim=1).values
        known, last = last >= 0, last.clamp_min(0)
        first = torch.where(known, obs.history.gather(1, last), -1)
        weight = obs.rewards.gather(1, last) * known
        shape = (*slates.shape, first.shape[1])
        rates = self.rate(first.unsqueeze(1).expand(shape).contiguous(), slates.unsqueeze(2).expand(shape).contiguous())
        return (rates * weight.unsqueeze(1)).sum(2) / RECENT


def reward(through: Tensor, clicks: Tensor, repeated: Tensor | None) -> Tensor:
    """The authors' reward, of one shape: the click-through where the item is answered, −2 times it where it is passed, a
    response in between in proportion; −1 where the session had shown it before (`repeated`)."""
    value = through * (3 * clicks - 2)
    return value if repeated is None else torch.where(repeated, -1.0, value)
