"""From histories to states: the observed mean (the paper's s_t) and the evidence that a history holds about an interest.

A history's columns are of two kinds, and the difference matters. Those from the log were chosen by the old feed, which knew
the user: what was *shown* tells something. Those of the running session were chosen by the policy at work: taking them as
evidence would let a policy believe what it has itself decided. So exposure counts as evidence for the log's part only;
responses count everywhere, through their likelihood given what was shown.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.factors import Factors

NEWTON_STEPS = 5  # of the exact fold-in; the objective is concave, changes after four are below 1e-4


def bag(table: Tensor, items: Tensor, weight: Tensor) -> Tensor:
    """(B,D) Σ_h weight (B,H) · table[items (B,H)]; items may hold −1 where weight is 0."""
    if not items.shape[1]:
        return table.new_zeros(len(items), table.shape[1])
    return F.embedding_bag(items.clamp_min(0), table, per_sample_weights=weight, mode="sum")


def mean_of_positives(table: Tensor, items: Tensor, rewards: Tensor) -> Tensor:
    """(B,D) mean vector of the items with a positive response, weighted by it; 0 where there is none."""
    weight = rewards * (items >= 0)
    return bag(table, items, weight) / weight.sum(1, keepdim=True).clamp_min(1)


def popularity_level(level: Tensor, items: Tensor, rewards: Tensor) -> Tensor:
    """(B,) mean standardised log-popularity (I,) of a history's positives: the label that a pure state does not tell."""
    return mean_of_positives(level[:, None], items, rewards)[:, 0]


class Evidence(nn.Module):
    """What a history says of a user's long-run interest, in the space of disentangled item vectors.

    A user is θ = [interest (D), activity, conformity], with a Gaussian prior N(mean, precision⁻¹) estimated from the
    training users; an item's response has logit base_i + ⟨x_i, θ⟩, x_i = [vector_i, 1, curve_i].
    """

    mean: Tensor
    precision: Tensor
    x: Tensor
    base: Tensor
    level: Tensor
    at_mean: Tensor
    scaled: Tensor

    def __init__(self, parts: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in parts.items():
            self.register_buffer(name, value)
        prior = torch.sigmoid(self.base + self.x @ self.mean)  # response of the average user
        self.register_buffer("at_mean", prior, persistent=False)
        self.register_buffer("scaled", (prior * (1 - prior)).sqrt()[:, None] * self.x, persistent=False)

    @property
    def width(self) -> int:
        """D, the width of an interest."""
        return self.x.shape[1] - 2

    def fold_in(self, items: Tensor, rewards: Tensor) -> Tensor:
        """(B,D+2) one Newton step from the prior's mean: close to the mode, and cheap enough for every step of a session."""
        items, rewards = _trim(items, rewards)
        known = (items >= 0).float()
        rows = F.embedding(items.clamp_min(0), self.scaled) * known.unsqueeze(2)
        precision = torch.baddbmm(self.precision, rows.transpose(1, 2), rows)
        surprise = (rewards - self.at_mean[items.clamp_min(0)]) * known
        gradient = bag(self.x, items, surprise)
        factor = torch.linalg.cholesky(precision)
        return self.mean + torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)

    def exact_fold_in(self, items: Tensor, rewards: Tensor) -> Tensor:
        """(B,D+2) the posterior's mode, by Newton's method."""
        items, rewards = _trim(items, rewards)
        known = (items >= 0).float()
        rows, base = F.embedding(items.clamp_min(0), self.x), self.base[items.clamp_min(0)]
        theta = self.mean.expand(len(items), -1)
        for _ in range(NEWTON_STEPS):
            p = torch.sigmoid(base + torch.bmm(rows, theta.unsqueeze(2)).squeeze(2))
            scaled = rows * (known * (p * (1 - p)).clamp_min(1e-3)).sqrt().unsqueeze(2)
            precision = torch.baddbmm(self.precision, scaled.transpose(1, 2), scaled)
            gradient = torch.bmm(((rewards - p) * known).unsqueeze(1), rows).squeeze(1) - (theta - self.mean) @ self.precision
            theta = theta + torch.cholesky_solve(gradient.unsqueeze(2), torch.linalg.cholesky(precision)).squeeze(2)
        return theta

    def features(self, items: Tensor, rewards: Tensor, session: int) -> Tensor:
        """(B,3D+4) the fold-in's interest, mean vectors of the log's positives and negatives, and four counts:
        log(1 + interactions), response rate, popularity of the log's positives and of all it shows."""
        interest = self.fold_in(items, rewards)[:, : self.width]
        log_items, log_rewards = items[:, : items.shape[1] - session], rewards[:, : items.shape[1] - session]
        known = (log_items >= 0).float()
        vectors = torch.cat([self.x[:, : self.width], self.level[:, None]], 1)
        positives, negatives = bag(vectors, log_items, log_rewards * known), bag(vectors, log_items, (1 - log_rewards) * known)
        shown = known.sum(1, keepdim=True)
        yes = (log_rewards * known).sum(1, keepdim=True)
        count = (items >= 0).sum(1, keepdim=True)
        counts = [
            torch.log1p(count.float()),
            rewards.sum(1, keepdim=True) / count.clamp_min(1),
            positives[:, -1:] / yes.clamp_min(1),
            (positives + negatives)[:, -1:] / shown.clamp_min(1),
        ]
        return torch.cat(
            [interest, positives[:, :-1] / yes.clamp_min(1), negatives[:, :-1] / (shown - yes).clamp_min(1), *counts], 1
        )


def evidence_parts(factors: Factors, level: Tensor) -> dict[str, Tensor]:
    """The tensors of an `Evidence` from disentangled factors, with the prior that the training users suggest."""
    users = torch.cat([factors.users, factors.user_bias[:, None], factors.conformity[:, None]], 1)
    width = users.shape[1]
    ones = torch.ones(len(factors.items), 1)
    return {
        "mean": users.mean(0),
        "precision": torch.linalg.inv(torch.cov(users.T) + 1e-3 * torch.eye(width)),
        "x": torch.cat([factors.items, ones, factors.curve[:, None]], 1),
        "base": factors.offset + factors.item_bias + factors.curve,
        "level": level,
    }


def _trim(items: Tensor, rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Without the leading columns that are empty for every user (at least one column stays); all of them in a traced program,
    whose shapes may not depend on values."""
    if torch.compiler.is_exporting():
        return items, rewards
    known = (items >= 0).any(0)
    first = int(known.int().argmax()) if bool(known.any()) else items.shape[1] - 1
    return items[:, first:], rewards[:, first:]
