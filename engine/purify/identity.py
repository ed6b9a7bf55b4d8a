"""The paper's raw state s_t: the mean observed vector of what the user responded to; nothing is purified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.contracts import Obs
from engine.options import Config as BaseConfig
from engine.purify.view import View, calibrate
from engine.state.encoder import mean_of_positives
from engine.state.stage import Stage


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `identity`: no options."""


class ObservedView(View):
    """s_t = mean of the observed vectors of a history's positives."""

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        state = mean_of_positives(self.items, obs.history, obs.rewards)
        return state if samples == 1 else state.unsqueeze(1).expand(-1, samples, -1)


def fit(stage: Stage, config: Config, generator: torch.Generator) -> ObservedView:
    """Only the prediction of clicks is fitted."""
    view = ObservedView({"items": stage.observed.items})
    calibrate(view, stage, learn_bias=True)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> ObservedView:
    """The view whose state_dict is `tensors`."""
    return ObservedView(tensors)
