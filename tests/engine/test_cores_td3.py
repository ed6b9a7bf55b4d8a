"""The core of TD3 and DDPG on small tasks whose answer is known.

Slow: Pendulum-v1 beside Stable-Baselines3 2.9.2's TD3. Means of late policies, seeds 0 to 2: −158, −156, −157
(theirs −160, −155, −155).
"""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch
from torch import Tensor, nn

from beside_sb3 import looks, swinging, theirs, within_spread
from engine import nets
from engine.learn.td3 import TD3, Steps, Transitions


class Actor(nn.Module):
    """States (n,F) → one action in [−limit, limit]."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], limit: float, generator: torch.Generator) -> None:
        super().__init__()
        self.limit = limit
        self.net = nets.mlp((inputs, *hidden, 1), generator, activation=nn.ReLU)

    def forward(self, state: Tensor) -> Tensor:
        return self.limit * torch.tanh(self.net(state) / self.limit)


class Critics(nn.Module):
    """Values (C,n,M)."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], count: int, goals: int, generator: torch.Generator) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets.mlp((inputs + 1, *hidden, goals), generator, activation=nn.ReLU) for _ in range(count))

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return torch.stack([net(torch.cat([state, action], 1)) for net in self.nets])


def test_a_linear_quadratic_problem_is_solved_off_policy() -> None:
    """s′ = s + a at cost s² + a²: the best action is −k·s and its value −P·s² (Riccati), learnt from random actions alone."""
    torch.set_num_threads(1)
    gamma, cost = 0.5, 1.0
    for _ in range(100):
        cost = 1 + gamma * cost - (gamma * cost) ** 2 / (1 + gamma * cost)
    gain = gamma * cost / (1 + gamma * cost)
    generator = torch.Generator().manual_seed(3)
    core = TD3(
        Actor(1, (32, 32), 2.0, generator),
        Critics(1, (64, 64), 2, 1, generator),
        lambda action: action.clamp(-2, 2),
        Steps(gamma, 0.05, 2e-3, 3e-3, 0.05, 0.1, 2),
    )
    for _ in range(1500):
        state = 4 * torch.rand(128, 1, generator=generator) - 2
        action = 3 * torch.rand(128, 1, generator=generator) - 1.5
        reward = -(state**2) - action**2
        stays = torch.ones(128, dtype=torch.bool)
        core.update(Transitions(state, action, reward, state + action, stays, torch.ones(128, 1)), generator)
    state = torch.linspace(-1, 1, 21).unsqueeze(1)
    with torch.no_grad():
        action = core.actor(state)
        value = core.critics(state, action)[0]
    slope = (state * action).sum() / (state**2).sum()
    assert slope.item() == pytest.approx(-gain, abs=0.06)
    assert (action + gain * state).abs().mean() < 0.08
    assert (value + cost * state**2).abs().mean() < 0.1


def test_one_network_answers_every_weighting_of_two_goals() -> None:
    """Goals −(a − 1)² and −(a + 1)², no future, by DDPG told the weights: the best action is the weights' difference."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(4)
    core = TD3(
        Actor(2, (32, 32), 2.0, generator),
        Critics(2, (64, 64), 1, 2, generator),
        lambda action: action,
        Steps(0.9, 0.02, 3e-3, 3e-3, 0.0, 0.0, 1),
    )
    for _ in range(500):
        share = torch.rand(128, 1, generator=generator)
        weights = torch.cat([share, 1 - share], 1)
        action = 4 * torch.rand(128, 1, generator=generator) - 2
        reward = torch.cat([-((action - 1) ** 2), -((action + 1) ** 2)], 1)
        gone = torch.zeros(128, dtype=torch.bool)
        core.update(Transitions(weights, action, reward, weights, gone, weights), generator)
    share = torch.linspace(0, 1, 11).unsqueeze(1)
    weights = torch.cat([share, 1 - share], 1)
    with torch.no_grad():
        assert (core.actor(weights) - (2 * share - 1)).abs().max() < 0.12


def test_targets_take_the_smaller_of_both_critics_and_stop_at_an_exit() -> None:
    """Values known by hand: critics that answer 1 and 3 everywhere, reward 0.5, γ 0.9."""

    class Constant(nn.Module):
        def forward(self, state: Tensor, action: Tensor) -> Tensor:
            return self.values.expand(2, len(state), 1)

        def __init__(self) -> None:
            super().__init__()
            self.values = nn.Parameter(torch.tensor([3.0, 1.0]).view(2, 1, 1))

    generator = torch.Generator().manual_seed(0)
    core = TD3(Actor(1, (4,), 1.0, generator), Constant(), lambda action: action, Steps(0.9, 0.01, 1e-3, 1e-3, 0.2, 0.5, 2))
    one = torch.ones(2, 1)
    batch = Transitions(one, one, 0.5 * one, one, torch.tensor([True, False]), one)
    assert torch.allclose(core.target(batch, generator), torch.tensor([[1.4], [0.5]]))


def test_target_actions_are_smoothed_by_clipped_noise() -> None:
    """Critics that answer |a|, a target actor that answers 0, deviation 0.2: E|noise| = 0.2·√(2/π), never above the clip."""

    class Distance(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(1))

        def forward(self, state: Tensor, action: Tensor) -> Tensor:
            return (self.one * action.abs()).expand(2, -1, -1)

    generator, many = torch.Generator().manual_seed(0), torch.zeros(4000, 1)
    batch = Transitions(many, many, many, many, torch.ones(4000, dtype=torch.bool), torch.ones(4000, 1))
    found = []
    for clip in (100.0, 0.25):
        core = TD3(Actor(1, (4,), 1.0, generator), Distance(), lambda a: a, Steps(0.9, 0.01, 1e-3, 1e-3, 0.2, clip, 2))
        found.append(core.target(batch, generator))
    assert found[0].mean().item() == pytest.approx(0.9 * 0.2 * math.sqrt(2 / math.pi), rel=0.05)
    assert found[0].max() > 0.9 * 0.3
    assert found[1].max().item() == pytest.approx(0.9 * 0.25)


def test_the_actor_and_the_targets_wait_for_the_critics() -> None:
    generator = torch.Generator().manual_seed(0)
    core = TD3(
        Actor(1, (4,), 1.0, generator), Critics(1, (8,), 2, 1, generator), lambda a: a, Steps(0.9, 0.5, 1e-2, 1e-2, 0.2, 0.5, 3)
    )
    one = torch.rand(8, 1, generator=generator)
    batch = Transitions(one, one, one, one, torch.ones(8, dtype=torch.bool), torch.ones(8, 1))
    moved = []
    for _ in range(6):
        before = [p.clone() for p in itertools.chain(core.actor.parameters(), core.target_critics.parameters())]
        core.update(batch, generator)
        after = itertools.chain(core.actor.parameters(), core.target_critics.parameters())
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
    assert moved == [False, False, True, False, False, True]


STEPS, SEEDS = 20_000, (0, 1, 2)


def pendulum(seed: int) -> float:
    """Our core with the networks, batch and step sizes of theirs: mean return of late policies, the last above −200."""
    gymnasium = pytest.importorskip("gymnasium")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    core = TD3(
        Actor(3, (400, 300), 2.0, generator),
        Critics(3, (400, 300), 2, 1, generator),
        lambda action: action.clamp(-2, 2),
        Steps(0.99, 0.005, 1e-3, 1e-3, 0.4, 1.0, 2),  # noise 0.2 and 0.5 of the torque's half range 2
    )
    states, actions, rewards = torch.zeros(STEPS, 3), torch.zeros(STEPS, 1), torch.zeros(STEPS, 1)
    following, lasting = torch.zeros(STEPS, 3), torch.ones(256, dtype=torch.bool)
    found, when = [], set(looks(STEPS))
    world = gymnasium.make("Pendulum-v1")
    state = torch.from_numpy(world.reset(seed=seed)[0])
    for step in range(STEPS):
        if step < 100:
            action = 4 * torch.rand(1, generator=generator) - 2
        else:
            with torch.no_grad():
                action = (core.actor(state.unsqueeze(0))[0] + 0.2 * torch.randn(1, generator=generator)).clamp(-2, 2)
        after, reward, _, cut, _ = world.step(action.numpy())
        after = torch.from_numpy(after)
        states[step], actions[step], rewards[step], following[step] = state, action, reward, after
        state = torch.from_numpy(world.reset()[0]) if cut else after
        if step >= 100:
            rows = torch.randint(step + 1, (256,), generator=generator)
            core.update(
                Transitions(states[rows], actions[rows], rewards[rows], following[rows], lasting, torch.ones(256, 1)), generator
            )
        if step + 1 in when:
            with torch.no_grad():
                found.append(swinging(lambda now: core.actor(torch.from_numpy(now)).numpy()))
    assert found[-1] > -200
    return statistics.mean(found)


@pytest.mark.slow
def test_td3_swings_the_pendulum_up_as_well_as_stable_baselines() -> None:
    noise = pytest.importorskip("stable_baselines3.common.noise").NormalActionNoise([0.0], [0.1])  # of half the torque's range
    other = [theirs("TD3", "Pendulum-v1", STEPS, seed, swinging, action_noise=noise) for seed in SEEDS]
    mine = [pendulum(seed) for seed in SEEDS]
    within_spread(f"TD3, Pendulum-v1, {STEPS:,} steps", mine, other, slack=11.0)  # at random −1,266
