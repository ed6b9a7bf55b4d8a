"""Item vectors and the history encoder."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.contracts import Data, Dataset, Items
from engine.factors import factorise
from engine.rows import last_rows
from engine.state.encoder import Evidence, mean_of_positives, popularity_level
from engine.state.stage import Stage


def test_mean_of_positives_golden() -> None:
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
    items = torch.tensor([[-1, 0, 1], [0, 1, 2], [-1, -1, -1]])
    rewards = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert mean_of_positives(table, items, rewards).tolist() == [[0.5, 1.0], [4.0, 4.0], [0.0, 0.0]]


def test_last_rows_are_right_aligned() -> None:
    items = Items(torch.ones(9), torch.ones(9).bool(), torch.zeros(9, 1).bool(), torch.zeros(9), ("x",), ())
    user, item = torch.tensor([0, 0, 0, 2]), torch.tensor([4, 5, 6, 7])
    log = Dataset(user, item, torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.arange(4), None, 3, items)
    rows, rewards = last_rows(log, 2)
    assert rows.tolist() == [[5, 6], [-1, -1], [-1, 7]]
    assert rewards.tolist() == [[1, 1], [0, 0], [0, 1]]


def test_vectors_recover_a_planted_structure() -> None:
    """Two kinds of users, two kinds of items: after fitting, items of a kind are nearer to each other."""
    generator = torch.Generator().manual_seed(0)
    user, item = torch.arange(200).repeat_interleave(40), torch.randint(60, (8000,), generator=generator)
    reward = torch.bernoulli(torch.where((user % 2) == (item % 2), 0.9, 0.1), generator=generator)
    items = Items(torch.bincount(item), torch.arange(60) < 12, torch.zeros(60, 1).bool(), torch.zeros(60), ("x", "none"), ())
    log = Dataset(user, item, reward, torch.arange(8000), None, 200, items)
    for options in ({}, {"biases": True}, {"disentangle": True}):
        factors = factorise(log, width=4, epochs=20, learning_rate=0.03, decay=2.0, generator=generator, **options)
        unit = torch.nn.functional.normalize(factors.items, dim=1)
        same = (torch.arange(60)[:, None] % 2) == (torch.arange(60)[None] % 2)
        likeness = unit @ unit.T
        assert likeness[same].mean() > 0.5 > 0 > likeness[~same].mean()


def test_disentangled_vectors_tell_less_of_popularity(stage: Stage) -> None:
    level = stage.items.log_popularity()

    def told(vectors: Tensor) -> float:
        x = torch.cat([vectors, torch.ones(len(vectors), 1)], 1)
        fitted = x @ torch.linalg.lstsq(x, level[:, None]).solution
        return 1 - ((fitted[:, 0] - level) ** 2).mean().item() / level.var().item()

    assert told(stage.observed.items) > 2 * told(stage.disentangled.items)


def test_fold_in_is_near_the_exact_mode_and_more_history_moves_it_from_the_prior(stage: Stage, data: Data) -> None:
    evidence = stage.evidence
    items, rewards = last_rows(data.test, 40)
    short, long = evidence.fold_in(items[:, :3], rewards[:, :3]), evidence.fold_in(items, rewards)
    exact = evidence.exact_fold_in(items, rewards)
    a, b = long[:, : evidence.width], exact[:, : evidence.width]
    assert torch.cosine_similarity(a - evidence.mean[: evidence.width], b - evidence.mean[: evidence.width]).mean() > 0.9
    assert (long - evidence.mean).norm(dim=1).mean() > (short - evidence.mean).norm(dim=1).mean()


def test_exact_fold_in_is_a_mode(stage: Stage, data: Data) -> None:
    """The gradient of the log-posterior vanishes there."""
    evidence = stage.evidence
    items, rewards = last_rows(data.test, 40)
    theta = evidence.exact_fold_in(items, rewards)
    rows = evidence.x[items.clamp_min(0)]
    p = torch.sigmoid(evidence.base[items.clamp_min(0)] + (rows * theta[:, None]).sum(2))
    gradient = (((rewards - p) * (items >= 0))[:, :, None] * rows).sum(1) - (theta - evidence.mean) @ evidence.precision
    assert gradient.abs().max() < 1e-2


def test_an_empty_history_is_the_prior(stage: Stage) -> None:
    nothing = torch.full((2, 5), -1)
    assert torch.allclose(stage.evidence.fold_in(nothing, torch.zeros(2, 5)), stage.evidence.mean.expand(2, -1), atol=1e-5)
    assert torch.isfinite(stage.evidence.features(nothing, torch.zeros(2, 5), 0)).all()


def test_encoders_ignore_padding_and_company(stage: Stage, data: Data) -> None:
    evidence = stage.evidence
    items, rewards = last_rows(data.test, 20)
    padded = torch.cat([torch.full((len(items), 7), -1), items], 1)
    padded_rewards = torch.cat([torch.zeros(len(items), 7), rewards], 1)
    whole = evidence.features(padded, padded_rewards, 0)
    assert torch.allclose(whole, evidence.features(items, rewards, 0), atol=1e-5)
    assert torch.allclose(whole[3:4], evidence.features(items[3:4], rewards[3:4], 0), atol=1e-4)


def test_what_a_policy_showed_is_no_evidence_but_the_answers_are(stage: Stage, data: Data) -> None:
    """The session's part enters through responses alone: its exposures leave the log's mean vectors untouched."""
    evidence, width = stage.evidence, stage.evidence.width
    items, rewards = last_rows(data.test, 20)
    as_log, as_session = evidence.features(items, rewards, 0), evidence.features(items, rewards, 8)
    assert torch.allclose(as_log[:, :width], as_session[:, :width], atol=1e-5)  # the fold-in sees all answers
    only_log = evidence.features(items[:, :-8], rewards[:, :-8], 0)
    assert torch.allclose(as_session[:, width : 3 * width], only_log[:, width : 3 * width], atol=1e-5)


def test_popularity_level_is_of_positives(data: Data) -> None:
    level = data.train.items.log_popularity()
    items, rewards = torch.tensor([[0, 1, 2]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert popularity_level(level, items, rewards).item() == pytest.approx(((level[0] + level[2]) / 2).item(), abs=1e-6)


def test_evidence_round_trips_through_its_state(stage: Stage, data: Data) -> None:
    copy = Evidence(stage.evidence.state_dict())
    items, rewards = last_rows(data.test, 20)
    assert torch.equal(copy.features(items, rewards, 0), stage.evidence.features(items, rewards, 0))
