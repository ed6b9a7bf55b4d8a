"""What every purifier must do, row by row of the table."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch

from engine import catalog, run
from engine.contracts import Data, Obs
from engine.options import BadInput
from engine.purify.view import View
from engine.state.stage import Stage
from small import small_spec

ROWS = list(catalog.TABLES["purifiers"])


@functools.cache
def fitted(name: str, stage: Stage) -> View:
    spec = small_spec(method="random", purifier=name)
    return catalog.find("purifiers", name).fit(stage, spec.config("purifier"), stage.generator(100))


@pytest.fixture
def obs(data: Data) -> Obs:
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    obs = world.reset(torch.arange(40), 0)
    for step in range(3):
        obs = world.step(torch.arange(6 * step, 6 * step + 6).expand(40, -1)).obs
    return obs


@pytest.mark.parametrize("name", ROWS)
def test_states_and_items_share_one_space(name: str, stage: Stage, obs: Obs) -> None:
    view = fitted(name, stage)
    state = view(obs)
    assert state.shape == (40, view.items.shape[1])
    assert view.items.shape[0] == 360
    assert torch.isfinite(state).all()
    assert view.predict(state).shape == (40, 360)
    assert view.bias.shape == view.curve.shape == (360,)
    assert not state.requires_grad


@pytest.mark.parametrize("name", ROWS)
def test_states_do_not_depend_on_company_or_calls(name: str, stage: Stage, obs: Obs) -> None:
    view = fitted(name, stage)
    whole = view(obs)
    assert torch.equal(whole, view(obs))
    one = Obs(obs.users[5:6], obs.step, obs.history[5:6], obs.rewards[5:6], obs.session, obs.shown[5:6], obs.done[5:6])
    assert torch.allclose(view(one), whole[5:6], atol=1e-4)


@pytest.mark.parametrize("name", ROWS)
def test_samples_are_drawn_from_the_given_generator(name: str, stage: Stage, obs: Obs) -> None:
    view = fitted(name, stage)

    def draws(seed: int) -> torch.Tensor:
        return view(obs, samples=3, generator=torch.Generator().manual_seed(seed))

    assert draws(1).shape == (40, 3, view.items.shape[1])
    assert torch.equal(draws(1), draws(1))
    if name == "diffusion":
        assert not torch.equal(draws(1), draws(2))


@pytest.mark.parametrize("name", ROWS)
def test_fitting_again_from_the_same_seed_gives_the_same_view(name: str, stage: Stage, obs: Obs) -> None:
    again = catalog.find("purifiers", name).fit(
        stage, small_spec(method="random", purifier=name).config("purifier"), stage.generator(100)
    )
    assert torch.equal(again(obs), fitted(name, stage)(obs))


@pytest.mark.parametrize("name", ROWS)
def test_a_kept_view_is_the_same_and_refuses_other_data(name: str, stage: Stage, data: Data, obs: Obs, tmp_path: Path) -> None:
    spec = small_spec(method="random", purifier=name)
    run.save_view(tmp_path, spec, data, fitted(name, stage), stage.observed.items)
    loaded, observed = run.load_view(tmp_path, spec, data)
    assert torch.equal(observed, stage.observed.items)
    assert torch.equal(loaded(obs), fitted(name, stage)(obs))
    assert torch.equal(loaded.predict(loaded(obs)), fitted(name, stage).predict(fitted(name, stage)(obs)))
    other = run.load_data(small_spec(method="random", settings={"dataset": {"seed": 5}}))
    with pytest.raises(BadInput, match="was fitted on synthetic and cannot be used on synthetic: their items differ"):
        run.load_view(tmp_path, spec, other)


@pytest.mark.parametrize("name", ROWS)
def test_steps_are_checked(name: str, stage: Stage) -> None:
    view = fitted(name, stage)
    if name == "diffusion":
        assert view.check_steps(0) == 0
        with pytest.raises(BadInput, match="steps = 5 is not legal: this purifier was trained with 4, so it must be 0 to 4"):
            view.check_steps(5)
    else:
        with pytest.raises(BadInput, match="has no diffusion steps"):
            view.check_steps(1)


@pytest.mark.parametrize("name", ROWS)
def test_predictions_rank_clicks_better_than_chance(name: str, stage: Stage, data: Data) -> None:
    """On what unseen users answered after their session's start."""
    from sklearn.metrics import roc_auc_score

    view = fitted(name, stage)
    world, _ = run.make_world(small_spec(method="random"), data, "test")
    logits = view.predict(view(world.reset(torch.arange(60), 0)))
    rest = data.test.select(torch.arange(40).repeat(60) >= 12)
    assert roc_auc_score(rest.reward.numpy(), logits[rest.user, rest.item].numpy()) > 0.58  # chance ± 0.014
