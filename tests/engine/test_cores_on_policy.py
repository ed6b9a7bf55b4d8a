"""The on-policy cores that `a2c` and `dsrm_hrl` are made of, where the right answer is known.

Slow: CartPole-v1 beside Stable-Baselines3 2.9.2's PPO and A2C with their defaults. Means of late policies, seeds 0 to 2:
PPO 500, 500, 500 (theirs 500, 500, 500), A2C 490, 496, 494 (500, 264, 390).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from beside_sb3 import looks, standing, theirs, within_spread
from engine import nets
from engine.learn.gae import advantages
from engine.learn.ppo import approximate_kl, clipped_loss, standardise

LONGEST = 500  # steps of CartPole-v1
SEEDS, PPO_STEPS, A2C_STEPS = (0, 1, 2), 114_688, 100_000


class Agent:
    """An actor and a critic, and one way to take gradient steps from whole episodes."""

    def __init__(
        self, inputs: int, actions: int, seed: int, *, rate: float, gamma: float, lam: float, clip: float | None
    ) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.actor = nets.mlp((inputs, 64, 64, actions), self.generator, activation=torch.nn.Tanh, last_gain=0.01)
        self.critic = nets.mlp((inputs, 64, 64, 1), self.generator, activation=torch.nn.Tanh)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=rate)
        self.gamma, self.lam, self.clip = gamma, lam, clip

    @torch.no_grad()
    def act(self, seen: Tensor, *, greedy: bool = False) -> Tensor:
        logits = self.actor(seen)
        if greedy:
            return logits.argmax(1)
        return torch.multinomial(logits.softmax(1), 1, generator=self.generator)[:, 0]

    def learn(self, seen: Tensor, action: Tensor, reward: Tensor, alive: Tensor, *, epochs: int, batch: int) -> None:
        """From episodes (T,B,…)."""
        with torch.no_grad():
            value = self.critic(seen)[..., 0]
            old = self.actor(seen).log_softmax(2).gather(2, action[..., None])[..., 0]
            gain = advantages(reward, value, alive, self.gamma, self.lam)
        flat = [part[alive] for part in (seen, action, old, gain, gain + value)]
        flat[3] = standardise(flat[3])
        for _ in range(epochs):
            for rows in torch.randperm(len(flat[0]), generator=self.generator).split(batch):
                state, chosen, before, scaled, returns = (part[rows] for part in flat)
                now = self.actor(state).log_softmax(1).gather(1, chosen[:, None])[:, 0]
                policy = -(now * scaled).mean() if self.clip is None else clipped_loss(now, before, scaled, self.clip)
                loss = policy + 0.5 * torch.nn.functional.mse_loss(self.critic(state)[:, 0], returns)
                self.adam.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*self.actor.parameters(), *self.critic.parameters()], 0.5)
                self.adam.step()


def episodes(agent: Agent, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`count` episodes of CartPole-v1 at once: what was seen (T,B,4), done, earned, and who was still up (T,B)."""
    gym = pytest.importorskip("gymnasium")
    worlds = gym.make_vec("CartPole-v1", num_envs=count, vectorization_mode="vector_entry_point")
    now, _ = worlds.reset(seed=seed)
    up = torch.ones(count, dtype=torch.bool)
    parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    while up.any() and len(parts) < LONGEST:
        seen = torch.as_tensor(now, dtype=torch.float32).clone()
        action = agent.act(seen)
        now, reward, fell, late, _ = worlds.step(action.numpy())
        parts.append((seen, action, torch.as_tensor(reward, dtype=torch.float32) * up, up))
        up = up & ~torch.as_tensor(fell) & ~torch.as_tensor(late)
    worlds.close()
    seen, action, reward, alive = (torch.stack(part) for part in zip(*parts, strict=True))
    return seen, action, reward, alive


def trained(agent: Agent, steps: int, *, users: int, epochs: int, batch: int) -> float:
    """How long the pole stands with late policies of about `steps` steps, on the average; with the last, nearly to the end."""
    torch.set_num_threads(1)
    done, round_, ahead, found = 0, 0, looks(steps), []
    while ahead:
        sessions = episodes(agent, users, 1000 * round_ + 1)
        agent.learn(*sessions, epochs=epochs, batch=batch)
        done += int(sessions[3].sum())
        round_ += 1
        while ahead and done >= ahead[0]:
            del ahead[0]
            found.append(standing(lambda now: agent.act(torch.as_tensor(now, dtype=torch.float32), greedy=True).numpy()))
    assert found[-1] >= 475
    return statistics.mean(found)


def ppo(seed: int) -> float:
    """Our PPO."""
    agent = Agent(4, 2, seed, rate=1e-3, gamma=0.99, lam=0.95, clip=0.2)
    return trained(agent, PPO_STEPS, users=16, epochs=5, batch=256)


def a2c(seed: int) -> float:
    """Our A2C."""
    agent = Agent(4, 2, seed, rate=1e-3, gamma=0.99, lam=1.0, clip=None)
    return trained(agent, A2C_STEPS, users=8, epochs=1, batch=512)


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "ours", "steps"), [("PPO", ppo, PPO_STEPS), ("A2C", a2c, A2C_STEPS)])
def test_the_pole_stands_as_long_as_with_stable_baselines(learner: str, ours: Callable[[int], float], steps: int) -> None:
    other = [theirs(learner, "CartPole-v1", steps, seed, standing) for seed in SEEDS]
    mine = [ours(seed) for seed in SEEDS]
    within_spread(f"{learner}, CartPole-v1, {steps:,} steps", mine, other, slack=4.8)  # at random 22


def corridor(agent: Agent, count: int, longest: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cells 0…4, start in 1: left of it lies 0.3 at once, right, after three steps, 1. Each ends the episode."""
    place, up = torch.ones(count, dtype=torch.int64), torch.ones(count, dtype=torch.bool)
    parts = []
    for _ in range(longest):
        seen = torch.nn.functional.one_hot(place, 5).float()
        action = agent.act(seen)
        place = place + 2 * action - 1
        reward = ((place == 0) * 0.3 + (place == 4) * 1.0) * up
        parts.append((seen, action, reward, up))
        up = up & (place > 0) & (place < 4)
        place = place.clamp(0, 4)
    seen, action, reward, alive = (torch.stack(part) for part in zip(*parts, strict=True))
    return seen, action, reward, alive


@pytest.mark.parametrize(("gamma", "right"), [(0.9, True), (0.4, False)])  # 0.9² = 0.81 > 0.3; 0.4² = 0.16 < 0.3
@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_discount_decides_between_near_and_far(gamma: float, right: bool, clip: float | None) -> None:
    agent = Agent(5, 2, 0, rate=3e-3, gamma=gamma, lam=0.95, clip=clip)
    for _ in range(120):
        agent.learn(*corridor(agent, 64, 12), epochs=2, batch=256)
    cells = torch.eye(5)[1:4]
    assert (agent.act(cells, greedy=True) == 1).tolist() == [right, True, True]  # from the middle on, right is always best
    # The critic's value of the start is what the best way earns, but for the little that is still explored.
    best = gamma**2 if right else 0.3
    assert agent.critic(cells[:1]).item() == pytest.approx(best, abs=0.06)


def test_the_clipped_loss_stops_pulling_where_it_clips() -> None:
    log = torch.tensor([0.3, -0.3, 0.3, -0.3], requires_grad=True)
    clipped_loss(log, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2).backward()
    assert log.grad is not None
    assert (log.grad != 0).tolist() == [False, True, True, False]
    assert approximate_kl(torch.zeros(3), torch.zeros(3)).item() == 0
