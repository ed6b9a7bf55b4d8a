"""Observed vectors learnt with T-CE: the positives with the largest loss are left out (Wang et al., WSDM 2021)

The state is the paper's s_t, the mean vector of what the user responded to, over vectors that are learnt from each batch
without the share ε(t) of its positive rows whose cross-entropy is largest:

    ε(t) = ε_max · min(t / t_max, 1),   t counted in iterations (steps of Adam), not epochs.

Differences from the source: 1. t_max is 500, theirs 1,000 to 30,000: with the default 12 epochs a log of 16,000 rows or more is
passed in 770 to 1,060 iterations (`synthetic` 1,056, `ml-100k` 768), so ε_max is reached at about half of them. 2. ε is a share
of the batch's positives, as their paper says; their code takes it of all rows. 3. negatives are what the log showed without a
response, not items drawn at random. 4. matrix factorisation with Gaussian priors (theirs: GMF and NeuMF); its vectors alone are
used. 5. a reward between 0 and 1 counts as positive, with its loss times the reward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.options import Config as BaseConfig
from engine.options import option
from engine.purify.identity import ObservedView
from engine.purify.view import calibrate
from engine.state.stage import Stage


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `tce`."""

    drop_rate: float = option(
        0.2, "ε_max, the share of positives left out in the end", low=0, high=0.9, source="authors' code: 0.05 to 0.2"
    )
    ramp: int = option(
        500, "iterations until ε_max is reached; see the notes of the method", low=1, high=1_000_000,
        source="our choice (authors' code: 1,000 to 30,000, on longer training)",
    )  # fmt: skip


def dropped_share(step: int, config: Config) -> float:
    """ε(t) at iteration `step`, counted from 0."""
    return config.drop_rate * min(step / config.ramp, 1.0)


def weights(loss: Tensor, reward: Tensor, share: float) -> Tensor:
    """(n,) 0 for the `share` (rounded) of positive rows with the largest loss (n,), else 1."""
    many = round(share * int((reward > 0).sum()))
    kept = torch.ones_like(loss)
    kept[(loss * reward).topk(many).indices] = 0.0  # negatives come last: their product is 0
    return kept


def fit(stage: Stage, config: Config, generator: torch.Generator) -> ObservedView:
    """Learn the vectors as `identity` does, from the same start and in the same batches, but for what is left out."""
    factors = stage.reweighed(
        "T-CE", lambda loss, probability, reward, step: weights(loss, reward, dropped_share(step, config))
    )
    view = ObservedView({"items": factors.items})
    calibrate(view, stage, learn_bias=True)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> ObservedView:
    """The view whose state_dict is `tensors`."""
    return ObservedView(tensors)
