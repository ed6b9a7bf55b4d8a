"""The debiased target of purification, and samples to learn it from: part of a history → the long-run interest.

The target of a user is the mode of θ's posterior given *all* that the training log holds of them, with popularity,
conformity, activity and the items' appeal in factors of their own (state/encoder.py). The condition is the evidence in a
random part of that log: some rows as the log's part of a history, some as a session's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.contracts import Obs
from engine.purify.view import View
from engine.rows import last_rows
from engine.state.encoder import Evidence
from engine.state.stage import Stage

LONGEST = 240  # rows of a user's log that are used
BLOCK = 2048
EVIDENCE = "evidence."


@dataclass(frozen=True)
class Samples:
    """features (n,F) and target (n,D), both standardised by the statistics beside them; encoded (n,D): the fold-in of the
    same part of the history, standardised like the target."""

    features: Tensor
    target: Tensor
    encoded: Tensor
    features_mean: Tensor
    features_std: Tensor
    target_mean: Tensor
    target_std: Tensor


class InterestView(View):
    """Base of the views that estimate the interest from evidence; all of it is standardised as in `Samples`."""

    features_mean: Tensor
    features_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        inner = {name.removeprefix(EVIDENCE): value for name, value in tensors.items() if name.startswith(EVIDENCE)}
        self.evidence = Evidence(inner)
        for name in ("features_mean", "features_std", "target_mean", "target_std"):
            self.register_buffer(name, tensors[name].clone())

    def standard(self, obs: Obs) -> tuple[Tensor, Tensor]:
        """Standardised features (B,F) and fold-in (B,D) of what is seen."""
        features = self.evidence.features(obs.history, obs.rewards, obs.session)
        encoded = (features[:, : self.evidence.width] - self.target_mean) / self.target_std
        return (features - self.features_mean) / self.features_std, encoded


def tensors_of(stage: Stage, samples: Samples) -> dict[str, Tensor]:
    """What an InterestView is built from."""
    statistics = {name: getattr(samples, name) for name in ("features_mean", "features_std", "target_mean", "target_std")}
    evidence = {EVIDENCE + name: value for name, value in stage.evidence.state_dict().items()}
    factors = stage.disentangled
    return {"items": factors.items, "bias": factors.item_bias, "curve": factors.curve, **statistics, **evidence}


def long_run(evidence: Evidence, items: Tensor, rewards: Tensor) -> Tensor:
    """(users,D) target interest from everything that is logged of each user."""
    parts = zip(items.split(BLOCK), rewards.split(BLOCK), strict=True)
    return torch.cat([evidence.exact_fold_in(i, r)[:, : evidence.width] for i, r in parts])


@torch.no_grad()
def draw_samples(stage: Stage, count: int, generator: torch.Generator) -> Samples:
    """At least `count` random parts of training users' histories with their targets."""
    evidence = stage.evidence
    items, rewards = last_rows(stage.log, LONGEST)
    target = long_run(evidence, items, rewards)
    somebody = (items >= 0).any(1).nonzero()[:, 0]
    features, users = [], []
    for done in range(0, count, BLOCK):
        stage.watch("parts of histories", done / count)
        user = somebody[torch.randint(len(somebody), (BLOCK,), generator=generator)]
        shown, answers, session = part_of_history(items[user], rewards[user], generator)
        features.append(evidence.features(shown, answers, session))
        users.append(user)
    inputs, wanted = torch.cat(features), target[torch.cat(users)]
    inputs_mean, inputs_std = inputs.mean(0), inputs.std(0).clamp_min(1e-4)
    mean, std = target[somebody].mean(0), target[somebody].std(0).clamp_min(1e-4)
    encoded = (inputs[:, : evidence.width] - mean) / std
    return Samples((inputs - inputs_mean) / inputs_std, (wanted - mean) / std, encoded, inputs_mean, inputs_std, mean, std)


def part_of_history(items: Tensor, rewards: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, int]:
    """Random rows of each user (B,W) as a history: (B,2W) items and rewards, the last W columns being the session's part.

    Small parts come more often; in 40 % of the cases the session has not begun.
    """
    count, width = items.shape
    known = items >= 0
    order = torch.rand(count, width, generator=generator).masked_fill(~known, 2.0).argsort(1)
    items, rewards, n = items.gather(1, order), rewards.gather(1, order), known.sum(1, keepdim=True)
    logged = 1 + (torch.rand(count, 1, generator=generator) ** 1.5 * n).long().clamp_max(n - 1)
    session = (torch.rand(count, 1, generator=generator) * (n - logged + 1)).long()
    session = session * (torch.rand(count, 1, generator=generator) > 0.4)
    place = torch.arange(width)
    in_log, in_session = place < logged, (place >= logged) & (place < logged + session)
    shown = torch.cat([items.masked_fill(~in_log, -1), items.masked_fill(~in_session, -1)], 1)
    return shown, torch.cat([rewards * in_log, rewards * in_session], 1), width
