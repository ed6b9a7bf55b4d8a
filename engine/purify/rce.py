"""Observed vectors learnt with R-CE: interactions that the model doubts weigh less (Wang et al., WSDM 2021)

The state is the paper's s_t, the mean vector of what the user responded to, over vectors whose loss is

    Σ_n w_n·CE(ŷ_n, y_n) / Σ_n w_n,   w = ŷ^α where y = 1, (1 − ŷ)^α where y = 0, ŷ not differentiated,

so a response that is predicted with little confidence, and a silence where a response was expected, teach less.

Differences from the source: 1. negatives are what the log showed without a response, not items drawn at random. 2. the
weights are divided by their sum in each batch, so that the Gaussian priors of engine/factors.py keep their share. 3. the model
is matrix factorisation (theirs: GMF and NeuMF); its vectors alone are used. 4. a reward between 0 and 1 mixes both weights.
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
    """`purifier.*` of `rce`."""

    alpha: float = option(
        0.2, "α, how much doubt costs; 0 weighs all rows alike", low=0, high=5, source="authors' code: 0.1 to 0.3"
    )


def weights(probability: Tensor, reward: Tensor, alpha: float) -> Tensor:
    """(n,) weights of rows with predicted responses (n,) in [0, 1] and rewards (n,)."""
    return reward * probability**alpha + (1 - reward) * (1 - probability) ** alpha


def fit(stage: Stage, config: Config, generator: torch.Generator) -> ObservedView:
    """Learn the vectors as `identity` does, from the same start and in the same batches, but for the weights."""
    factors = stage.reweighed("R-CE", lambda loss, probability, reward, step: weights(probability, reward, config.alpha))
    view = ObservedView({"items": factors.items})
    calibrate(view, stage, learn_bias=True)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> ObservedView:
    """The view whose state_dict is `tensors`."""
    return ObservedView(tensors)
