"""SAC4IR: where a larger target entropy leads."""

from __future__ import annotations

import functools
from typing import Any

import torch

from contract_methods import Parts, spec_of
from engine.recorder import MemoryRecorder


@functools.cache
def after(entropy: float, **options: Any) -> tuple[float, float, float, float]:
    """Entropy in nats, α and greedy R_cum at the end of 800 episodes, and the share of the catalogue that draws reach."""
    parts = Parts(spec_of("sac4ir", {"entropy": entropy, "updates": 8, "alpha_rate": 0.03, **options}))
    recorder = MemoryRecorder()
    policy = parts.learn(recorder, episodes=800)
    obs, generator = parts.test.reset(torch.arange(60), 0), torch.Generator().manual_seed(1)
    drawn = policy.act(obs, generator=generator)
    history = recorder.history
    last = [list(history[name].values())[-1] if name in history else 0.0 for name in ("entropy", "alpha", "r_cum")]
    return last[0], last[1], last[2], len(drawn.unique()) / 360


def test_a_larger_target_entropy_gives_a_flatter_policy_and_wider_coverage() -> None:
    sharp, flat = after(0.3), after(0.9)
    assert flat[0] > sharp[0] + 0.5
    assert flat[1] > sharp[1]
    assert flat[3] > sharp[3]


def test_it_learns_more_than_its_start_knows() -> None:
    assert after(0.5)[2] > after(0.5, warm_up=10_000)[2]
