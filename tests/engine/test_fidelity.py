"""How far a fitted world can be trusted: golden values, intervals, and worlds that are planted to be right, flat or wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from engine import run
from engine.__main__ import main
from engine.contracts import Dataset, Items
from engine.data.heads import head_items
from engine.recorder import MemoryRecorder
from engine.report import inspect
from engine.world.fidelity import (
    BINS,
    FEWEST_EXPOSURES,
    FEWEST_POSITIVES,
    FEWEST_RANDOM,
    Fidelity,
    Logit,
    fidelity,
    measured,
    wilson,
)
from engine.world.responses import fit_responses
from small import SMALL, small_spec

USERS, ITEMS, ROWS = 200, 60, 12_000


@pytest.fixture(scope="module")
def planted() -> tuple[Dataset, Logit]:
    """A log in which users and items differ and popular items are liked more, and the logits that it was drawn from."""
    generator = torch.Generator().manual_seed(1)
    popularity = torch.linspace(-1.5, 1.5, ITEMS)
    item = torch.multinomial(torch.exp(popularity).expand(USERS, -1), ROWS // USERS, True, generator=generator).flatten()
    user = torch.arange(USERS).repeat_interleave(ROWS // USERS)
    of_user, of_item = torch.randn(USERS, generator=generator), torch.randn(ITEMS, generator=generator)

    def truth(u: Tensor, i: Tensor) -> Tensor:
        return 0.8 * of_user[u] + 1.2 * of_item[i] + popularity[i] - 0.6

    reward = torch.bernoulli(torch.sigmoid(truth(user, item)), generator=generator)
    shown = torch.bincount(item, minlength=ITEMS)
    none = torch.zeros(ITEMS, dtype=torch.int64)
    items = Items(shown, head_items(shown), torch.zeros(ITEMS, 1).bool(), none, ("x",), ("x",) * ITEMS)
    random = torch.rand(ROWS, generator=generator) < 0.2
    return Dataset(user, item, reward, torch.arange(ROWS), random, USERS, items), truth


def told_of(log: Dataset, logit: Logit, truth: Logit | None = None) -> Fidelity:
    held_out = torch.randperm(len(log), generator=torch.Generator().manual_seed(2))[:4000]
    return measured(logit, log, held_out, torch.Generator().manual_seed(3), truth)


# Numbers


def test_wilsons_interval() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_auc_and_both_intervals_are_what_resampled_users_say() -> None:
    generator = torch.Generator().manual_seed(0)
    user = torch.randint(80, (1500,), generator=generator)
    habit = torch.randn(80, generator=generator)
    logit = (torch.randn(1500, generator=generator) * 4).round() / 4  # with ties
    rate = torch.sigmoid(logit + habit[user] - 2)  # users differ more than is predicted, and few responses are positive
    reward = torch.bernoulli(rate, generator=generator)
    told = fidelity(logit, reward, user)
    assert told.auc == pytest.approx(roc_auc_score(reward.numpy(), logit.numpy()))
    assert told.auc_interval is not None
    draws = np.random.default_rng(0)
    rows = [np.flatnonzero(user.numpy() == own) for own in range(80)]
    again = []
    for _ in range(400):
        drawn = torch.from_numpy(np.concatenate([rows[own] for own in draws.integers(80, size=80)]))
        other = fidelity(logit[drawn], reward[drawn])
        again.append((other.auc, other.log_loss))
    low, high = np.quantile(np.array(again), (0.025, 0.975), axis=0)
    assert told.auc_interval == pytest.approx((low[0], high[0]), abs=0.01)
    assert told.log_loss_interval == pytest.approx((low[1], high[1]), abs=0.02)
    alone = fidelity(logit, reward)
    assert alone.log_loss_interval[0] > told.log_loss_interval[0], "rows of one user are alike, so there are fewer than rows"


def test_the_same_row_told_twice_is_one_row_told_once() -> None:
    logit, reward = torch.linspace(-2, 2, 40), (torch.arange(40) % 3 == 0).float()
    once = fidelity(logit, reward)
    twice = fidelity(logit.repeat(2), reward.repeat(2), torch.arange(40).repeat(2))
    assert twice.auc_interval == pytest.approx(once.auc_interval)
    assert twice.log_loss_interval == pytest.approx(once.log_loss_interval)


def test_calibration_counts_every_row_once() -> None:
    logit = torch.linspace(-3, 3, 1003)
    told = fidelity(logit, (torch.arange(1003) % 2).float())
    assert len(told.calibration) == BINS
    assert sum(own["rows"] for own in told.calibration) == told.held_out == 1003
    predicted = [own["predicted"] for own in told.calibration]
    assert predicted == sorted(predicted)
    for own in told.calibration:
        assert own["low"] < own["observed"] < own["high"]
        assert own["observed"] == pytest.approx(0.5, abs=0.01)
    assert told.calibration_error == pytest.approx(np.mean(np.abs(np.array(predicted) - 0.5)), abs=0.02)


# Worlds that are planted


def test_a_world_that_is_right_answers_as_the_log(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    told = told_of(log, truth, truth)
    assert told.truth is not None
    assert told.truth["log_loss"] == pytest.approx(told.log_loss)
    for where in ("exposures", "anywhere"):
        assert told.truth[where]["error"] == told.truth[where]["bias"] == 0
        assert told.truth[where]["r"] == pytest.approx(1)
    assert told.users is not None
    assert told.items is not None
    for spread in (told.users, told.items):
        assert spread["simulated"]["sd"] == pytest.approx(spread["real"]["sd"], rel=0.12)
        assert spread["simulated"]["mean"] == pytest.approx(spread["real"]["mean"], abs=0.03)
    inside = [own["low"] <= own["predicted"] <= own["high"] for own in (*told.popularity, *told.calibration)]
    assert np.mean(inside) >= 0.8


def test_a_world_that_leans_to_the_mean_is_told(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    right, flat = told_of(log, truth), told_of(log, lambda u, i: 0.4 * truth(u, i), truth)
    assert right.heads is not None
    assert flat.heads is not None
    gap = {name: flat.heads["head"][name] - flat.heads["tail"][name] for name in ("predicted", "observed")}
    assert 0 < gap["predicted"] < 0.6 * gap["observed"]
    assert right.heads["head"]["observed"] == flat.heads["head"]["observed"]
    assert flat.items is not None
    assert flat.items["simulated"]["sd"] < 0.7 * flat.items["real"]["sd"]
    assert flat.popularity[0]["predicted"] > flat.popularity[0]["high"], "rare items are answered too well"
    assert flat.popularity[-1]["predicted"] < flat.popularity[-1]["low"]
    assert flat.calibration_error > 3 * right.calibration_error
    assert flat.truth is not None
    assert flat.truth["anywhere"]["sd"]["simulated"] < 0.6 * flat.truth["anywhere"]["sd"]["real"]


def test_bins_by_popularity_keep_equally_popular_items_together(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    told = told_of(log, truth)
    assert sum(own["rows"] for own in told.popularity) == told.held_out
    assert sum(own["items"] for own in told.popularity) == ITEMS, "no item lies in two bins"
    assert [own["popularity"] for own in told.popularity] == sorted(own["popularity"] for own in told.popularity)
    assert told.heads is not None
    assert told.heads["head"]["rows"] + told.heads["tail"]["rows"] == told.held_out
    alike = replace(log, items=replace(log.items, popularity=torch.full((ITEMS,), 7)))
    (one,) = told_of(alike, truth).popularity
    assert (one["rows"], one["popularity"]) == (4000, 7)


def test_users_and_items_of_whom_little_is_known_are_left_out(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    few = log.select(torch.arange(ROWS) % 6 == 0)
    told = told_of(few, truth)
    shown = torch.bincount(few.item, minlength=ITEMS)
    positives = torch.zeros(USERS).scatter_add_(0, few.user, few.reward)
    assert told.items is not None
    assert told.users is not None
    assert told.items["counted"] == int((shown >= FEWEST_EXPOSURES).sum()) < ITEMS
    assert told.users["counted"] == int((positives >= FEWEST_POSITIVES).sum()) < USERS
    assert told.catalogue == {"items": ITEMS, "never": int((shown == 0).sum()), "rarely": int((shown < FEWEST_EXPOSURES).sum())}
    for spread in (told.items, told.users):
        assert sum(own["real"] for own in spread["bins"]) == pytest.approx(1)
        assert sum(own["simulated"] for own in spread["bins"]) == pytest.approx(1)


def test_random_exposures_are_scored_apart(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    assert log.randomised is not None

    def wrong_where_random(u: Tensor, i: Tensor) -> Tensor:
        return truth(u, i) if len(u) != 4000 else torch.where(random, -truth(u, i), truth(u, i))

    held_out = torch.randperm(len(log), generator=torch.Generator().manual_seed(2))[:4000]
    random = log.randomised[held_out]
    told = told_of(log, wrong_where_random)
    assert told.randomised is not None
    assert told.randomised["held_out"] == int(random.sum())
    assert told.randomised["auc"] < 0.4 < 0.6 < (told.auc or 0)
    assert told_of(replace(log, randomised=None), truth).randomised is None
    rare = torch.zeros(ROWS, dtype=torch.bool)
    rare[held_out[: FEWEST_RANDOM - 1]] = True
    assert told_of(replace(log, randomised=rare), truth).randomised is None


def test_the_same_generator_tells_the_same(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    assert told_of(log, truth, truth) == told_of(log, truth, truth)


# Where worlds are made


def test_knowing_the_truth_changes_nothing_that_is_fitted(planted: tuple[Dataset, Logit]) -> None:
    log, truth = planted
    few = log.select(torch.arange(ROWS) < 1500)
    blind = fit_responses(few, torch.Generator().manual_seed(0))
    told = fit_responses(few, torch.Generator().manual_seed(0), truth=truth)
    assert all(torch.equal(value, getattr(told.factors, name)) for name, value in vars(blind.factors).items())
    assert blind.fidelity is not None
    assert told.fidelity is not None
    assert blind.fidelity.truth is None
    assert told.fidelity.scores() == blind.fidelity.scores()
    assert told.fidelity.truth is not None
    assert told.fidelity.truth["log_loss"] < told.fidelity.log_loss


def test_a_fitted_world_of_a_generated_platform_is_held_against_the_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured once, by a command or by a run; a run keeps the scores, the cache all of it."""
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    spec = small_spec(method="random", settings={"world": {"train": "fitted"}}, evaluation_episodes=5)
    row = inspect(spec)
    assert set(row["fidelity"]) == {"train"}, "the test world's clicks are generated"
    own = row["fidelity"]["train"]
    assert own["truth"]["log_loss"] < own["log_loss"] < own["log_loss_of_the_mean"]
    assert 0 < own["truth"]["exposures"]["error"] < 0.3
    fingerprint = run.load_data(spec).fingerprint
    torch.set_num_threads(2)
    try:
        assert run.kept_fidelity(fingerprint) == {"train": own}, "found by a process with other threads"
        assert run.kept_fidelity(fingerprint, 2) == {}
    finally:
        torch.set_num_threads(1)
    kept = run.run(spec, MemoryRecorder(), tmp_path / "run").metrics["world"]
    assert kept["test"] is None
    assert kept["train"] == {name: own[name] for name in kept["train"]}
    assert "auc_interval" in kept["train"]
    assert "popularity" not in kept["train"], "a thousand runs in a database need not hold it"


def test_the_command_prints_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path))
    sizes = [text for name, value in SMALL["dataset"].items() for text in ("--set", f"dataset.{name}={value}")]
    sizes += ["--set", "world.slate=6", "--set", "world.max_len=8"]
    assert main(["data", "inspect", "synthetic", *sizes]) == 0
    assert "fidelity: its clicks are generated; --set world.train=fitted holds" in capsys.readouterr().out
    sizes += ["--set", "world.train=fitted"]
    assert main(["data", "inspect", "synthetic", *sizes]) == 0
    said = capsys.readouterr().out
    assert "The train world, fitted to 12000 interactions" in said
    for title in ("by predicted probability:", "by popularity of the item:", "observed: the truth:"):
        assert said.split(title)[1].splitlines()[2].startswith("1 "), title
    assert "truth.anywhere.error: 0." in said
    assert " to 0." in said.split("auc_interval: ")[1].splitlines()[0]
    assert main(["data", "inspect", "synthetic", *sizes, "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["fidelity"]["train"]
    assert len(told["calibration"]) == BINS
    assert told["truth"]["popularity"][0]["popularity"] < told["truth"]["popularity"][-1]["popularity"]
