"""The worlds of KuaiRec and KuaiRand-Pure: observed answers, catalogues that differ, whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from engine import catalog, run
from engine.__main__ import main
from engine.contracts import Data
from engine.data import kuairec
from engine.data.observed import response_table
from engine.evaluate import evaluation_users, sessions_of
from engine.learn.moment import Rules, observe, observed
from engine.metrics import exposure_counts, gini, summary
from engine.options import BadInput
from engine.spec import make
from engine.world.responses import Table
from kuai_files import RAND, REC, Trial, small_log, tiny

# The test world of KuaiRec


def test_response_table_golden_values() -> None:
    table = response_table(small_log([0, 0, 0, 1, 1], [0, 3, 3, 0, 1], [0.5, 0.9, 0.25, 1.0, 0.0], absent=[2]))
    mean = (0.5 + 0.25 + 1.0 + 0.0) / 4
    wanted = [[0.5, 0.375 + 0.0 - mean, 0.25], [1.0, 0.0, 0.5 + 0.25 - mean]]
    assert np.allclose(table.values, np.clip(wanted, 0, 1))
    assert table.missing == 2
    assert table.column.tolist() == [0, 1, -1, 2]
    assert table.values.dtype == torch.float32
    session = Table(table).session(torch.tensor([1, 0]))
    assert session.probability(torch.tensor([[3, 0], [3, 0]])).tolist() == [[pytest.approx(0.3125), 1.0], [0.25, 0.5]]
    assert session.everything()[1].tolist() == [0.5, 0.0, 0.0, 0.25]
    session.keep(torch.tensor([False, True]))
    assert session.probability(torch.tensor([[0]])).tolist() == [[0.5]]


def test_the_test_world_answers_as_the_matrix_does(rec: Data, rec_files: Path) -> None:
    small = pd.read_csv(rec_files / kuairec.SMALL)
    users, videos = sorted(small["user_id"].unique()), sorted(pd.read_csv(rec_files / kuairec.BIG)["video_id"].unique())
    spec = tiny("kuairec", "random", rec_files)
    world, fidelity = run.make_world(spec, rec, "test")
    assert fidelity is None
    assert rec.repairs["test pairs without a row, answered by means"] == REC.test_users * REC.test_items - REC.test_rows
    some = small.sample(300, random_state=0)
    everyone = torch.arange(REC.test_users)
    world.reset(everyone, 0)
    answers = world.click_probabilities()
    for user, video, ratio in zip(some["user_id"], some["video_id"], some["watch_ratio"], strict=True):
        assert float(answers[users.index(user), videos.index(video)]) == pytest.approx(min(ratio, 1), abs=1e-6)
    absent = rec.test.items.absent
    assert absent is not None
    obs = world.reset(everyone, 0)
    assert torch.equal(obs.absent, absent)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="slate holds an item that this world's catalogue lacks"):
        world.step(absent[:5].expand(len(everyone), -1))


@pytest.mark.parametrize("repeats", [False, True])
@pytest.mark.parametrize("method", catalog.TABLES["methods"])
def test_no_method_shows_what_the_test_catalogue_lacks(method: str, repeats: bool, rec: Data, rec_files: Path) -> None:
    """The world refuses absent items, so a session that ends has shown none: greedy slates and drawn ones of every method."""
    settings = {"world": {"slate": 5, "max_len": 8, "repeats": repeats}}
    spec = tiny("kuairec", method, rec_files, settings=settings)
    parts = Trial(spec, rec)
    policy = parts.policy()
    played = sessions_of(parts.test, policy, evaluation_users(parts.test, 30, 0))
    assert rec.test.items.in_play()[played.slates[played.alive]].all()
    obs = parts.test.reset(torch.arange(10), 1)
    for step in range(2):
        drawn = policy.act(obs, generator=torch.Generator().manual_seed(step)) if method != "oracle" else policy.act(obs)
        assert all(len(set(row)) == 5 for row in drawn.tolist())
        if hasattr(policy, "rank"):  # as an exported policy and an environment choose
            rules = Rules(5, 8, repeats, spec.settings["state"]["history"], rec.test.items.absent)
            assert torch.equal(policy.rank(observed(parts.view, rules, obs)), policy.act(obs))
            apart = observe(parts.view, rules, obs.history, obs.rewards, obs.shown, torch.zeros(obs.shown.shape))
            assert rec.test.items.in_play()[policy.rank(apart)].all()
        obs = parts.test.step(drawn).obs


def test_measures_are_over_the_catalogue_in_play(rec: Data, rec_files: Path) -> None:
    spec = tiny("kuairec", "random", rec_files)
    trial = Trial(spec, rec)
    played = sessions_of(trial.test, trial.policy(), evaluation_users(trial.test, 30, 0))
    found = summary(played, rec.test.items)
    counts = exposure_counts(played, REC.items)
    assert found["gini"] == gini(counts[rec.test.items.in_play()]) < gini(counts)
    assert found["coverage"] == pytest.approx(float((counts > 0).sum()) / REC.test_items)


def test_sizes_are_checked_against_the_catalogue_in_play(rec_files: Path) -> None:
    spec = make(dataset="kuairec", method="random", settings={"dataset": {"path": str(rec_files)}, "world": {"max_len": 7}})
    with pytest.raises(BadInput, match=r"needs that many items and the catalogue has 60; set world\.repeats=true"):
        run.load_data(spec)


# Whole runs


@pytest.mark.parametrize("method", ["dsrm_hrl", "a2c"])
@pytest.mark.parametrize("name", ["kuairec", "kuairand-pure"])
def test_trains_and_evaluates(
    name: str, method: str, rec_files: Path, rand_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = rec_files if name == "kuairec" else rand_files
    argv = ["train", f"--dataset={name}", f"--method={method}", f"--set=dataset.path={files}", "--episodes=60", "--slate=5"]
    argv += ["--max-len=8", "--set=state.width=6", "--set=state.epochs=2", "--set=state.history=60", "--set=method.users=40"]
    argv += ["--set=purifier.training_steps=40", "--set=purifier.parts=500"] if method == "dsrm_hrl" else []
    assert main([*argv, f"--out={tmp_path / 'run'}", "--device=cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    sizes = REC if name == "kuairec" else RAND
    assert result["episodes"] == 60
    assert result["evaluation_episodes"] == sizes.test_users
    assert 1 <= result["len"] <= 8
    assert 0 < result["r_each"] < 1
    assert (result["world"]["test"] is None) == (name == "kuairec"), "KuaiRec's answers are looked up"
    assert result["world"]["train"]["held_out"] > 100
    assert (
        result["repairs"] == catalog.find("datasets", name).load(catalog.find("datasets", name).Config(path=str(files))).repairs
    )
    again = run.evaluate_run(tmp_path / "run", episodes=1000)
    assert again["r_cum"] == pytest.approx(result["r_cum"])


def test_inspect_prints_table_1_and_what_was_mended(
    rec_files: Path, rand_files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "inspect", "kuairec", f"--set=dataset.path={rec_files}", "--set=world.repeats=true", "--json"]) == 0
    row = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert row["environments"]["train"] == {"users": 80, "items": 120, "interactions": 2600, "density": 2600 / 9600}
    assert row["environments"]["test"]["interactions"] == 1750
    assert row["repairs"]["train rows that repeat a pair, the last kept"] == 150
    assert list(row["fidelity"]) == ["train"]
    assert (row["users"], row["train_interactions"]) == (80, 2450)
    assert main(["data", "inspect", "kuairand-pure", f"--set=dataset.path={rand_files}", "--set=world.repeats=true"]) == 0
    out = capsys.readouterr().out
    assert "environments.train.interactions: 2500" in out
    assert "environments.test.users: 100" in out
    assert "The test world, fitted to 1600 interactions" in out
