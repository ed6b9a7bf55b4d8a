"""The raw state with its linear popularity axis projected out: the strongest purifier that knows only straight lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.contracts import Obs
from engine.options import Config as BaseConfig
from engine.purify.view import View, calibrate
from engine.state.encoder import mean_of_positives, popularity_level
from engine.state.stage import Stage


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `projection`: no options."""


class ProjectedView(View):
    """s' = s − ⟨s − middle, axis⟩·axis, axis ∝ cov(s, popularity of the history's positives): afterwards it is 0."""

    axis: Tensor
    middle: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__(tensors)
        self.register_buffer("axis", tensors["axis"].clone())
        self.register_buffer("middle", tensors["middle"].clone())

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        state = mean_of_positives(self.items, obs.history, obs.rewards)
        state = state - ((state - self.middle) @ self.axis).unsqueeze(1) * self.axis
        return state if samples == 1 else state.unsqueeze(1).expand(-1, samples, -1)


def fit(stage: Stage, config: Config, generator: torch.Generator) -> ProjectedView:
    """The axis is measured on what is known of the training users when their sessions start."""
    obs, known = stage.starts()
    items = stage.observed.items
    state = mean_of_positives(items, obs.history, obs.rewards)[known]
    label = popularity_level(stage.items.log_popularity(), obs.history, obs.rewards)[known]
    middle = state.mean(0)
    axis = (label - label.mean()) @ (state - middle)
    view = ProjectedView({"items": items, "axis": axis / axis.norm().clamp_min(1e-12), "middle": middle})
    calibrate(view, stage, learn_bias=True)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> ProjectedView:
    """The view whose state_dict is `tensors`."""
    return ProjectedView(tensors)
