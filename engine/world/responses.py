"""How users respond: generated clicks (the synthetic platform), or a model fitted to a log where pairs are missing.

A `ResponseModel` is shared and never changes; `session(users)` gives the part that moves while users are shown slates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Dataset
from engine.data.synthetic import ClickModel
from engine.factors import Factors, factorise

RECENT = 0.8  # how much of the shown categories is remembered from one step to the next


class ResponseSession(Protocol):
    """Responses of B users while their sessions run."""

    def probability(self, slate: Tensor) -> Tensor:
        """(B,K) probability of a positive response to items (B,K)."""

    def everything(self) -> Tensor:
        """(B,I) the same for the whole catalogue: for the oracle in evaluation, never for training."""

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        """Let the users be changed by what they were shown (B,K) and how they responded (B,K)."""

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the users only (bool (B,))."""

    def renew(self, rows: Tensor, users: Tensor) -> None:
        """Begin again, with users (n,), in the n rows where bool rows (B,) is True."""


class ResponseModel(Protocol):
    """A fixed model of `users` users' responses."""

    users: int

    def session(self, users: Tensor) -> ResponseSession: ...

    def to(self, device: torch.device) -> ResponseModel: ...


class Generated:
    """The synthetic platform's clicks, with satiation and influence (WORLD: dynamics make the session a decision process).

    Satiation: memory m ← 0.8·m + 0.2·(share of each category in the slate); the logit loses satiation·m of its category.
    Influence: the preference is pulled toward the clicked items, u ← normalise(u + influence·mean_k click_k·v_k).
    """

    def __init__(self, model: ClickModel) -> None:
        self.model = model
        self.users = len(model.preference)
        self.categories = int(model.tag.max()) + 1
        # One gather an item instead of four: [sharpness·vector, bias, pull].
        self.table = torch.cat([model.sharpness * model.vector, model.bias[:, None], model.pull[:, None]], 1)

    def to(self, device: torch.device) -> Generated:
        """The same model on another device."""
        tensors: dict[str, Any] = {k: value.to(device) for k, value in vars(self.model).items() if isinstance(value, Tensor)}
        return Generated(replace(self.model, **tensors))

    def session(self, users: Tensor) -> _GeneratedSession:
        """A session of users (B,)."""
        return _GeneratedSession(self, users)


class _GeneratedSession:
    def __init__(self, parent: Generated, users: Tensor) -> None:
        model = parent.model
        self.parent = parent
        # [preference, 1, conformity] · table row = the logit before satiation.
        ones = torch.ones(len(users), 1, device=users.device)
        self.profile = torch.cat([model.preference[users], ones, model.conformity[users, None]], 1)
        self.memory = torch.zeros(len(users), parent.categories, device=users.device)

    def probability(self, slate: Tensor) -> Tensor:
        parent = self.parent
        self._rows = F.embedding(slate, parent.table)
        self._tags = parent.model.tag[slate]
        logit = torch.bmm(self._rows, self.profile.unsqueeze(2)).squeeze(2)
        if parent.model.satiation:
            logit = logit.sub_(self.memory.gather(1, self._tags), alpha=parent.model.satiation)
        return torch.sigmoid_(logit)

    def everything(self) -> Tensor:
        parent = self.parent
        logit = self.profile @ parent.table.T
        return torch.sigmoid_(logit.sub_(self.memory[:, parent.model.tag], alpha=parent.model.satiation))

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        model = self.parent.model
        if model.satiation:
            share = torch.full_like(clicks, (1 - RECENT) / clicks.shape[1])
            self.memory.mul_(RECENT).scatter_add_(1, self._tags, share)
        if model.influence:
            d = model.vector.shape[1]
            pull = torch.bmm(clicks.unsqueeze(1), self._rows).squeeze(1)[:, :d]
            weight = model.influence / (clicks.shape[1] * max(model.sharpness, 1e-6))
            self.profile[:, :d] = F.normalize(self.profile[:, :d].add(pull, alpha=weight), dim=1)

    def keep(self, rows: Tensor) -> None:
        self.profile, self.memory = self.profile[rows], self.memory[rows]

    def renew(self, rows: Tensor, users: Tensor) -> None:
        fresh = self.parent.session(users)
        self.profile[rows], self.memory[rows] = fresh.profile, fresh.memory


@dataclass(frozen=True)
class Fidelity:
    """How well a fitted model predicts responses that it has not seen. calibration: (predicted, observed, share) by decile."""

    log_loss: float
    log_loss_of_the_mean: float
    auc: float | None
    calibration_error: float
    calibration: tuple[tuple[float, float, float], ...]
    held_out: int

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Fitted:
    """Logistic matrix factorisation of a log: users do not change while they are shown slates."""

    def __init__(self, factors: Factors, fidelity: Fidelity | None = None) -> None:
        self.fidelity = fidelity
        self.factors = factors
        self.users = len(factors.users)
        ones = torch.ones(len(factors.users), 1, device=factors.users.device)
        self.profile = torch.cat([factors.users, factors.user_bias[:, None] + factors.offset, ones], 1)
        ones = torch.ones(len(factors.items), 1, device=factors.items.device)
        self.table = torch.cat([factors.items, ones, factors.item_bias[:, None]], 1)

    def to(self, device: torch.device) -> Fitted:
        """The same model on another device."""
        return Fitted(self.factors.to(device), self.fidelity)

    def session(self, users: Tensor) -> _FittedSession:
        """A session of users (B,)."""
        return _FittedSession(self, users)


class _FittedSession:
    def __init__(self, parent: Fitted, users: Tensor) -> None:
        self.parent = parent
        self.table, self.profile = parent.table, parent.profile[users]

    def probability(self, slate: Tensor) -> Tensor:
        return torch.sigmoid_(torch.bmm(F.embedding(slate, self.table), self.profile.unsqueeze(2)).squeeze(2))

    def everything(self) -> Tensor:
        return torch.sigmoid_(self.profile @ self.table.T)

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        self.profile = self.profile[rows]

    def renew(self, rows: Tensor, users: Tensor) -> None:
        self.profile[rows] = self.parent.profile[users]


HELD_OUT = 0.1
WIDTHS, DECAYS = (4, 8, 16), (2.0, 8.0, 32.0)


def fit_responses(log: Dataset, generator: torch.Generator, watch: Callable[[float], None] = lambda _: None) -> Fitted:
    """A response model of a log: nine factorisations, the one with the best log-loss on a tenth of the rows is kept.

    A second tenth, seen by neither the fit nor the choice, gives the reported fidelity.
    """
    order = torch.randperm(len(log), generator=generator)
    tenth = max(1, int(HELD_OUT * len(log)))
    report, choose, fit = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :].sort().values
    best: tuple[float, Factors] | None = None
    grid = [(width, decay) for width in WIDTHS for decay in DECAYS]
    for number, (width, decay) in enumerate(grid):
        seed = int(torch.randint(1 << 31, (1,), generator=generator))

        def watch_one(done: float, number: int = number) -> None:
            watch((number + done) / len(grid))

        factors = factorise(
            log.select(fit), width=width, epochs=15, learning_rate=0.03, decay=decay, biases=True,
            generator=torch.Generator().manual_seed(seed), watch=watch_one,
        )  # fmt: skip
        loss = F.binary_cross_entropy_with_logits(factors.logit(log.user[choose], log.item[choose]), log.reward[choose]).item()
        if best is None or loss < best[0]:
            best = (loss, factors)
    assert best is not None
    return Fitted(best[1], fidelity(best[1].logit(log.user[report], log.item[report]), log.reward[report]))


def fidelity(logit: Tensor, reward: Tensor) -> Fidelity:
    """Held-out log-loss, AUC and calibration of predicted logits (n,) against responses (n,) in [0, 1]."""
    from sklearn.metrics import roc_auc_score

    probability = torch.sigmoid(logit)
    loss = F.binary_cross_entropy_with_logits(logit, reward).item()
    mean = reward.mean().clamp(1e-6, 1 - 1e-6)
    base = F.binary_cross_entropy(mean.expand_as(reward), reward).item()
    positive = reward > 0.5
    both = bool(positive.any()) and not bool(positive.all())
    auc = float(roc_auc_score(positive.numpy(), probability.numpy())) if both else None
    order = probability.argsort()
    cells = [part for part in np.array_split(order.numpy(), 10) if len(part)]
    table = tuple(
        (probability[part].mean().item(), reward[part].mean().item(), len(part) / len(reward))
        for part in map(torch.as_tensor, cells)
    )
    error = sum(abs(predicted - observed) * share for predicted, observed, share in table)
    return Fidelity(loss, base, auc, error, table, len(reward))
