"""The update of TD3, and of DDPG as its special case, on plain tensors: nothing here knows of slates.

Fujimoto et al. 2018 (TD3), Lillicrap et al. 2016 (DDPG). Rewards and values are vectors of M objectives, combined with
weights per sample; ordinary TD3 is M = 1 with weights of 1. One critic, no target noise and delay 1 is DDPG.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Transitions:
    """n samples. state, following (n,F): what actor and critics see before and after; action (n,A), the one executed; reward
    (n,M); stays bool (n,), False where the session ended and nothing may be bootstrapped; weights (n,M) of the objectives."""

    state: Tensor
    action: Tensor
    reward: Tensor
    following: Tensor
    stays: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Steps:
    """Constants of the update. Noise is in units of the action, per coordinate; `clip` bounds each coordinate of it."""

    gamma: float
    tau: float
    actor_rate: float
    critic_rate: float
    noise: float
    clip: float
    delay: int


class TD3:
    """Networks, their targets and optimisers.

    actor: states (n,F) → actions (n,A). critics: states, actions → values (C,n,M) of C critics. legal: maps any (n,A) to
    executable actions, e.g. a clamp or a normalisation; applied to target actions with noise.
    """

    def __init__(self, actor: nn.Module, critics: nn.Module, legal: Callable[[Tensor], Tensor], steps: Steps) -> None:
        self.actor, self.critics, self.legal, self.steps = actor, critics, legal, steps
        self.target_actor, self.target_critics = copy.deepcopy(actor), copy.deepcopy(critics)
        self.actor_adam = torch.optim.Adam(actor.parameters(), lr=steps.actor_rate, fused=True)
        self.critic_adam = torch.optim.Adam(critics.parameters(), lr=steps.critic_rate, fused=True)
        self.updates = 0
        self._actor_loss = torch.zeros(())

    @torch.no_grad()
    def target(self, batch: Transitions, generator: torch.Generator) -> Tensor:
        """(n,M) what the critics should say: reward, and the more pessimistic critic's value of the smoothed next action."""
        action = self.target_actor(batch.following)
        if self.steps.noise > 0:
            noise = torch.randn(action.shape, generator=generator, device=generator.device).to(action.device)
            action = self.legal(action + (self.steps.noise * noise).clamp(-self.steps.clip, self.steps.clip))
        values = self.target_critics(batch.following, action)
        worst = (values * batch.weights).sum(2).argmin(0)  # (n,) the critic with the smaller weighted value
        value = values[worst, torch.arange(len(worst), device=worst.device)]
        return batch.reward + self.steps.gamma * batch.stays.unsqueeze(1) * value

    def update(self, batch: Transitions, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the critics and, every `delay` of them, one of the actor and of all targets."""
        target = self.target(batch, generator)
        values = self.critics(batch.state, batch.action)
        critic_loss = (values - target).pow(2).mean((1, 2)).sum()
        self.critic_adam.zero_grad()
        critic_loss.backward()
        self.critic_adam.step()
        self.updates += 1
        if self.updates % self.steps.delay == 0:
            self.critics.requires_grad_(False)
            loss = -(self.critics(batch.state, self.actor(batch.state))[0] * batch.weights).sum(1).mean()
            self.actor_adam.zero_grad()
            loss.backward()
            self.actor_adam.step()
            self.critics.requires_grad_(True)
            self._actor_loss = loss.detach()
            self._follow()
        found = {"critic_loss": critic_loss.detach(), "actor_loss": self._actor_loss.to(values.device)}
        return found | {"value": (values[0].detach() * batch.weights).sum(1).mean()}

    @torch.no_grad()
    def _follow(self) -> None:
        """Targets go τ of the way to their networks."""
        pairs = ((self.target_actor, self.actor), (self.target_critics, self.critics))
        targets: list[Tensor] = list(itertools.chain.from_iterable(target.parameters() for target, _ in pairs))
        sources: list[Tensor] = list(itertools.chain.from_iterable(source.parameters() for _, source in pairs))
        torch._foreach_lerp_(targets, sources, self.steps.tau)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on."""
        parts = ("actor", "critics", "target_actor", "target_critics", "actor_adam", "critic_adam")
        kept = {name: copy.deepcopy(getattr(self, name).state_dict()) for name in parts}
        return {**kept, "updates": self.updates, "actor_loss": self._actor_loss}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over another's networks, optimisers and counters."""
        for name in ("actor", "critics", "target_actor", "target_critics", "actor_adam", "critic_adam"):
            getattr(self, name).load_state_dict(state[name])
        self.updates, self._actor_loss = int(state["updates"]), state["actor_loss"]
