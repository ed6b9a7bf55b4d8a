"""What the slow comparisons with Stable-Baselines3 share: greedy returns, its learners, and what "within its spread" means."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

Choose = Callable[[np.ndarray], np.ndarray]  # observations (100,…) → actions (100,…)
EPISODES = 100


def standing(choose: Choose) -> float:
    """CartPole-v1: mean steps of 100 greedy episodes, at most 500."""
    gym = pytest.importorskip("gymnasium")
    worlds = gym.make_vec("CartPole-v1", num_envs=EPISODES, vectorization_mode="vector_entry_point")
    now, _ = worlds.reset(seed=999_983)
    up, total = torch.ones(EPISODES, dtype=torch.bool), 0
    for _ in range(500):
        total += int(up.sum())
        now, _, fell, late, _ = worlds.step(choose(now))
        up = up & ~torch.as_tensor(fell) & ~torch.as_tensor(late)
    worlds.close()
    return total / EPISODES


def swinging(choose: Choose) -> float:
    """Pendulum-v1: mean return of 100 greedy episodes, of 200 steps each."""
    gym = pytest.importorskip("gymnasium")
    worlds = gym.make_vec("Pendulum-v1", num_envs=EPISODES, vectorization_mode="sync")
    now, _ = worlds.reset(seed=1000)
    total = np.zeros(EPISODES)
    for _ in range(200):
        now, reward, *_ = worlds.step(choose(now))
        total += reward
    worlds.close()
    return float(total.mean())


def looks(steps: int) -> list[int]:
    """When policies are looked at: four times in the last fifth of a training, for policies come and go."""
    return [steps * part // 100 for part in (85, 90, 95, 100)]


def theirs(learner: str, world: str, steps: int, seed: int, judge: Callable[[Choose], float], **options: Any) -> float:
    """What late policies of Stable-Baselines3's `learner` reach on the average, with its defaults but for `options`."""
    sb3 = pytest.importorskip("stable_baselines3")
    callbacks = pytest.importorskip("stable_baselines3.common.callbacks")
    found, when = [], set(looks(steps))

    class Look(callbacks.BaseCallback):  # type: ignore[name-defined, misc]
        def _on_step(self) -> bool:
            if self.num_timesteps in when:
                found.append(judge(lambda now: self.model.predict(now, deterministic=True)[0]))
            return True

    torch.set_num_threads(1)
    agent = getattr(sb3, learner)("MlpPolicy", world, seed=seed, device="cpu", **options)
    agent.learn(steps, callback=Look())
    assert len(found) == len(when)
    return statistics.mean(found)


def within_spread(what: str, ours: Sequence[float], other: Sequence[float], slack: float = 0.0) -> None:
    """Holds where the mean of ours is not below the mean of theirs by more than half their range, or by `slack`, a hundredth of
    what learning brings, where their seeds agree so well that a range says nothing."""
    print(f"{what}: {[round(x, 1) for x in ours]}, Stable-Baselines3 {[round(x, 1) for x in other]}")
    assert statistics.mean(ours) >= statistics.mean(other) - max((max(other) - min(other)) / 2, slack)
