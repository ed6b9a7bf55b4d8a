"""Slates: draws follow Plackett–Luce, log-probabilities are exact, and nothing forbidden is ever shown."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch

from engine.learn.scorer import feasible_heads
from engine.learn.slate import log_probability, log_probability_quota, sample, sample_quota, top, top_quota

SCORES = torch.tensor([2.0, 1.0, 0.0, -1.0, 3.0])


def exact(scores: torch.Tensor, slate: tuple[int, ...], among: list[int]) -> float:
    """Plackett–Luce by the definition."""
    left, probability = list(among), 1.0
    for item in slate:
        weights = {i: scores[i].exp().item() for i in left}
        probability *= weights[item] / sum(weights.values())
        left.remove(item)
    return probability


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])  # at 4 most rows have too few distinct draws and are finished exactly
def test_draws_follow_plackett_luce(sharpness: float) -> None:
    scores, n = SCORES * sharpness, 60_000
    drawn = Counter(map(tuple, sample(scores.expand(n, -1), 3, None, torch.Generator().manual_seed(0)).tolist()))
    for slate in itertools.permutations(range(5), 3):
        wanted = exact(scores, slate, list(range(5)))
        assert abs(drawn[slate] / n - wanted) < 4 * (wanted / n) ** 0.5 + 1e-4


def test_log_probability_is_exact() -> None:
    for slate in itertools.permutations(range(5), 3):
        got = log_probability(SCORES[None], torch.tensor([slate]), None).sum().exp().item()
        assert got == pytest.approx(exact(SCORES, slate, list(range(5))), rel=1e-5)


def test_log_probability_knows_what_is_blocked() -> None:
    blocked = torch.tensor([[True, False, False, False, False]])
    got = log_probability(SCORES[None], torch.tensor([[4, 1]]), blocked).sum().exp().item()
    assert got == pytest.approx(exact(SCORES, (4, 1), [1, 2, 3, 4]), rel=1e-5)


def test_log_probability_survives_a_slate_that_holds_all_the_mass() -> None:
    scores = torch.tensor([[60.0, 50.0, 0.0, 0.0]], requires_grad=True)
    total = log_probability(scores, torch.tensor([[0, 1]]), None).sum()
    total.backward()
    assert total.item() == pytest.approx(0.0, abs=1e-4)
    assert torch.isfinite(scores.grad).all()


def test_quota_draws_each_group_by_its_own_law() -> None:
    n, among = 60_000, ([0, 1], [2, 3, 4])
    heads = torch.full((n,), 1)
    drawn = Counter(
        map(tuple, sample_quota(SCORES.expand(n, -1), heads, 3, 2, None, torch.Generator().manual_seed(1)).tolist())
    )
    total = 0.0
    for head in among[0]:
        for tail in itertools.permutations(among[1], 2):
            slate = (head, *tail)
            wanted = exact(SCORES, (head,), among[0]) * exact(SCORES, tail, among[1])
            got = log_probability_quota(SCORES[None], torch.tensor([slate]), torch.tensor([1]), 2, None).sum().exp().item()
            assert got == pytest.approx(wanted, rel=1e-5)
            assert abs(drawn[slate] / n - wanted) < 4 * (wanted / n) ** 0.5 + 1e-4
            total += got
    assert total == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("greedy", [True, False])
def test_quota_slates_are_distinct_unblocked_and_hold_their_heads(greedy: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    scores = 5 * torch.randn(500, 60, generator=generator)
    shown = torch.rand(500, 60, generator=generator).argsort(1)[:, :30]
    blocked = torch.zeros(500, 60, dtype=torch.bool).scatter_(1, shown, True)
    wanted = torch.randint(0, 9, (500,), generator=generator)
    heads = feasible_heads(wanted, shown, 15, 60, 8)
    pick = top_quota(scores, heads, 8, 15, shown) if greedy else sample_quota(scores, heads, 8, 15, shown, generator)
    assert torch.equal((pick < 15).sum(1), heads)
    assert not blocked.gather(1, pick).any()
    assert all(len(set(row)) == 8 for row in pick.tolist())
    assert torch.equal(heads[(~blocked[:, :15]).sum(1) >= 8], wanted[(~blocked[:, :15]).sum(1) >= 8])
    assert (heads != wanted).any()


def test_feasible_heads_bends_to_what_is_left() -> None:
    no_head_left, no_tail_left = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[4, 5, 6, 7, 8, 9]])
    assert feasible_heads(torch.tensor([2]), no_head_left, 4, 10, 4).tolist() == [0]
    assert feasible_heads(torch.tensor([2]), no_tail_left, 4, 10, 4).tolist() == [4]
    assert feasible_heads(torch.tensor([2]), None, 4, 10, 4).tolist() == [2]


def test_sampling_never_shows_a_blocked_item() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = 8 * torch.randn(400, 40, generator=generator)
    pick = sample(scores, 10, torch.arange(30).expand(400, -1), generator)
    assert torch.equal(pick.sort(1).values, torch.arange(30, 40).expand(400, -1))


def test_top_is_best_first() -> None:
    assert top(SCORES[None], 3, torch.tensor([[4]])).tolist() == [[0, 1, 2]]


def test_sampling_survives_shown_items_that_outweigh_all_others() -> None:
    """What is left weighs nothing beside what was shown: in float32 the CDF is flat, and the draw must still be exact."""
    scores = torch.tensor([[500.0, 1.0, 0.0, -1.0]]).expand(20_000, -1)
    shown = torch.zeros(20_000, 1, dtype=torch.int64)
    drawn = Counter(sample(scores, 1, shown, torch.Generator().manual_seed(0))[:, 0].tolist())
    for item in (1, 2, 3):
        assert drawn[item] / 20_000 == pytest.approx(exact(scores[0], (item,), [1, 2, 3]), abs=0.015)
