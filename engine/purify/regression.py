"""A network that maps the evidence in a history to the long-run interest: the posterior mean, no diffusion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine import nets
from engine.contracts import Obs
from engine.options import Config as BaseConfig
from engine.options import option
from engine.purify.interest import InterestView, draw_samples, tensors_of
from engine.purify.view import calibrate
from engine.state.stage import Stage


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `regression`; trained like `diffusion`, so that the two can be compared."""

    hidden: int = option(128, "width of the network's layers", low=4, high=4096)
    parts: int = option(80_000, "random parts of histories to learn from", low=1, high=10_000_000)
    training_steps: int = option(3000, "steps of Adam", low=1, high=1_000_000)
    batch: int = option(256, "samples in one step", low=1, high=65_536)
    learning_rate: float = option(2e-3, "Adam's largest step size (one cycle)", above=0, high=1)


class RegressionView(InterestView):
    """ŝ = network(features) + linear(features)."""

    def __init__(self, config: Config, tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
        super().__init__(tensors)
        inputs, width = len(self.features_mean), len(self.target_mean)
        self.net = nets.mlp((inputs, config.hidden, config.hidden, width), generator)
        self.skip = nets.linear(inputs, width, generator)

    def estimate(self, features: Tensor) -> Tensor:
        """(B,D) standardised interest."""
        return self.net(features) + self.skip(features)

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        features, _ = self.standard(obs)
        state = self.estimate(features) * self.target_std + self.target_mean
        return state if samples == 1 else state.unsqueeze(1).expand(-1, samples, -1)


def fit(stage: Stage, config: Config, generator: torch.Generator) -> RegressionView:
    """Least squares on parts of the training users' histories."""
    samples = draw_samples(stage, config.parts, generator)
    view = RegressionView(config, tensors_of(stage, samples), generator)
    nets.fit(
        view,
        lambda rows: F.mse_loss(view.estimate(samples.features[rows]), samples.target[rows]),
        len(samples.target),
        steps=config.training_steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        generator=generator,
        watch=lambda done: stage.watch("regression", done),
    )
    calibrate(view, stage, learn_bias=False)
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> RegressionView:
    """The view whose state_dict is `tensors`."""
    view = RegressionView(config, tensors, torch.Generator())
    view.load_state_dict(dict(tensors))
    return view
