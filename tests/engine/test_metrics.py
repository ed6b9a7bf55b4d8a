"""Metrics: golden values, directions, and their neglected corners."""

from __future__ import annotations

import pytest
import torch

from engine.contracts import Items, Sessions
from engine.learn.gae import advantages
from engine.learn.ppo import approximate_kl, clipped_loss
from engine.metrics import coverage, entropy, gini, lorenz, per_user, summary


def test_gini_golden_values() -> None:
    assert gini(torch.tensor([1, 1, 1, 1])) == pytest.approx(0.0)
    assert gini(torch.tensor([0, 0, 0, 1])) == pytest.approx(0.75)  # (n − 1)/n
    assert gini(torch.tensor([1, 3])) == pytest.approx(0.25)
    assert gini(torch.zeros(5)) == 0.0


def test_gini_counts_items_that_were_never_shown() -> None:
    assert gini(torch.tensor([2, 2, 0, 0])) == pytest.approx(0.5)


def test_spreading_exposure_lowers_gini_and_raises_entropy_and_coverage() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow = torch.bincount(torch.randint(5, (1000,), generator=generator), minlength=50)
    wide = torch.bincount(torch.randint(50, (1000,), generator=generator), minlength=50)
    assert gini(narrow) > gini(wide)
    assert entropy(narrow) < entropy(wide) <= 1
    assert coverage(narrow) == pytest.approx(0.1)


def test_lorenz_runs_from_0_to_1_below_the_diagonal() -> None:
    curve = lorenz(torch.tensor([0, 1, 2, 7]), points=5)
    assert curve.tolist() == pytest.approx([0, 0, 0.1, 0.3, 1.0])


@pytest.fixture
def sessions() -> tuple[Sessions, Items]:
    """Two users, slates of two out of five items, items 0 and 1 heads; the second user leaves after one step."""
    head = torch.tensor([True, True, False, False, False])
    items = Items(
        torch.arange(5, 0, -1), head, torch.zeros(5, 1, dtype=torch.bool), torch.zeros(5, dtype=torch.int64), ("x",), ()
    )
    alive = torch.tensor([[True, True], [True, False]])
    slates = torch.tensor([[[0, 2], [0, 1]], [[1, 3], [-1, -1]]])
    clicks = torch.tensor([[[1.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]])
    nothing = torch.zeros(2, 2)
    return Sessions(torch.tensor([4, 9]), alive, slates, clicks, clicks.mean(2), nothing, nothing.bool()), items


class Likes:
    preference = interest = conformity = torch.zeros(0)

    def genuine(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return items.float() / 10


def test_summary_golden_values(sessions: tuple[Sessions, Items]) -> None:
    got = summary(*sessions, Likes())  # type: ignore[arg-type]
    assert got["len"] == pytest.approx(1.5)
    assert got["r_cum"] == pytest.approx((0.5 + 1.0) / 2)
    assert got["r_each"] == pytest.approx(1.5 / 3)  # pooled over the three steps
    assert got["ad"] == pytest.approx(abs(2 * 4 / 6 - 1))
    assert got["ad_session"] == pytest.approx((0.0 + 1.0) / 2)
    assert got["ad_slate"] == pytest.approx((0.0 + 1.0 + 0.0) / 3)
    assert got["coverage"] == pytest.approx(4 / 5)
    assert got["gini"] == pytest.approx(gini(torch.tensor([2, 2, 1, 1, 0])))
    assert got["utility"] == pytest.approx((0.0 + 0.2 + 0.0 + 0.1 + 0.1 + 0.3) / 6)


def test_per_user_table(sessions: tuple[Sessions, Items]) -> None:
    table = per_user(*sessions, None)
    assert table["user"].tolist() == [4, 9]
    assert table["len"].tolist() == [2, 1]
    assert table["head_share"].tolist() == pytest.approx([0.5, 1.0])
    assert "utility" not in table


def test_balanced_batches_can_hide_unbalanced_slates() -> None:
    """One user sees only heads, the other only tails: AD of everything is 0, of sessions and slates 1."""
    head = torch.tensor([True, False])
    items = Items(torch.ones(2), head, torch.zeros(2, 1, dtype=torch.bool), torch.zeros(2, dtype=torch.int64), ("x",), ())
    slates, one = torch.tensor([[[0], [1]]]), torch.ones(1, 2)
    got = summary(Sessions(torch.arange(2), one.bool(), slates, one[..., None], one, one, one.bool()), items)
    assert (got["ad"], got["ad_session"], got["ad_slate"]) == (0, 1, 1)


def naive_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    following, result = 0.0, []
    for t in range(len(rewards) - 1, -1, -1):
        upcoming = values[t + 1] if t + 1 < len(values) else 0.0
        following = rewards[t] + gamma * upcoming - values[t] + gamma * lam * following
        result.append(following)
    return result[::-1]


def test_advantages_of_sessions_of_different_lengths() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(6, 3, generator=generator), torch.rand(6, 3, generator=generator)
    lengths = [6, 2, 4]
    alive = torch.arange(6)[:, None] < torch.tensor(lengths)
    got = advantages(rewards * alive, values, alive, 0.9, 0.8)
    for user, length in enumerate(lengths):
        wanted = naive_advantages(rewards[:length, user].tolist(), values[:length, user].tolist(), 0.9, 0.8)
        assert got[:length, user].tolist() == pytest.approx(wanted, rel=1e-5)
        assert (got[length:, user] == 0).all()


def test_nothing_is_bootstrapped_at_the_exit() -> None:
    """A user who leaves earns no value after it: the advantage of the last step is r − V."""
    alive = torch.tensor([[True], [False]])
    got = advantages(torch.tensor([[1.0], [0.0]]), torch.tensor([[0.25], [100.0]]), alive, 0.9, 1.0)
    assert got[0, 0].item() == pytest.approx(0.75)


def test_clipped_loss_golden_values() -> None:
    old = torch.zeros(4)
    new = torch.tensor([1.5, 0.5, 1.5, 0.5]).log()
    advantage = torch.tensor([1.0, 1.0, -1.0, -1.0])
    # min(1.5, 1.2), min(0.5, 0.8), min(−1.5, −1.2), min(−0.5, −0.8)
    assert clipped_loss(new, old, advantage, 0.2).item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8) / 4)
    assert approximate_kl(old, old).item() == 0.0
    assert approximate_kl(new, old).item() > 0
