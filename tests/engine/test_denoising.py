"""RCE, TCE and BOD: what each does to the rows of a log, and to rows that are known to be noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine import catalog
from engine.contracts import Data, Dataset
from engine.factors import Factors, Reweigh, factorise
from engine.options import BadInput
from engine.purify import bod, rce, tce
from engine.state.stage import Stage
from small import small_spec


def generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def planted(data: Data) -> tuple[Dataset, Tensor]:
    """The training log with 15 % of its silences turned into responses, and which rows those are."""
    log = data.train
    noisy = (log.reward == 0) & (torch.rand(len(log), generator=generator(0)) < 0.15)
    return replace(log, reward=torch.where(noisy, 1.0, log.reward)), noisy


def learn(log: Dataset, reweigh: Reweigh | None = None, weight: Tensor | None = None) -> Factors:
    return factorise(
        log, width=8, epochs=6, learning_rate=0.02, decay=20.0, generator=generator(), reweigh=reweigh, weight=weight
    )


def test_equal_weights_change_nothing(data: Data) -> None:
    plain, weighed = learn(data.train), learn(data.train, lambda loss, probability, reward, step: torch.full_like(loss, 0.3))
    assert torch.allclose(plain.items, weighed.items, atol=1e-4)


def test_weights_given_for_each_row_are_those_of_the_hook(data: Data) -> None:
    """Rows of weight 0 might as well not be there: their items keep only the prior's pull."""
    log = data.train
    known = log.item % 2 == 0
    some = learn(log, lambda loss, probability, reward, step: (reward >= 0).float(), weight=known.float())
    assert some.items[1::2].norm(dim=1).mean() < 0.5 * some.items[::2].norm(dim=1).mean()


def test_the_hook_sees_every_row_once_an_epoch_and_counts_steps(data: Data) -> None:
    seen: list[tuple[int, int]] = []

    def look(loss: Tensor, probability: Tensor, reward: Tensor, step: int) -> Tensor:
        assert not loss.requires_grad
        assert not probability.requires_grad
        assert torch.allclose(loss, F.binary_cross_entropy(probability, reward, reduction="none"), atol=1e-4)
        seen.append((step, len(reward)))
        return torch.ones_like(loss)

    learn(data.train, look)
    assert [step for step, _ in seen] == list(range(len(seen)))
    assert sum(rows for _, rows in seen) == 6 * len(data.train)


# RCE


def test_rce_golden_values() -> None:
    probability, reward = torch.tensor([0.9, 0.1, 0.9, 0.1, 0.25]), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.5])
    wanted = [0.9**0.5, 0.1**0.5, 0.1**0.5, 0.9**0.5, 0.5 * 0.25**0.5 + 0.5 * 0.75**0.5]
    assert rce.weights(probability, reward, 0.5).tolist() == pytest.approx(wanted, abs=1e-6)
    assert rce.weights(probability, reward, 0.0).tolist() == [1.0] * 5


def test_rce_weighs_less_what_is_confidently_wrong() -> None:
    probability = torch.linspace(0.01, 0.99, 50)
    assert (rce.weights(probability, torch.ones(50), 0.2).diff() > 0).all()
    assert (rce.weights(probability, torch.zeros(50), 0.2).diff() < 0).all()


def test_rce_trusts_planted_noise_less(planted: tuple[Dataset, Tensor]) -> None:
    log, noisy = planted
    found = learn(log, lambda loss, probability, reward, step: rce.weights(probability, reward, 0.2))
    weight = rce.weights(torch.sigmoid(found.logit(log.user, log.item)), log.reward, 0.2)
    clean = (log.reward > 0) & ~noisy
    assert weight[noisy].mean() < weight[clean].mean() - 0.015


def test_rce_without_alpha_is_identity_and_with_it_is_not(stage: Stage) -> None:
    plain = stage.observed.items
    same = rce.fit(stage, rce.Config(alpha=0.0), generator()).items
    other = rce.fit(stage, rce.Config(alpha=1.0), generator()).items
    assert torch.allclose(plain, same, atol=1e-4)
    assert (plain - other).abs().mean() > 100 * (plain - same).abs().mean()


# TCE


def test_tce_drops_the_share_it_says_and_only_positives() -> None:
    reward = (torch.rand(1000, generator=generator()) < 0.3).float()
    loss = torch.rand(1000, generator=generator(2)) + 5 * (1 - reward)  # negatives lose most and stay
    kept = tce.weights(loss, reward, 0.2)
    positives = int(reward.sum())
    assert int((kept == 0).sum()) == round(0.2 * positives)
    assert (kept[reward == 0] == 1).all()
    assert loss[kept == 0].min() >= loss[(kept == 1) & (reward == 1)].max()
    assert (tce.weights(loss, reward, 0.0) == 1).all()
    assert (tce.weights(loss, torch.zeros(1000), 0.9) == 1).all(), "nothing to drop without positives"


def test_the_drop_rate_rises_linearly_over_iterations_and_is_reached_in_training() -> None:
    config = tce.Config(drop_rate=0.1, ramp=200)
    assert [tce.dropped_share(step, config) for step in (0, 50, 100, 200, 9000)] == pytest.approx([0, 0.025, 0.05, 0.1, 0.1])
    assert tce.Config().ramp < 64 * small_spec(method="random", settings={"state": {"epochs": 12}}).config("state").epochs


def test_tce_drops_planted_noise_first(planted: tuple[Dataset, Tensor]) -> None:
    log, noisy = planted
    config = tce.Config(ramp=100)
    found = learn(log, lambda loss, probability, reward, step: tce.weights(loss, reward, tce.dropped_share(step, config)))
    loss = F.binary_cross_entropy_with_logits(found.logit(log.user, log.item), log.reward, reduction="none")
    dropped = tce.weights(loss, log.reward, config.drop_rate) == 0
    clean = (log.reward > 0) & ~noisy
    assert dropped[noisy].float().mean() > 1.3 * dropped[clean].float().mean()


# BOD


def test_bod_weights_lie_between_0_and_1_and_the_generator_learns_from_second_order_gradients() -> None:
    judge = bod.WeightGenerator(8, 16, generator())
    users, items = (torch.randn(count, 8, generator=generator(count)).requires_grad_() for count in (30, 40))
    weight = judge(users, items[:30])
    assert weight.shape == (30,)
    assert bool(((weight > 0) & (weight < 1)).all())
    rows = (
        torch.randint(30, (200,), generator=generator()),
        torch.randint(40, (200,), generator=generator(2)),
        torch.randint(40, (200,), generator=generator(3)),
    )
    before = bod.outer_loss(judge, users, items, rows)
    gradients = torch.autograd.grad(before, list(judge.parameters()))
    assert all(bool((gradient != 0).any()) for gradient in gradients)
    adam = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for _ in range(60):
        loss = bod.outer_loss(judge, users, items, rows)
        adam.zero_grad()
        loss.backward(inputs=list(judge.parameters()))
        adam.step()
    assert bod.outer_loss(judge, users, items, rows) < before - 0.01, "the two losses agree more"
    assert users.grad is None, "the outer step leaves the vectors alone"


def test_bod_losses_golden_values() -> None:
    one, other = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])
    weight = torch.tensor([1.0, 0.5])
    assert bod.alignment(one, other, weight).item() == pytest.approx(0.5 * 2 / 2)  # equal directions, and right angles
    assert bod.uniformity(one).item() == pytest.approx(-4.0)  # one pair at squared distance 2
    assert bod.uniformity(one[:1]).item() == 0
    wanted = -(F.logsigmoid(torch.tensor(3.0)) + F.logsigmoid(torch.tensor(-1.0))) / 2
    none = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    assert bod.pairwise(one, other, none, torch.ones(2), torch.tensor([1.0, 0.5])).item() == pytest.approx(wanted.item())
    assert bod.disagreement([one], [2 * one]).item() == pytest.approx(0, abs=1e-6)
    assert bod.disagreement([one], [-one]).item() == pytest.approx(2)


@pytest.mark.parametrize("seed", [1, 2])
def test_bod_trusts_planted_noise_less(planted: tuple[Dataset, Tensor], seed: int) -> None:
    log, noisy = planted
    state = small_spec(method="random", settings={"state": {"epochs": 12}}).config("state")
    users, items, judge = bod.learn(log, state, bod.Config(), generator(seed))
    with torch.no_grad():
        weight = judge(users[log.user], items[log.item])
    clean = (log.reward > 0) & ~noisy
    assert weight[noisy].mean() < weight[clean].mean()
    assert weight[clean].std() > 1e-3


def test_bod_stands_a_log_with_one_response_and_with_none(data: Data) -> None:
    state = small_spec(method="random").config("state")
    first = int(data.train.reward.argmax())
    for reward in (torch.zeros(len(data.train)), F.one_hot(torch.tensor(first), len(data.train)).float()):
        _, items, _ = bod.learn(replace(data.train, reward=reward), state, bod.Config(), generator())
        assert torch.isfinite(items).all()


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [("rce", {"alpha": -0.1}, "alpha"), ("tce", {"drop_rate": 1.0}, "drop_rate"), ("bod", {"inner_steps": 0}, "inner_steps")],
)
def test_options_are_checked(name: str, values: dict[str, float], message: str) -> None:
    with pytest.raises(BadInput, match=f"{message} = .* is not legal"):
        catalog.find("purifiers", name).Config(**values)
