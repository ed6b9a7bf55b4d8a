"""The core of continuous BCQ on small logged tasks whose best policy within the log is known."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine import nets
from engine.learn.bcq import Transitions
from engine.learn.bcq_continuous import ContinuousBCQ, Imitation, Steps

GAMMA = 0.5
Finish = Callable[[Tensor, Tensor], Tensor]


class Near(nn.Module):
    """Actions that move by at most `reach`."""

    def __init__(self, reach: float, generator: torch.Generator) -> None:
        super().__init__()
        self.reach, self.net = reach, nets.mlp((2, 32, 1), generator, activation=nn.ReLU, last_gain=0.0)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return action + self.reach * torch.tanh(self.net(torch.cat([state, action], 1)))


class Critics(nn.Module):
    """Values (2,n,1)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets.mlp((2, 64, 64, 1), generator, activation=nn.ReLU) for _ in range(2))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.stack([net(torch.cat([state, action], 1)) for net in self.nets])


def new(
    reach: float, generator: torch.Generator, candidates: int = 10, scale: float = 1.0, finish: Finish | None = None
) -> ContinuousBCQ:
    imitation = Imitation(1, 1, 2, 32, finish or (lambda state, raw: raw), scale, generator)
    return ContinuousBCQ(imitation, Near(reach, generator), Critics(generator), Steps(3e-3, 0.05, 0.75, candidates))


def logged(count: int, generator: torch.Generator) -> Transitions:
    """A bandit: in state s the log takes −s ± 0.3, reward is the action itself, so that the best logged one is −s + 0.3 and
    anything larger, which the log never shows, would seem better still."""
    state = 2 * torch.rand(count, 1, generator=generator) - 1
    action = -state + 0.6 * torch.rand(count, 1, generator=generator) - 0.3
    return Transitions(state, action, action[:, 0], state, torch.zeros(count))


@functools.cache
def chosen(reach: float) -> tuple[Tensor, Tensor, float]:
    """How far above −s the chosen action lies, (21,), the critic's value there less the action itself, and how far above −s
    the imitation's draws lie on average."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(1)
    core = new(reach, generator, scale=5.0, finish=lambda state, raw: raw - state)  # told where the log is about
    for _ in range(700):
        core.update(logged(128, generator), generator)
    state = torch.linspace(-1, 1, 21).unsqueeze(1)
    latents = core.imitation.draw(100, generator)
    action = core.best(state, latents)
    with torch.no_grad():
        error = core.critics(state, action)[0] - action
        drawn = core.imitation.decode(torch.zeros(100, 1), latents)
    return (action + state)[:, 0], error, drawn.mean().item()


def test_the_best_of_what_the_log_takes_is_found_and_nothing_beyond() -> None:
    above, error, drawn = chosen(0.0)
    assert abs(drawn) < 0.05
    assert above.min() > drawn + 0.05
    assert above.max() < 0.3
    assert error.abs().max() < 0.05


def test_the_perturbation_goes_as_far_as_it_may() -> None:
    """The reward grows beyond the log without end, so every bit of reach is taken; a large one leaves the log."""
    least = chosen(0.0)[0].mean()
    assert (chosen(0.05)[0].mean() - least).item() == pytest.approx(0.05, abs=0.02)
    assert chosen(1.0)[0].mean() > 0.8


def test_a_linear_quadratic_problem_is_solved_from_the_log() -> None:
    """s′ = s + a at cost s² + a²: the best action is −k·s and its value −P·s² (Riccati), learnt from random actions."""
    torch.set_num_threads(1)
    cost = 1.0
    for _ in range(100):
        cost = 1 + GAMMA * cost - (GAMMA * cost) ** 2 / (1 + GAMMA * cost)
    gain = GAMMA * cost / (1 + GAMMA * cost)
    generator = torch.Generator().manual_seed(3)
    core = new(0.5, generator)
    for _ in range(1500):
        state = 4 * torch.rand(128, 1, generator=generator) - 2
        action = 3 * torch.rand(128, 1, generator=generator) - 1.5
        reward = (-(state**2) - action**2)[:, 0]
        core.update(Transitions(state, action, reward, state + action, torch.full((128,), GAMMA)), generator)
    state = torch.linspace(-1, 1, 21).unsqueeze(1)
    action = core.best(state, core.imitation.draw(200, generator))
    with torch.no_grad():
        value = core.critics(state, action)[0]
    slope = (state * action).sum() / (state**2).sum()
    assert slope.item() == pytest.approx(-gain, abs=0.1)
    assert (value + cost * state**2).abs().mean() < 0.15


def test_targets_mix_both_critics_and_take_the_best_candidate() -> None:
    """Critics that answer a and 1 − a, and candidates 0 and 0.4: w·min + (1 − w)·max is 0.25 at 0 and 0.45 at 0.4."""

    class Known(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, state: Tensor, action: Tensor) -> Tensor:
            return torch.stack([self.one * action, self.one - action])

    generator = torch.Generator().manual_seed(0)
    core = new(0.0, generator, candidates=50)
    core.critics, core.target_critics = Known(), Known()
    core.imitation.finish = lambda state, raw: torch.where(torch.arange(len(raw)) % 2 == 0, 0.0, 0.4).unsqueeze(1)
    one = torch.ones(2, 1)
    batch = Transitions(one, one, torch.tensor([0.5, 0.5]), one, torch.tensor([0.9, 0.0]))
    assert core.target(batch, generator).tolist() == pytest.approx([0.5 + 0.9 * 0.45, 0.5])


def test_the_imitation_learns_both_modes_of_the_log() -> None:
    """Actions −1 and 1, half of the time each, whatever the state: draws near the middle of the code are of both kinds."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(2)
    core = new(0.0, generator)
    for _ in range(800):
        state = torch.rand(128, 1, generator=generator)
        action = torch.where(torch.rand(128, 1, generator=generator) < 0.5, -1.0, 1.0)
        core.update(Transitions(state, action, action[:, 0], state, torch.zeros(128)), generator)
    with torch.no_grad():
        drawn = core.imitation.decode(torch.full((400, 1), 0.5), core.imitation.draw(400, generator))
    share = (drawn > 0).float().mean().item()
    assert 0.2 < share < 0.8
    assert (drawn.abs() - 1).abs().mean() < 0.5
