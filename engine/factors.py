"""Logistic matrix factorisation of a log, plain or disentangled: what worlds, states and purifiers learn vectors with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.contracts import Dataset
from engine.options import Diverged

BATCH = (256, 8192)  # fewest and most logged rows in one step of Adam
STEPS = 64  # in one epoch, where the log is long enough
LARGE = 200_000  # users or items beyond which a step of Adam touches only the vectors of its batch's rows
DETAIL = 10.0  # precision of an item's detail around its tags' vectors
# (loss (n,), probability (n,), reward (n,), step) → weights (n,) of a batch's rows; nothing is differentiated through it
Reweigh = Callable[[Tensor, Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Factors:
    """users (U,D), items (I,D), user_bias (U,), item_bias (I,), offset (), conformity (U,), curve (I,).

    logit = offset + user_bias + item_bias + (1 + conformity)·curve(popularity) + ⟨user, item⟩. Parts that a fit does not
    use are zero. `curve` is the fitted effect of popularity on a click, given for each item.
    """

    users: Tensor
    items: Tensor
    user_bias: Tensor
    item_bias: Tensor
    offset: Tensor
    conformity: Tensor
    curve: Tensor

    def to(self, device: torch.device) -> Factors:
        """The same on another device."""
        return replace(self, **{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def logit(self, user: Tensor, item: Tensor) -> Tensor:
        """(n,) logits of pairs."""
        pull = (1 + self.conformity[user]) * self.curve[item]
        return self.offset + self.user_bias[user] + self.item_bias[item] + pull + (self.users[user] * self.items[item]).sum(-1)


@torch.enable_grad()
def factorise(
    log: Dataset,
    *,
    width: int,
    epochs: int,
    learning_rate: float,
    decay: float,
    generator: torch.Generator,
    biases: bool = False,
    disentangle: bool = False,
    weight: Tensor | None = None,
    reweigh: Reweigh | None = None,
    watch: Callable[[float], None] = lambda _: None,
) -> Factors:
    """Fit clicks by Adam on the (weighted) logistic loss with Gaussian priors, each spread over its entity's rows.

    biases: learn user and item biases. disentangle: besides the biases, give popularity a factor of its own,
    (1 + c_u)·h(popularity), with h a small network, so that the vectors need not carry it (the idea of DICE, Zheng et al.
    2021), and let an item's vector be its tags' vectors plus a detail, so that rarely shown items get a vector too.
    decay: precision of the users' prior. weight (N,): of each row. reweigh: gives a batch's rows weights from their present
    losses; the loss is then their weighted mean, so that the priors keep their share. watch: told the share that is done; may
    raise Stopped. With more than LARGE users or items Adam is lazy: moments of a vector move when its rows are met.
    """
    large = max(log.users, len(log.items)) > LARGE
    biases = biases or disentangle
    users = nn.Parameter(0.1 * torch.randn(log.users, width, generator=generator))
    items = nn.Parameter(0.1 * torch.randn(len(log.items), width, generator=generator))
    user_bias, item_bias = nn.Parameter(torch.zeros(log.users, 1)), nn.Parameter(torch.zeros(len(log.items), 1))
    conformity = nn.Parameter(torch.zeros(log.users, 1))
    mean = log.reward.mean().clamp(0.01, 0.99)
    offset = nn.Parameter(torch.log(mean / (1 - mean)))
    level = log.items.log_popularity()[:, None]
    hidden = 16
    first = nn.Parameter(torch.randn(1, hidden, generator=generator))
    shift = nn.Parameter(torch.randn(hidden, generator=generator))
    second = nn.Parameter(0.1 * torch.randn(hidden, 1, generator=generator))
    share = log.items.tags.float()
    share = share / share.sum(1, keepdim=True).clamp_min(1)  # (I,G): an item's tags, weighted to 1
    kinds = nn.Parameter(0.1 * torch.randn(share.shape[1], width, generator=generator))
    tables = [users, items] + [user_bias, item_bias] * biases + [conformity] * disentangle
    rest = [offset] + [first, shift, second, kinds] * disentangle
    adams: list[torch.optim.Optimizer] = [torch.optim.Adam(rest if large else tables + rest, lr=learning_rate, fused=True)]
    if large:
        adams.append(torch.optim.SparseAdam(tables, lr=learning_rate))

    batch = min(max(len(log) // STEPS, BATCH[0]), BATCH[1], len(log))
    steps = epochs * max(1, -(-len(log) // batch))
    schedules = [torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0 - 0.9 * step / steps) for adam in adams]
    # The prior's share in each logged row: precision / how often the entity is seen.
    per_user = 1 / log.lengths().clamp_min(1).float()
    per_item = 1 / torch.bincount(log.item, minlength=len(log.items)).clamp_min(1).float()
    detail = DETAIL if disentangle else 1.0

    def at(ids: Tensor, table: Tensor) -> Tensor:
        return F.embedding(ids, table, sparse=large)

    def curve(ids: Tensor | None = None) -> Tensor:
        return (torch.tanh((level if ids is None else level[ids]) @ first + shift) @ second)[:, 0]

    done = 0
    for _ in range(epochs):
        for rows in torch.randperm(len(log), generator=generator).split(batch):
            u, i = log.user[rows], log.item[rows]
            p, q = at(u, users), at(i, items)
            prior = decay * per_user[u] * p.pow(2).sum(1) + detail * per_item[i] * q.pow(2).sum(1)
            if disentangle:
                q = q + (share[i] @ kinds if large else F.embedding(i, share @ kinds))
            logit = (p * q).sum(1) + offset
            if biases:
                a, b = at(u, user_bias)[:, 0], at(i, item_bias)[:, 0]
                logit = logit + a + b
                prior = prior + per_user[u] * a.pow(2) + per_item[i] * b.pow(2)
            if disentangle:
                c = at(u, conformity)[:, 0]
                logit = logit + (1 + c) * (curve(i) if large else curve()[i])
                prior = prior + per_user[u] * c.pow(2)
            reward, own = log.reward[rows], None if weight is None else weight[rows]
            if reweigh is None:
                loss = F.binary_cross_entropy_with_logits(logit, reward, own)
            else:
                each = F.binary_cross_entropy_with_logits(logit, reward, own, reduction="none")
                given = reweigh(each.detach(), torch.sigmoid(logit.detach()), reward, done)
                loss = (given * each).sum() / given.sum().clamp_min(1e-6)
            loss = loss + 0.5 * prior.mean() + 0.5 * kinds.pow(2).sum() / len(log)
            for adam in adams:
                adam.zero_grad()
            loss.backward()
            for adam, schedule in zip(adams, schedules, strict=True):
                adam.step()
                schedule.step()
            done += 1
        if not torch.isfinite(loss):
            raise Diverged("the embeddings' loss is not finite")
        watch(done / steps)
    with torch.no_grad():
        h = curve() if disentangle else torch.zeros(len(log.items))
        vectors = items + share @ kinds if disentangle else items
        fitted = (users, vectors, user_bias[:, 0], item_bias[:, 0], offset, conformity[:, 0], h)
        return Factors(*(part.detach().clone() for part in fitted))
