"""A learnt model of users' responses that knows its doubt: factorisations of a log, each of its own bootstrap sample.

What members disagree about is no measure of doubt here: all shrink an item that the log hardly shows to the same prior, and so
agree on it. Each member therefore has a variance of its own, the Laplace approximation of what its item's parameters may be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.contracts import Dataset
from engine.factors import Factors, factorise

LEARNING_RATE = 0.03  # as of the worlds that are fitted to real logs
ITEM_PRECISION = 1.0  # of the prior on an item's parameters in `factorise`


class Ensemble:
    """E logistic factorisations. As a response model of a world it answers with their mean; users do not change.

    spread (E,I,d+1): posterior variances of each item's vector and intercept.
    """

    def __init__(self, members: Sequence[Factors], spread: Tensor) -> None:
        self.factors, self.spread = list(members), spread
        self.users = len(members[0].users)
        self.profile = torch.stack(
            [torch.cat([m.users, (m.user_bias + m.offset)[:, None], torch.ones_like(m.user_bias)[:, None]], 1) for m in members]
        )  # (E,U,d+2)
        self.table = torch.stack(
            [torch.cat([m.items, torch.ones_like(m.item_bias)[:, None], m.item_bias[:, None]], 1) for m in members]
        )  # (E,I,d+2)

    def to(self, device: torch.device) -> Ensemble:
        """The same on another device."""
        return Ensemble([member.to(device) for member in self.factors], self.spread.to(device))

    def probabilities(self, users: Tensor, items: Tensor) -> Tensor:
        """(E,B,K) each member's probability of a positive response of users (B,) to items (B,K)."""
        return torch.sigmoid((self.table[:, items] @ self.profile[:, users].unsqueeze(3))[..., 0])

    def variances(self, users: Tensor, items: Tensor) -> Tensor:
        """(E,B,K) each member's variance of its own probability, by the delta method: (p(1 − p))²·Var[logit]."""
        p = self.probabilities(users, items)
        profile = self.profile[:, users, :-1].clone()
        profile[..., -1] = 1.0
        return (p * (1 - p)).pow(2) * (self.spread[:, items] @ profile.pow(2).unsqueeze(3))[..., 0]

    def session(self, users: Tensor) -> _EnsembleSession:
        """A session of users (B,)."""
        return _EnsembleSession(self, users)

    def lowest(self, users: Tensor) -> float:
        """The smallest mean response that any of `users` (B,) would give to any item."""
        return float(_mean_of_all(self, users).min())


class _EnsembleSession:
    """`engine.world.responses.ResponseSession`."""

    def __init__(self, parent: Ensemble, users: Tensor) -> None:
        self.parent, self.users = parent, users

    def probability(self, slate: Tensor) -> Tensor:
        return self.parent.probabilities(self.users, slate).mean(0)

    def everything(self) -> Tensor:
        return _mean_of_all(self.parent, self.users)

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        self.users = self.users[rows]

    def renew(self, rows: Tensor, users: Tensor) -> None:
        self.users = self.users.masked_scatter(rows, users)


def _mean_of_all(ensemble: Ensemble, users: Tensor) -> Tensor:
    """(B,I) mean response to the whole catalogue."""
    total = torch.zeros(len(users), ensemble.table.shape[1], device=ensemble.table.device)
    for profile, table in zip(ensemble.profile, ensemble.table, strict=True):
        total += torch.sigmoid(profile[users] @ table.T)
    return total / len(ensemble.profile)


def fit_ensemble(
    logs: Dataset,
    *,
    members: int,
    width: int,
    epochs: int,
    decay: float,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda _: None,
) -> Ensemble:
    """`members` factorisations, each of a bootstrap sample of the log's rows. watch: told the share that is done; may raise."""
    found, spread = [], []
    for number in range(members):
        seed = int(torch.randint(1 << 31, (1,), generator=generator))
        own = torch.Generator().manual_seed(seed)
        weight = torch.bincount(torch.randint(len(logs), (len(logs),), generator=own), minlength=len(logs)).float()

        def watch_one(done: float, number: int = number) -> None:
            watch((number + done) / members)

        kept = factorise(
            logs, width=width, epochs=epochs, learning_rate=LEARNING_RATE, decay=decay, biases=True, weight=weight,
            generator=own, watch=watch_one,
        )  # fmt: skip
        found.append(kept)
        spread.append(_posterior(kept, logs, weight))
    return Ensemble(found, torch.stack(spread))


def _posterior(factors: Factors, logs: Dataset, weight: Tensor) -> Tensor:
    """(I,d+1) variances of items' vectors and intercepts given the users' vectors: 1 / (prior's precision + information), the
    matrix of information taken for diagonal."""
    p = torch.sigmoid(factors.logit(logs.user, logs.item))
    known = torch.cat([factors.users.pow(2), torch.ones(len(factors.users), 1)], 1)[logs.user]
    precision = torch.full((len(logs.items), known.shape[1]), ITEM_PRECISION)
    return 1 / precision.index_add_(0, logs.item, (weight * p * (1 - p))[:, None] * known)
