"""Continuous actions over a catalogue: a vector in item space that ranks all items, its actors and its critics.

An item is [e_i/|e_i|, b_i/κ], its direction and intercept of stage I; a vector a scores it by their inner product. Only the
direction of a ranks, so executable vectors have length 1. Noise of size σ is drawn with σ/√A in each of A coordinates: σ is
its length beside a vector of length 1, about the tangent of the angle by which it turns it, whatever the width.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Obs, StateView
from engine.learn import inputs as told
from engine.learn.scorer import start_scale
from engine.learn.slate import top


def unit(vectors: Tensor) -> Tensor:
    """(n,A) to length 1."""
    return F.normalize(vectors, dim=1)


def perturbed(vectors: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """(n,A) executable vectors with Gaussian noise of size σ added."""
    noise = torch.randn(vectors.shape, generator=generator, device=generator.device).to(vectors.device)
    return unit(vectors + sigma / math.sqrt(vectors.shape[1]) * noise)


def noise_steps(sigma: float, deviations: float, actor: VectorActor) -> tuple[float, float]:
    """σ and its bound, in deviations, as `td3.Steps` wants them: per coordinate."""
    noise = sigma / math.sqrt(actor.points.shape[1])
    return noise, deviations * noise


def points_of(states: StateView) -> Tensor:
    """(I,A), A = D+1: the items as points that vectors score."""
    appeal = states.bias + states.curve
    lift = (appeal - appeal.mean()) / start_scale(states)
    return torch.cat([F.normalize(states.items, dim=1), lift.unsqueeze(1)], 1)


def predicted(state: Tensor) -> Tensor:
    """(n,A) vectors along [ŝ/|ŝ|, 1], which rank items about as predicted clicks do, for states (n,D)."""
    return unit(torch.cat([F.normalize(state, dim=1), torch.ones_like(state[:, :1])], 1))


class VectorSpace(nn.Module):
    """The catalogue as points (I,A), A = D+1, and the vector that ranks it as stage I's predicted clicks do. What is `sight`
    has the standardised state (n,D) in front."""

    points: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, states: StateView) -> None:
        super().__init__()
        points = points_of(states)
        self.register_buffer("points", points, persistent=False)  # (I,A)
        self.register_buffer("centre", states.centre.clone(), persistent=False)
        self.register_buffer("spread", states.spread.clone(), persistent=False)

    def start(self, sight: Tensor) -> Tensor:
        """(n,A) [ŝ/|ŝ|, 1], to length 1."""
        state = sight[:, : len(self.centre)] * self.spread + self.centre
        return predicted(state)

    def slates(self, vectors: Tensor, obs: Obs, count: int, repeats: bool) -> Tensor:
        """int64 (B,count): the items that the vectors (B,A) rank first, of those that may be shown."""
        return top(vectors @ self.points.T, count, obs.closed(repeats))


class VectorActor(VectorSpace):
    """Vectors (n,A) of length 1: the start and a residual that starts at 0, so that an untrained actor ranks items as predicted
    clicks do. Sees `policy_inputs` and, behind them, `extra` columns."""

    def __init__(self, states: StateView, extra: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__(states)
        sizes = (told.width(states) + extra, hidden, hidden, self.points.shape[1])
        self.residual = nets.mlp(sizes, generator, activation=nn.ReLU, last_gain=0.0)

    def forward(self, sight: Tensor) -> Tensor:
        return unit(self.start(sight) + self.residual(sight))


class VectorCritics(nn.Module):
    """Values (C,n,M) of vectors, by C critics of M objectives each. A critic sees what the actor sees, the vector, and its
    products, coordinate by coordinate, with the start, whose sum is their cosine."""

    def __init__(
        self, space: VectorSpace, inputs: int, count: int, goals: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self._space = [space]  # in a list: not a part of this module
        sizes = (inputs + 2 * space.points.shape[1], hidden, hidden, goals)
        self.critics = nn.ModuleList(nets.mlp(sizes, generator, activation=nn.ReLU) for _ in range(count))

    def forward(self, sight: Tensor, vectors: Tensor) -> Tensor:
        scale = math.sqrt(vectors.shape[1])  # coordinates of about 1
        products = self._space[0].start(sight) * vectors * scale**2
        seen = torch.cat([sight, vectors * scale, products], 1)
        return torch.stack([critic(seen) for critic in self.critics])


class Perturbation(nn.Module):
    """Vectors (n,A) of length 1 near given ones: each coordinate moves by at most `reach`/√A before they have length 1 again,
    so that `reach` bounds the move's length. Starts by moving nothing."""

    def __init__(self, inputs: int, actions: int, reach: float, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.reach = reach
        self.net = nets.mlp((inputs + actions, hidden, hidden, actions), generator, activation=nn.ReLU, last_gain=0.0)

    def forward(self, sight: Tensor, vectors: Tensor) -> Tensor:
        scale = math.sqrt(vectors.shape[1])
        return unit(vectors + self.reach / scale * torch.tanh(self.net(torch.cat([sight, scale * vectors], 1))))
