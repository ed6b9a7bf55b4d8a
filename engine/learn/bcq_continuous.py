"""The update of continuous batch-constrained Q-learning, on plain tensors: nothing here knows of slates.

Fujimoto et al. 2019, "Off-Policy Deep Reinforcement Learning without Exploration". A variational autoencoder conditioned on
the state learns which actions the log takes; candidates are drawn from it and moved a little by a perturbation network, and
the best of them by the critics counts. So values of actions that the log never takes cannot leak into the targets.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from engine import nets
from engine.learn.bcq import Transitions
from engine.learn.dqn import follow

LATENT_BOUND = 0.5  # of each coordinate when candidates are drawn: near the middle of what the log does
LOG_STD = (-4.0, 15.0)  # the bounds of the encoder's answer


@dataclass(frozen=True)
class Steps:
    """Constants of the update. pessimism: weight of the smaller critic in a target, the larger has the rest; candidates:
    drawn for each target; tau: how far targets go to their networks."""

    rate: float
    tau: float
    pessimism: float
    candidates: int


class Imitation(nn.Module):
    """A conditional variational autoencoder of the log's actions (n,A) in states (n,F), with `latent` coordinates.

    finish: states and the decoder's raw answer (n,A) → actions. scale: what makes an action's coordinates about 1.
    """

    def __init__(
        self, inputs: int, actions: int, latent: int, hidden: int, finish: Callable[[Tensor, Tensor], Tensor], scale: float,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent, self.finish, self.scale = latent, finish, scale
        self.encoder = nets.mlp((inputs + actions, hidden, hidden, 2 * latent), generator, activation=nn.ReLU)
        self.decoder = nets.mlp((inputs + latent, hidden, hidden, actions), generator, activation=nn.ReLU, last_gain=0.0)

    def decode(self, state: Tensor, latent: Tensor) -> Tensor:
        """(n,A) the actions of latents (n,L)."""
        return self.finish(state, self.decoder(torch.cat([state, latent], 1)) / self.scale)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """(count,L) latents of candidates."""
        drawn = torch.randn(count, self.latent, generator=generator, device=generator.device)
        return drawn.clamp(-LATENT_BOUND, LATENT_BOUND)

    def loss(self, state: Tensor, action: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the reconstruction, plus half the mean divergence of the code from a standard normal."""
        mean, log_std = self.encoder(torch.cat([state, self.scale * action], 1)).chunk(2, 1)
        std = log_std.clamp(*LOG_STD).exp()
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
        error = self.scale * (self.decode(state, mean + std * noise) - action)
        divergence = -0.5 * (1 + 2 * std.log() - mean.pow(2) - std.pow(2)).mean()
        return error.pow(2).mean() + 0.5 * divergence


class ContinuousBCQ:
    """Networks, their targets and optimisers.

    perturbation: states (n,F), actions (n,A) → executable actions near them. critics: states, actions → values (2,n,1).
    """

    def __init__(self, imitation: Imitation, perturbation: nn.Module, critics: nn.Module, steps: Steps) -> None:
        self.imitation, self.perturbation, self.critics, self.steps = imitation, perturbation, critics, steps
        self.target_perturbation, self.target_critics = copy.deepcopy(perturbation), copy.deepcopy(critics)
        self.imitation_adam, self.perturbation_adam, self.critic_adam = (
            torch.optim.Adam(net.parameters(), lr=steps.rate, fused=True) for net in (imitation, perturbation, critics)
        )

    @torch.no_grad()
    def best(self, state: Tensor, latents: Tensor) -> Tensor:
        """(n,A) for each state (n,F) the candidate of `latents` (C,L) that the first critic values most."""
        many, count = state.repeat_interleave(len(latents), 0), len(latents)
        actions = self.perturbation(many, self.imitation.decode(many, latents.repeat(len(state), 1)))
        choice = self.critics(many, actions)[0, :, 0].view(-1, count).argmax(1)
        found: Tensor = actions.view(len(state), count, -1)[torch.arange(len(state), device=choice.device), choice]
        return found

    @torch.no_grad()
    def target(self, batch: Transitions, generator: torch.Generator) -> Tensor:
        """(n,) y = returns + discount · max over candidates of w·min Q′ + (1 − w)·max Q′, over both critics (its Eq. 13)."""
        count, weight = self.steps.candidates, self.steps.pessimism
        many = batch.following.repeat_interleave(count, 0)
        latents = self.imitation.draw(len(many), generator).to(many.device)
        values = self.target_critics(many, self.target_perturbation(many, self.imitation.decode(many, latents)))[..., 0]
        mixed = weight * values.amin(0) + (1 - weight) * values.amax(0)
        return batch.returns + batch.discount * mixed.view(-1, count).amax(1)

    def update(self, batch: Transitions, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the imitation, of the critics and of the perturbation, after which targets follow. Actions (n,A)."""
        # 1. What the log does.
        imitation_loss = self.imitation.loss(batch.inputs, batch.action, generator)
        _descend(self.imitation_adam, imitation_loss)
        # 2. What it is worth, and what the best of what the log might have done after it is worth.
        target = self.target(batch, generator)
        q_loss = (self.critics(batch.inputs, batch.action)[..., 0] - target).pow(2).mean(1).sum()
        _descend(self.critic_adam, q_loss)
        # 3. Small moves that the first critic likes.
        latents = self.imitation.draw(len(batch), generator).to(batch.inputs.device)
        with torch.no_grad():
            drawn = self.imitation.decode(batch.inputs, latents)
        self.critics.requires_grad_(False)
        actor_loss = -self.critics(batch.inputs, self.perturbation(batch.inputs, drawn))[0].mean()
        _descend(self.perturbation_adam, actor_loss)
        self.critics.requires_grad_(True)
        follow(self.target_critics, self.critics, self.steps.tau)
        follow(self.target_perturbation, self.perturbation, self.steps.tau)
        losses = {"q_loss": q_loss, "imitation_loss": imitation_loss, "actor_loss": actor_loss}
        return {**{name: loss.detach() for name, loss in losses.items()}, "target": target.mean()}

    _PARTS = (
        "imitation", "perturbation", "critics", "target_perturbation", "target_critics", "imitation_adam",
        "perturbation_adam", "critic_adam",
    )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        return {name: copy.deepcopy(getattr(self, name).state_dict()) for name in self._PARTS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over another's networks and optimisers."""
        for name in self._PARTS:
            getattr(self, name).load_state_dict(state[name])


def _descend(adam: torch.optim.Optimizer, loss: Tensor) -> None:
    adam.zero_grad()
    loss.backward()
    adam.step()
