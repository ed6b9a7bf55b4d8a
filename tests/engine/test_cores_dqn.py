"""Q-learning's core where the right answer is known.

Slow: CartPole-v1 beside Stable-Baselines3 2.9.2's DQN, with its settings and step budget. Means of late policies, seeds 0 to 2:
321, 294, 406 (theirs 256, 471, 411).
"""

from __future__ import annotations

import copy
import statistics

import pytest
import torch
from torch import Tensor, nn

from beside_sb3 import looks, standing, theirs, within_spread
from engine import nets
from engine.learn import dqn

STATES, ACTIONS, GAMMA = 6, 3, 0.9


class Table(nn.Module):
    """Q(s, a) as one number each."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(STATES, ACTIONS))

    def forward(self, state: Tensor) -> Tensor:
        return self.values[state]


def task(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Deterministic: next state, reward (in −1…1) and whether the episode goes on, all (S,A)."""
    generator = torch.Generator().manual_seed(seed)
    following = torch.randint(STATES, (STATES, ACTIONS), generator=generator)
    reward = torch.rand(STATES, ACTIONS, generator=generator) * 2 - 1
    return following, reward, torch.rand(STATES, ACTIONS, generator=generator) < 0.8


def best_values(following: Tensor, reward: Tensor, stays: Tensor, closed: Tensor) -> Tensor:
    """(S,A) Q* by value iteration, where action a is not to be had in states with `closed` (S,A)."""
    q = torch.zeros(STATES, ACTIONS)
    for _ in range(500):
        q = reward + GAMMA * stays * q.masked_fill(closed, -torch.inf).max(1).values[following]
    return q


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("closing", [False, True])
def test_q_learning_finds_the_optimal_values_of_a_table(seed: int, closing: bool) -> None:
    following, reward, stays = task(seed)
    closed = torch.zeros(STATES, ACTIONS, dtype=torch.bool)
    if closing:
        closed[torch.arange(STATES), torch.arange(STATES) % ACTIONS] = True
    optimal = best_values(following, reward, stays, closed)
    generator = torch.Generator().manual_seed(seed)
    net = Table()
    target = copy.deepcopy(net)
    adam = torch.optim.Adam(net.parameters(), lr=0.1)
    for step in range(1500):
        for group in adam.param_groups:
            group["lr"] = 0.1 * (1 - step / 1500)
        state = torch.randint(STATES, (64,), generator=generator)
        action = torch.randint(ACTIONS, (64,), generator=generator)
        after = following[state, action]
        best = dqn.greedy_value(target(after), 1, closed[after])
        wanted = dqn.targets(reward[state, action], best, stays[state, action], GAMMA).detach()
        loss = dqn.loss(net(state).gather(1, action[:, None])[:, 0], wanted)
        adam.zero_grad()
        loss.backward()
        adam.step()
        dqn.follow(target, net, 0.2)
    assert net.values.detach().sub(optimal).abs().max() < 0.05


def test_a_slate_s_value_is_the_mean_of_its_best_open_items() -> None:
    values = torch.tensor([[1.0, 5.0, 3.0, 4.0]])
    blocked = torch.tensor([[False, True, False, False]])
    assert dqn.greedy_value(values, 2).tolist() == [4.5]
    assert dqn.greedy_value(values, 2, blocked).tolist() == [3.5]
    assert dqn.greedy_value(values, 1, blocked).tolist() == [4.0]


def test_nothing_is_expected_after_the_end() -> None:
    reward, following, stays = torch.ones(2, 3), torch.tensor([10.0, float("inf")]), torch.tensor([True, False])
    assert dqn.targets(reward, following, stays, 0.5).tolist() == [[6.0] * 3, [1.0] * 3]
    assert dqn.targets(reward[:, 0], following, stays, 0.5).tolist() == [6.0, 1.0]


STEPS, SEEDS = 50_000, (0, 1, 2)


def cart_pole(seed: int) -> float:
    """Our core with the settings that RL Baselines3 Zoo gives for CartPole-v1: how long the pole stands with late policies."""
    gym = pytest.importorskip("gymnasium")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    net = nets.mlp((4, 256, 256, 2), generator, activation=nn.ReLU)
    target = copy.deepcopy(net)
    adam = torch.optim.Adam(net.parameters(), lr=2.3e-3)
    found, when = [], set(looks(STEPS))
    seen, after = torch.zeros(STEPS, 4), torch.zeros(STEPS, 4)
    action, stays = torch.zeros(STEPS, dtype=torch.int64), torch.zeros(STEPS, dtype=torch.bool)
    world = gym.make("CartPole-v1")
    now, _ = world.reset(seed=seed)
    for step in range(STEPS):
        epsilon = max(0.04, 1 - 0.96 * step / (0.16 * STEPS))
        seen[step] = torch.as_tensor(now)
        if torch.rand((), generator=generator) < epsilon or step < 1000:
            action[step] = torch.randint(2, (), generator=generator)
        else:
            with torch.no_grad():
                action[step] = net(seen[step]).argmax()
        now, _, fell, late, _ = world.step(int(action[step]))
        after[step], stays[step] = torch.as_tensor(now), not fell
        if fell or late:
            now, _ = world.reset()
        if step >= 1000 and step % 256 == 255:
            for _ in range(128):
                rows = torch.randint(step + 1, (64,), generator=generator)
                with torch.no_grad():
                    best = dqn.greedy_value(target(after[rows]), 1)
                wanted = dqn.targets(torch.ones(64), best, stays[rows], 0.99)
                loss = dqn.loss(net(seen[rows]).gather(1, action[rows, None])[:, 0], wanted)
                adam.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(net.parameters(), 10)
                adam.step()
            dqn.follow(target, net, 1.0)
        if step + 1 in when:
            found.append(standing(lambda now: net(torch.as_tensor(now, dtype=torch.float32)).argmax(1).numpy()))
    world.close()
    return statistics.mean(found)


@pytest.mark.slow
def test_the_pole_stands_as_long_as_with_stable_baselines() -> None:
    zoo = {
        "learning_rate": 2.3e-3, "batch_size": 64, "buffer_size": 100_000, "learning_starts": 1000, "gamma": 0.99,
        "target_update_interval": 10, "train_freq": 256, "gradient_steps": 128, "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04, "policy_kwargs": {"net_arch": [256, 256]},
    }  # fmt: skip
    other = [theirs("DQN", "CartPole-v1", STEPS, seed, standing, **zoo) for seed in SEEDS]
    within_spread(f"DQN, CartPole-v1, {STEPS:,} steps", [cart_pole(seed) for seed in SEEDS], other)
