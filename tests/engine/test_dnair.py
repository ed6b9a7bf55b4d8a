"""DNaIR: its reward, and where a larger weight of novelty leads."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from contract_methods import Parts, spec_of
from engine.contracts import Dataset
from engine.methods.dnair import novelty_of
from engine.metrics import summary
from engine.recorder import MemoryRecorder


@functools.cache
def shown(novelty: float, **options: object) -> tuple[float, dict[str, float]]:
    """Mean log-popularity of what is shown after 600 episodes, and the metrics."""
    parts = Parts(spec_of("dnair", {"novelty": novelty, **options}))
    sessions = parts.play(parts.learn(MemoryRecorder(), episodes=600))
    items = parts.data.train.items
    return items.log_popularity()[sessions.slates[sessions.alive]].mean().item(), summary(sessions, items)


def test_a_larger_weight_of_novelty_shows_less_popular_items() -> None:
    levels = [shown(novelty)[0] for novelty in (0.0, 0.03, 0.3)]
    assert levels[0] > levels[1] > levels[2]


def test_it_learns_more_than_its_start_knows() -> None:
    """The start is stage I's prediction; without gradient steps nothing is added to it."""
    start = shown(0.0, warm_up=10_000)[1]
    assert shown(0.0)[1]["r_cum"] > start["r_cum"]


def test_novelty_is_quality_over_the_logarithm_of_popularity() -> None:
    """Two items: one shown three times and answered twice, one never shown."""
    parts = Parts(spec_of("dnair", {}))
    log = parts.data.train
    items = replace(log.items, popularity=torch.tensor([3, 0]))
    reward = torch.tensor([1.0, 1.0, 0.0])
    logs = Dataset(torch.arange(3), torch.zeros(3).long(), reward, torch.arange(3), None, 3, items)
    found = novelty_of(items, logs).tolist()
    assert found == pytest.approx([0.6 / 0.3222193, 0.5 / 0.0413927], rel=1e-4)  # q 3/5 and 1/2; log10 of 2.1 and 1.1
