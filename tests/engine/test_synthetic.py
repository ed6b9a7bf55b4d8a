"""The synthetic platform meets the marginals it was calibrated to, and equal configs give equal data."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.contracts import Data
from engine.data import synthetic
from engine.data.heads import head_items
from engine.metrics import gini
from engine.options import BadInput


@pytest.fixture(scope="module")
def platform() -> Data:
    return synthetic.load(synthetic.Config())


def test_default_size(platform: Data) -> None:
    assert (platform.test.users, len(platform.train.items), platform.train.users) == (1411, 3327, 7176)
    assert len(platform.train) == 7176 * 100
    assert not platform.shared_users


def test_popularity_has_kuairand_pures_shape(platform: Data) -> None:
    exposures = platform.train.items.popularity.double().sort(descending=True).values
    share = exposures.cumsum(0) / exposures.sum()
    assert 0.70 <= share[665] <= 0.76  # the top 20 % take 73 %
    assert 0.13 <= share[33] <= 0.18  # the top 1 % take 16 %
    assert 0.66 <= gini(exposures) <= 0.73
    for q, wanted in ((0.5, 0.0078), (0.75, 0.0233), (0.9, 0.0580), (0.95, 0.0914), (0.99, 0.2244)):
        assert torch.quantile(exposures, q) / exposures.max() == pytest.approx(wanted, rel=0.35)


def test_response_rates_have_the_real_mean_and_spread(platform: Data) -> None:
    log, items = platform.train, len(platform.train.items)
    count = torch.bincount(log.item, minlength=items)
    clicks = torch.sigmoid(platform.responses["train"].logit(log.user, log.item[:, None])[:, 0])  # without a draw's noise
    rate = torch.zeros(items).scatter_add_(0, log.item, clicks)[count >= 5] / count[count >= 5]
    assert rate.mean() == pytest.approx(0.28, abs=0.01)
    assert rate.std() == pytest.approx(0.16, abs=0.01)
    assert log.reward.mean() == pytest.approx(clicks.mean().item(), abs=0.005)


def test_users_differ_in_how_much_popularity_they_are_fed(platform: Data) -> None:
    popular = torch.zeros(len(platform.train.items), dtype=torch.bool)
    popular[platform.train.items.popularity.topk(round(0.06 * len(popular))).indices] = True
    share = popular[platform.train.item].view(platform.train.users, -1).float().mean(1)
    assert share.mean() == pytest.approx(0.42, abs=0.03)
    assert share.std() == pytest.approx(0.16, abs=0.03)


def test_conformity_lifts_clicks_on_popular_items_and_genuine_preference_does_not_care(platform: Data) -> None:
    users, items = torch.arange(300), torch.arange(len(platform.train.items)).expand(300, -1)
    clicks = torch.sigmoid(platform.responses["test"].logit(users, items))
    genuine = platform.truth.genuine(users, items)
    head = platform.train.items.head
    assert clicks[:, head].mean() > 1.5 * clicks[:, ~head].mean()
    assert genuine[:, head].mean() == pytest.approx(genuine[:, ~head].mean().item(), rel=0.1)


def test_conformity_is_not_a_straight_line_of_log_popularity(platform: Data) -> None:
    pull, level = platform.responses["test"].pull.double(), platform.train.items.log_popularity().double()
    line = torch.corrcoef(torch.stack([pull, level]))[0, 1] ** 2
    assert 0.2 < line < 0.7


def test_switches_switch_off() -> None:
    config = synthetic.Config(users=20, train_users=40, items=60, log_length=10, start=4, conformity=0.0, randomised=0.0)
    made = synthetic.load(config)
    assert not made.responses["train"].conformity.any()
    assert not made.train.randomised.any()


def test_equal_configs_give_equal_data_and_seeds_differ() -> None:
    config = synthetic.Config(users=20, train_users=40, items=60, log_length=10, start=4)
    a, b, c = synthetic.load(config), synthetic.load(config), synthetic.load(replace(config, seed=1))
    assert torch.equal(a.train.item, b.train.item)
    assert torch.equal(a.train.reward, b.train.reward)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert not torch.equal(a.train.item, c.train.item)


def test_start_must_fit_the_log() -> None:
    with pytest.raises(BadInput, match=r"dataset\.start = 50 is not legal"):
        synthetic.load(synthetic.Config(users=20, train_users=40, items=60, log_length=10, start=50))


def test_heads_are_the_most_exposed_fifth_with_ties_to_the_smaller_id() -> None:
    assert head_items(torch.tensor([1, 5, 5, 0, 2, 5, 1, 1, 1, 1])).nonzero()[:, 0].tolist() == [1, 2]
    assert head_items(torch.tensor([0, 3])).tolist() == [False, True]
