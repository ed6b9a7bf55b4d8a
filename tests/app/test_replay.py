"""Sessions played again from a run that was really trained: the same as its evaluation, told in words, moved by λ and S."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from app import replay
from app.replay import Session, Theatre
from engine.options import BadInput
from engine.spec import RunSpec
from filled import spec
from runs_db.store import Store


@pytest.fixture(scope="module")
def stage(trained: Path) -> Theatre:
    return Theatre(trained / "1", 1)


@pytest.fixture(scope="module")
def plain(trained: Path) -> Theatre:
    return Theatre(trained / "2", 1)


@pytest.fixture(scope="module")
def vector(trained: Path) -> Theatre:
    return Theatre(trained / "3", 1)


def test_a_session_is_the_one_that_was_evaluated(stage: Theatre, trained: Path) -> None:
    table = pd.read_csv(trained / "1" / "episodes.csv").set_index("user")
    for user in (0, 17, 59):
        session = stage.session(user, None, None)
        assert len(session) == table.loc[user, "len"]
        assert session.steps["reward"].sum() == pytest.approx(table.loc[user, "r_cum"], abs=1e-4)
        shown = session.slates["liking"].mean()
        assert shown == pytest.approx(table.loc[user, "utility"], abs=1e-4)


def test_the_tables_fit_together(stage: Theatre) -> None:
    session = stage.session(3, None, None)
    steps, slates = session.steps, session.slates
    assert len(slates) == len(session) * session.slate
    assert steps["temper"].iloc[0] == pytest.approx(session.max_len - steps["cost"].iloc[0])
    expected = 2 - steps["reward"] + steps["penalised"]
    assert steps["cost"].to_numpy() == pytest.approx(expected.to_numpy(), abs=1e-4), "the simulator's rule of patience"
    heads = slates.groupby("step")["head"].sum()
    assert heads.tolist() == steps["heads"].tolist()
    assert session.choices["heads"] == steps["heads"].tolist(), "the worker keeps the quota that the manager asks for"
    assert slates["rank"].between(1, 400).all()
    assert slates.loc[slates["head"], "rank"].max() <= slates.loc[~slates["head"], "rank"].min(), "heads are the most exposed"
    assert not slates.duplicated("item").any(), "no item twice in a session"


def test_another_lam_replays_and_the_first_session_stays_what_it_was(stage: Theatre) -> None:
    before = stage.session(3, None, None)
    least, most = stage.session(3, 0.0, None), stage.session(3, 2.0, None)
    assert least.choices["omega_acc"] != most.choices["omega_acc"], "the manager hears of it"
    again = stage.session(3, None, None)
    pd.testing.assert_frame_equal(before.slates, again.slates)


def test_other_steps_move_the_state_and_leave_what_was_observed(stage: Theatre) -> None:
    full, none = stage.session(3, None, None), stage.session(3, None, 0)
    assert np.allclose(full.raw[0], none.raw[0])
    assert not np.allclose(full.state[0], none.state[0])
    assert np.allclose(full.state[0], stage.session(3, None, 4).state[0]), "S = 4 is what it was trained with"


def test_what_a_run_cannot_do_is_refused_in_words(stage: Theatre, plain: Theatre) -> None:
    with pytest.raises(BadInput, match=r"lam = 9 is not legal: this policy met λ from 0 to"):
        stage.session(3, 9, None)
    with pytest.raises(BadInput, match="trained with 4, so it must be 0 to 4"):
        stage.session(3, None, 7)
    with pytest.raises(BadInput, match="no diffusion steps"):
        plain.session(3, None, 2)
    assert stage.trained.view.inference_steps is None, "a refused value leaves nothing behind"


def test_the_crowd_stands_at_the_beginning(stage: Theatre, plain: Theatre) -> None:
    crowd = stage.crowd(40)
    assert crowd.raw.shape == crowd.state.shape == (40, 8)
    session = stage.session(int(crowd.users[5]), None, None)
    assert np.allclose(session.state[0], crowd.state[5], atol=1e-4)
    same = plain.crowd(40)
    assert np.allclose(same.raw, same.state), "identity tells the policy what was observed"
    people, path = replay.map_rows(crowd, session, "state")
    assert (people["x"].iloc[5], people["y"].iloc[5]) == pytest.approx((path["x"].iloc[0], path["y"].iloc[0]), abs=1e-3)


def test_outcomes_are_those_of_the_sessions(stage: Theatre) -> None:
    table = stage.outcomes(None, None, 20).set_index("user")
    user = int(table.index[7])
    assert table.loc[user, "len"] == len(stage.session(user, None, None))


def test_the_plane_is_that_of_the_widest_spread() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.normal(size=(200, 5)) * [1, 9, 1, 4, 1]
    plane = replay.plane(cloud)
    assert np.abs(plane.axes).argmax(0).tolist() == [1, 3]
    assert plane.at(cloud).std(0)[0] == pytest.approx(cloud[:, 1].std(), rel=0.05)
    flipped = replay.plane(cloud[::-1].copy())
    assert np.allclose(np.abs(flipped.axes), np.abs(plane.axes), atol=1e-6)
    assert np.allclose(flipped.axes, plane.axes, atol=1e-6), "maps do not flip"


def with_rewards(session: Session, rewards: list[float], penalised: list[bool], temper: list[float]) -> Session:
    """The first steps of a session with other outcomes."""
    steps = session.steps.head(len(rewards)).assign(reward=rewards, penalised=penalised, temper=temper)
    return replace(session, steps=steps)


def test_the_end_is_told_with_its_reason(stage: Theatre) -> None:
    session = replace(stage.session(3, None, None), max_len=8)
    unfair = with_rewards(session, [0.9, 0.9, 0.8], [True, True, True], [5.0, 3.0, 0.8])
    assert replay.ending(unfair) == (
        "Left after 3 of at most 8 slates, when a one-sided slate took patience below 1. 3.4 of 8 units of patience went to "
        "slates answered with 0.87 on average, 3 to slates that were too one-sided."
    )
    dull = with_rewards(session, [0.1, 0.1], [False, False], [2.0, 0.1])
    assert "when a slate that met little response took patience below 1" in replay.ending(dull)
    assert replay.ending(dull).endswith("none to one-sided slates.")
    stayed = replace(with_rewards(session, [1.0], [False], [0.0]), max_len=1)
    assert replay.ending(stayed).startswith("Stayed to the very end")


def test_a_step_is_told_with_what_the_manager_asked_for(stage: Theatre, plain: Theatre) -> None:
    session = stage.session(3, None, None)
    told = replay.step_words(session, 1)
    row = session.steps.iloc[0]
    assert f"Mean response {row.reward:.2f} costs {2 - row.reward:.1f} of patience" in told
    assert "The manager asked for" in told
    assert "ω_acc" in told
    assert "manager" not in replay.step_words(plain.session(3, None, None), 1)


def test_where_two_sessions_part(stage: Theatre, plain: Theatre) -> None:
    one = stage.session(3, None, None)
    assert replay.parting(one, one) is None
    other = one.slates.copy()
    other.loc[other["step"] == 3, "item"] += 1000
    assert replay.parting(one, replace(one, slates=other)) == 3
    shorter = replace(one, steps=one.steps.head(2), slates=one.slates[one.slates["step"] <= 2])
    assert replay.parting(one, shorter) == 3
    swapped = one.slates.copy()
    first = swapped["step"] == 1
    swapped.loc[first, "item"] = swapped.loc[first, "item"].to_numpy()[::-1]
    assert replay.parting(one, replace(one, slates=swapped)) is None, "the order within a slate is no difference"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (spec("dsrm_hrl"), replay.Controls(0.5, 2.0, 10)),
        (spec("dsrm_hrl", settings={"method": {"conditioned": False}}), replay.Controls(None, None, 10)),
        (spec("dsrm_hrl", settings={"method": {"hierarchical": False}}), replay.Controls(None, None, 10)),
        (spec("dsrm_hrl", purifier="identity", settings={"method": {"lam": 5.0}}), replay.Controls(2.0, 2.0, None)),
        (spec("mofir"), replay.Controls(0.0, 9.0, None)),
        (spec("mofir", settings={"method": {"omega": 0.95}}), replay.Controls(pytest.approx(19), pytest.approx(19), None)),
        (spec("a2c"), replay.Controls(None, None, None)),
    ],
)
def test_only_what_a_run_has_can_be_moved(wanted: RunSpec, expected: replay.Controls) -> None:
    assert replay.controls(wanted) == expected


def test_options_of_another_version_move_nothing() -> None:
    old = spec("dsrm_hrl", purifier="identity")
    old = replace(old, settings={**old.settings, "method": {**old.settings["method"], "gone": 1}})
    assert replay.controls(old) == replay.Controls(None, None, None)


def test_what_can_be_moved_is_asked_of_the_methods() -> None:
    assert replay.movable() == ["mofir", "dsrm_hrl"]


def test_mofir_is_moved_by_lam_too(vector: Theatre) -> None:
    """λ = ω/(1 − ω) of the trained weight replays the same session; another weight shows other items."""
    can = replay.controls(vector.trained.spec)
    usual = vector.session(3, None, None)
    pd.testing.assert_frame_equal(usual.slates, vector.session(3, can.lam, None).slates)
    assert can.lam_max is not None
    assert replay.parting(usual, vector.session(3, can.lam_max, None)) is not None


def test_files_that_this_version_cannot_read_are_told_in_words(theatre: Store, tmp_path: Path) -> None:
    import shutil

    from app import live
    from engine import checkpoint

    folder = tmp_path / "7"
    shutil.copytree(theatre.folder(1), folder)
    kept = checkpoint.read_tensors(folder / "policy.pt")
    assert kept is not None
    kept["worker"].popitem()
    checkpoint.write_tensors(folder / "policy.pt", kept)
    with pytest.raises(BadInput, match="run 7 was made by another version of the code"):
        live.theatre((str(folder), 1, 1))
