"""Maps of test users: who is on them, that equal states give equal maps, and the command that writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from engine import checkpoint, maps, run
from engine.__main__ import main
from engine.options import BadInput
from engine.recorder import MemoryRecorder
from engine.report import MEASURES, QUICK, measure
from engine.run import Trained
from small import small_spec


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("maps") / "run"
    run.run(small_spec(method="balanced", purifier="diffusion"), MemoryRecorder(), folder)
    return folder


@pytest.fixture(scope="module")
def trained(finished: Path) -> Trained:
    return run.load_run(finished)


def test_fewer_people_are_the_first_of_more(trained: Trained) -> None:
    few, many = maps.people(trained, 20), maps.people(trained, 2000)
    assert torch.equal(few.users, many.users[:20])
    assert len(many) <= trained.data.test.users
    assert len(set(many.users.tolist())) == len(many)
    for steps in (0, 4):
        some, all_of_them = (maps.states(trained, of, "purified", steps) for of in (few, many))
        assert some is not None
        assert all_of_them is not None
        assert torch.allclose(some, all_of_them[:20], atol=1e-5)


def test_people_are_seen_as_when_a_session_starts(trained: Trained) -> None:
    of = maps.people(trained, 30)
    obs = trained.world.reset(of.users, 0)
    raw = maps.states(trained, of, "raw")
    assert raw is not None
    assert torch.equal(obs.history[:, -of.obs.history.shape[1] :], of.obs.history)
    assert torch.allclose(trained.view(obs), trained.view(of.obs), atol=1e-5)
    assert of.count.tolist() == [12] * 30
    assert torch.allclose(of.rate, of.obs.rewards.sum(1) / 12)
    truth = trained.data.truth
    assert truth is not None
    assert of.conformity is not None
    assert torch.equal(of.conformity, truth.conformity[of.users])
    assert torch.equal(of.interest, truth.interest[of.users])


def test_without_the_truth_the_interest_is_the_most_frequent_tag(trained: Trained) -> None:
    from dataclasses import replace

    blind = replace(trained, data=replace(trained.data, truth=None))
    of = maps.people(blind, 30)
    assert of.conformity is None
    assert maps.states(blind, of, "clean") is None
    for row in range(5):
        liked = of.obs.history[row][of.obs.rewards[row] > 0]
        counts = torch.bincount(blind.items.main_tag[liked])
        assert counts[of.interest[row]] == counts.max()


def test_equal_spaces_are_drawn_once_and_every_time_alike() -> None:
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    said: list[str] = []
    drawn = maps.draw({"raw": x, "purified": x.clone(), "clean": x + torch.arange(5)}, said.append)
    assert len(said) == 6
    for kind in maps.KINDS:
        assert torch.equal(drawn[kind]["raw"], drawn[kind]["purified"])
        assert drawn[kind]["clean"].shape == (40, 2)
    assert torch.equal(maps.tsne(x), drawn["tsne"]["raw"])


def test_the_command_writes_maps_once(finished: Path, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert maps.read(finished) is None
    assert main(["map", f"--run={finished}", "--json"]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out.strip().splitlines()[-1])
    assert (told["spaces"], told["again"]) == (["raw", "purified", "clean"], False)
    assert "map: tsne of clean (6 of 6)" in err
    kept = maps.read(finished)
    assert kept is not None
    users, drawn = kept
    assert torch.equal(users, maps.people(trained).users)
    assert {kind: {space: tuple(xy.shape) for space, xy in own.items()} for kind, own in drawn.items()} == {
        kind: dict.fromkeys(maps.SPACES, (len(users), 2)) for kind in maps.KINDS
    }
    assert main(["map", f"--run={finished}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["again"] is True
    damaged = bytearray((finished / maps.FILE).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (finished / maps.FILE).write_bytes(bytes(damaged))
    assert maps.read(finished) is None, "a flipped byte is seen"


def test_a_run_deleted_meanwhile_does_not_come_back(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    shutil.copytree(finished, folder)
    (folder / maps.FILE).unlink(missing_ok=True)

    def deleted(*_: object) -> dict[str, object]:
        shutil.rmtree(folder)
        return {}

    monkeypatch.setattr(maps, "draw", deleted)
    with pytest.raises(BadInput, match="it was deleted while its maps were drawn"):
        maps.make(folder)
    assert not (folder / maps.FILE).exists()


def test_only_what_is_wanted_is_measured(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    of = maps.people(trained)
    state, clean = maps.states(trained, of, "purified"), maps.states(trained, of, "clean")
    assert state is not None
    own = (state, None, clean, of.popularity, of.users, trained.data)
    all_but_retrieval = measure(*own)
    assert all_but_retrieval["retrieval"] is None
    assert all_but_retrieval["popularity_r2_nonlinear"] is not None
    monkeypatch.setattr("sklearn.ensemble.HistGradientBoostingRegressor", None)  # the slow probe must not even be made
    quick = measure(*own, wanted=QUICK)
    assert list(quick) == list(MEASURES)
    assert {name for name, value in quick.items() if value is not None} == set(QUICK)
    assert all(quick[name] == all_but_retrieval[name] for name in QUICK)


def test_few_users_of_one_interest_are_not_classified(trained: Trained) -> None:
    of = maps.people(trained)
    truth = trained.data.truth
    assert truth is not None
    main = truth.interest[of.users]
    same = (main == main.mode().values).nonzero()[:, 0][:10]
    state = maps.states(trained, of, "raw")
    assert state is not None
    found = measure(state[same], None, None, of.popularity[same], of.users[same], trained.data, wanted=QUICK)
    assert found["category_accuracy"] is None
    assert found["silhouette_interest"] is None
    assert found["popularity_r2"] is not None


def test_a_run_that_cannot_be_mapped_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["map", f"--run={tmp_path}"]) == 2
    assert "it must be a finished run's folder" in capsys.readouterr().err
    assert checkpoint.read_tensors(tmp_path / maps.FILE) is None
