"""How users respond: generated clicks (the synthetic platform), a table of observed responses where (nearly) all pairs are
known, or a model fitted to a log where pairs are missing.

A `ResponseModel` is shared and never changes; `session(users)` gives the part that moves while users are shown slates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.contracts import Dataset
from engine.data.observed import ResponseTable
from engine.data.synthetic import ClickModel
from engine.factors import Factors, factorise
from engine.world.fidelity import Fidelity, Logit, measured

RECENT = 0.8  # how much of the shown categories is remembered from one step to the next


class ResponseSession(Protocol):
    """Responses of B users while their sessions run."""

    def probability(self, slate: Tensor) -> Tensor:
        """(B,K) probability of a positive response to items (B,K)."""

    def everything(self, count: int | None = None) -> Tensor:
        """(B,count) the same for the items with ids below `count`, or (B,I) for all: for the oracle in evaluation, never for
        training."""

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

    def everything(self, count: int | None = None) -> Tensor:
        parent = self.parent
        logit = self.profile @ parent.table[:count].T
        return torch.sigmoid_(logit.sub_(self.memory[:, parent.model.tag[:count]], alpha=parent.model.satiation))

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

    def everything(self, count: int | None = None) -> Tensor:
        return torch.sigmoid_(self.profile @ self.table[:count].T)

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        self.profile = self.profile[rows]

    def renew(self, rows: Tensor, users: Tensor) -> None:
        self.profile[rows] = self.parent.profile[users]


class Table:
    """Observed responses, looked up: users do not change while they are shown slates."""

    def __init__(self, table: ResponseTable) -> None:
        self.table = table
        self.users = len(table.values)

    def to(self, device: torch.device) -> Table:
        """The same on another device."""
        return Table(replace(self.table, values=self.table.values.to(device), column=self.table.column.to(device)))

    def session(self, users: Tensor) -> _TableSession:
        """A session of users (B,)."""
        return _TableSession(self.table, users)


class _TableSession:
    def __init__(self, table: ResponseTable, users: Tensor) -> None:
        self.values, self.column, self.users = table.values, table.column, users

    def probability(self, slate: Tensor) -> Tensor:
        return self.values[self.users.unsqueeze(1), self.column[slate]]

    def everything(self, count: int | None = None) -> Tensor:
        column = self.column[:count]
        known = column >= 0
        answers = self.values.new_zeros(len(self.users), len(column))  # items out of play are never shown
        answers[:, known] = self.values[self.users][:, column[known]]
        return answers

    def observe(self, slate: Tensor, clicks: Tensor) -> None:
        pass

    def keep(self, rows: Tensor) -> None:
        self.users = self.users[rows]

    def renew(self, rows: Tensor, users: Tensor) -> None:
        self.users = self.users.clone()
        self.users[rows] = users


HELD_OUT = 0.1
WIDTHS, DECAYS = (4, 8, 16), (2.0, 8.0, 32.0)
EPOCHS, MOST_SEEN = (2, 15), 30_000_000  # passes over a log, fewer of a long one: about so many rows are seen in a fit


def fit_responses(
    log: Dataset,
    generator: torch.Generator,
    watch: Callable[[float], None] = lambda _: None,
    truth: Logit | None = None,
) -> Fitted:
    """A response model of a log: nine factorisations, the one with the best log-loss on a tenth of the rows is kept.

    A second tenth, seen by neither the fit nor the choice, gives the reported fidelity, also beside the `truth` where it is
    known; nothing that is fitted depends on that.
    """
    order = torch.randperm(len(log), generator=generator)
    tenth = max(1, int(HELD_OUT * len(log)))
    report, choose, fit = order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :].sort().values
    rows = log.select(fit)
    epochs = min(max(MOST_SEEN // max(len(rows), 1), EPOCHS[0]), EPOCHS[1])
    best: tuple[float, Factors] | None = None
    grid = [(width, decay) for width in WIDTHS for decay in DECAYS]
    for number, (width, decay) in enumerate(grid):
        seed = int(torch.randint(1 << 31, (1,), generator=generator))

        def watch_one(done: float, number: int = number) -> None:
            watch((number + done) / len(grid))

        factors = factorise(
            rows, width=width, epochs=epochs, learning_rate=0.03, decay=decay, biases=True,
            generator=torch.Generator().manual_seed(seed), watch=watch_one,
        )  # fmt: skip
        loss = F.binary_cross_entropy_with_logits(factors.logit(log.user[choose], log.item[choose]), log.reward[choose]).item()
        if best is None or loss < best[0]:
            best = (loss, factors)
    assert best is not None
    return Fitted(best[1], measured(best[1].logit, log, report, generator, truth))
