"""Logs of one's own: every problem with its line, caps, names that the server makes; and the numbers of any dataset."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

from engine import run
from engine.contracts import Data
from engine.data import own, table
from engine.data.table import Checked, Config
from engine.metrics import gini
from engine.options import BadInput
from engine.overview import correlation, overview
from engine.report import inspect
from engine.spec import make
from small import small_spec

HEADER = "user,item,reward,time\n"
GOOD = HEADER + "".join(f"u{user},i{item},{(user + item) % 2},{user * 100 + item}\n" for user in range(4) for item in range(6))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))


def checked(tmp_path: Path, text: str, **options: float) -> Checked:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return table.check(Config(path=str(path), **options))  # type: ignore[arg-type]


# What a check says


def test_a_good_log_is_understood(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\ni1,One\n")
    found = checked(tmp_path, GOOD.replace("time\n", "time,note\n").replace("\n", ",x\n").replace("note,x", "note", 1))
    assert (found.rows, found.users, found.items) == (24, 4, 6)
    assert found.used == ("user", "item", "reward", "time")
    assert found.ignored == ("note",)
    assert found.described
    assert found.preview.iloc[1].tolist() == ["u0", "i1", 1.0, "1970-01-01 00:00:01"]
    assert found.problems == ()
    assert found.wrong_rows == 0


def test_every_problem_has_its_line_and_what_is_legal(tmp_path: Path) -> None:
    text = HEADER + "a,x,good,1\n,y,1,2\nb,x,7,soon\nb,y,1,4\na,z,,5\n"
    found = checked(tmp_path, text)
    told = [(problem.where, problem.column, problem.value, problem.legal) for problem in found.problems]
    assert told == [
        ("line 2", "reward", "good", "a number"),
        ("line 3", "user", "", "an id of at most 200 characters"),
        ("line 4", "reward", "7", "0 to 1, or set a threshold"),
        ("line 4", "time", "soon", "seconds or ISO 8601"),
        ("line 6", "reward", "", "a number"),
    ]
    assert found.wrong_rows == 4
    with pytest.raises(BadInput, match=r"log\.csv: reward in line 2 is 'good': it must be a number"):
        table.load(Config(path=str(tmp_path / "log.csv")))


def test_only_the_first_problems_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    rows = "".join(f"a,x{place},bad,{place}\n" for place in range(500))
    found = checked(tmp_path, HEADER + rows)
    assert [problem.where for problem in found.problems] == [f"line {line}" for line in range(2, 22)]
    assert found.wrong_rows == 500


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (HEADER + "a,x,nan,1\nb,y,NaN,2\n", "column reward holds no value at all"),
        (HEADER + "a,x,1,1\na,y,1,2\n", "has 1 user(s) and 2 item(s): it must have at least 2 of each"),
        (HEADER + "a,x,1,1\nb,y,1,2\n", "has one row for each user"),
        (HEADER + "a,x,1,1\nb,y,1,1e300\na,y,1,2\n", "time in line 3 is '1e300'"),
        (HEADER.strip() + ",randomised\na,x,1,1,0\nb,y,1,2,maybe\na,y,1,2,1\n", "randomised in line 3 is 'maybe'"),
        (HEADER.strip() + ",randomised\na,x,1,1,0\nb,y,1,2,0\na,y,1,2,1\n", "the log has 1 randomised row: the later half"),
    ],
)
def test_problems_of_whole_columns_and_files(tmp_path: Path, text: str, sentence: str) -> None:
    assert sentence in checked(tmp_path, text).problems[0].sentence


def test_one_slip_among_dates_is_told_and_not_a_thousand_dates(tmp_path: Path) -> None:
    found = checked(tmp_path, HEADER + "a,x,1,2024-01-01\na,y,1,12\nb,x,1,2024-01-03\n")
    assert [problem.where for problem in found.problems] == ["line 3"]
    found = checked(tmp_path, HEADER + "a,x,1,1\na,y,1,2024-01-01\nb,x,1,3\n")
    assert [problem.where for problem in found.problems] == ["line 3"]


def test_ratings_are_told_and_a_threshold_mends_them(tmp_path: Path) -> None:
    text = HEADER + "a,x,5,1\na,y,3,2\nb,x,4,3\nb,y,1,4\n"
    assert checked(tmp_path, text).wrong_rows == 3
    found = checked(tmp_path, text, threshold=4.0)
    assert found.problems == ()
    assert found.preview["reward"].tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (HEADER, "has a header and no rows"),
        ("user;item;reward;time\na;x;1;1\n", "column user, item, reward, time is missing; it has user;item;reward;time"),
        (HEADER + "a,x,1,1,9\nb,y,1,2,9\n", "line 2 has more cells than the header, which has 4"),
        (HEADER + "a,x,1,1\nb,y,1,2,9\n", "cannot be read as csv: .*line 3"),
        (",".join(f"c{place}" for place in range(600)) + "\n1\n", "has 600 columns: it must have 500 or less"),
    ],
)
def test_what_leaves_no_rows_to_look_at_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        checked(tmp_path, text)


def test_problems_of_a_parquet_file_are_told_by_row(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user": [1, 1, 2], "item": [1, 2, 1], "reward": [0.5, None, 2.0], "time": [1, 2, 3], "more": 1})
    frame.to_parquet(tmp_path / "log.parquet")
    found = table.check(Config(path=str(tmp_path / "log.parquet")))
    assert [(problem.where, problem.column) for problem in found.problems] == [("row 2", "reward"), ("row 3", "reward")]
    assert found.ignored == ("more",)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [b"\xff", b"\xff", b"x"], "column user holds binary: it must hold numbers, text or times"),
        ("reward", [[1.0], [0.0], [1.0]], "column reward holds list<"),
        ("item", [{"a": 1}, {"a": 2}, {"a": 1}], "column item holds struct<"),
    ],
)
def test_parquet_columns_of_strange_kinds(tmp_path: Path, column: str, values: list[object], message: str) -> None:
    plain: dict[str, list[object]] = {"user": [1, 1, 2], "item": [1, 2, 1], "reward": [1, 0, 1], "time": [1, 2, 3]}
    frame = pa.table({**plain, column: values})
    parquet.write_table(frame, tmp_path / "log.parquet")
    with pytest.raises(BadInput, match=message):
        table.check(Config(path=str(tmp_path / "log.parquet")))


def test_a_parquet_file_with_a_column_twice(tmp_path: Path) -> None:
    names = ["user", "item", "reward", "time", "user"]
    parquet.write_table(pa.table([pa.array([1, 1, 0])] * 5, names=names), tmp_path / "log.parquet")
    with pytest.raises(BadInput, match="has 2 columns user: it must have one"):
        table.check(Config(path=str(tmp_path / "log.parquet")))


def test_items_files_are_checked_too(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item,title\n"x')
    with pytest.raises(BadInput, match=r"items\.csv cannot be read as csv"):
        checked(tmp_path, GOOD)
    many = "".join(f"i{item},{' '.join(f't{item}-{tag}' for tag in range(300))}\n" for item in range(6))
    (tmp_path / "items.csv").write_text("item,tags\n" + many)
    with pytest.raises(BadInput, match="has 1800 different tags: it must have 1000 or less"):
        checked(tmp_path, GOOD)


# Large logs are read in blocks, and in two ways


MESSY = (
    "a,x,0.5,1\n b ,y,1,2\nb,x,0,3\n,y,1,4\nc,é,nan,5\na,y,2,soon\nnull,x,1,7\nc,x,1e-1,8\n"
    + f"a,{'z' * 300},1,9\n"
    + "b,y,0.25,10\n"
)
CLEAN = "a,x,0.5,1\n b ,y,1,2\nb,x,0,3\nc,é,0.1,5\na,y,1,6.5\nc,x,1e-1,8\nb,😀,0.25,10\nc,y,1,2\n"


def same(a: Data, b: Data) -> bool:
    """Whether two datasets hold the same rows, names and fingerprint."""
    pairs = [(getattr(a, part), getattr(b, part)) for part in ("train", "test", "train_start", "test_start")]
    columns = ("user", "item", "reward", "time")
    rows = all(torch.equal(getattr(x, name), getattr(y, name)) for x, y in pairs for name in columns)
    return rows and a.train.items.titles == b.train.items.titles and a.fingerprint == b.fingerprint


@pytest.mark.parametrize("block", [1, 3])
def test_blocks_change_nothing_that_is_said_of_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    whole = checked(tmp_path, HEADER + MESSY)
    assert len(whole.problems) == 6
    monkeypatch.setattr(table, "BLOCK", block)
    parts = checked(tmp_path, HEADER + MESSY)
    assert parts.problems == whole.problems
    assert parts.preview.equals(whole.preview)
    assert (parts.rows, parts.users, parts.items, parts.wrong_rows) == (whole.rows, whole.users, whole.items, 5)
    assert "user in line 5 is missing (2 such rows)" in [problem.sentence for problem in parts.problems], "counted over blocks"


@pytest.mark.parametrize("ending", ["csv", "parquet"])
@pytest.mark.parametrize("times", ["numbers", "dates"])
def test_blocks_change_nothing_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, times: str) -> None:
    generator = np.random.default_rng(3)
    seconds = generator.integers(1_700_000_000, 1_700_000_050, 200)
    frame = pd.DataFrame({"user": generator.integers(9, size=200), "item": generator.choice(list("zyxé"), 200)})
    frame["reward"] = generator.choice([0, 0.1, 1 / 3, 1], 200)
    frame["time"] = seconds if times == "numbers" else pd.to_datetime(seconds, unit="s").strftime("%Y-%m-%dT%H:%M:%S")
    path = tmp_path / f"log.{ending}"
    frame.to_parquet(path) if ending == "parquet" else frame.to_csv(path, index=False)
    whole = table.load(Config(path=str(path)))
    assert whole.train.time.max() <= 1_700_000_050
    monkeypatch.setattr(table, "BLOCK", 7)
    assert same(table.load(Config(path=str(path))), whole)


def test_a_plain_file_is_read_as_carefully_as_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files without quotes are taken apart by another reader: what comes out must not tell which one it was."""
    path = tmp_path / "log.csv"
    path.write_text(HEADER + CLEAN)
    assert table._is_plain(path)
    plain = table.load(Config(path=str(path)))
    with monkeypatch.context() as other:
        other.setattr(table, "_is_plain", lambda path: False)
        assert same(table.load(Config(path=str(path))), plain)
    monkeypatch.setattr(table, "_aligned", lambda *_: pytest.fail("the slow way"))
    assert same(table.load(Config(path=str(path))), plain)


@pytest.mark.parametrize(
    "text",
    [
        '"user","item","reward","time"\n"a","x",1,1\n"a","y",0,2\n"b","x",1,1\n',
        "user,item,reward,time\r\na,x,1,1\r\na,y,0,2\r\nb,x,1,1\r\n",
        "user,item,reward,time\ra,x,1,1\ra,y,0,2\rb,x,1,1\r",
        "\ufeffuser,item,reward,time\na,x,1,1\na,y,0,2\nb,x,1,1",
        'note,time,user,item,reward\n,1,a,x,1\n"one, two",2,a,y,0\nq,1,b,x,1\n',
    ],
)
def test_the_same_rows_however_they_are_written(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text, newline="")
    data = table.load(Config(path=str(path)))
    assert data.train.items.titles == ("item x", "item y")
    assert (data.train.user.tolist(), data.train.item.tolist(), data.train.reward.tolist()) == ([0, 1], [0, 0], [1, 1])
    assert (data.test.item.tolist(), data.test.reward.tolist()) == ([1], [0])


def test_a_slip_far_down_is_found_in_a_plain_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK", 2)
    rows = [f"u{row % 3},i{row % 4},1,{row}" for row in range(40)]
    with pytest.raises(BadInput, match=r"cannot be read as csv: .*line 31, saw 5"):
        checked(tmp_path, HEADER + "\n".join([*rows[:29], "u1,i1,1,2,9", *rows[30:]]))
    found = checked(tmp_path, HEADER + "\n".join([*rows[:29], "u1,i1,1", "", *rows[31:]]))
    assert [(problem.where, problem.column) for problem in found.problems][:3] == [
        ("line 31", "time"), ("line 32", "user"), ("line 32", "item"),
    ]  # fmt: skip


# What is kept


def test_a_log_is_kept_under_a_name_of_ours_and_only_once(tmp_path: Path) -> None:
    first = own.keep("../../etc/passwd\x00.CSV", GOOD.encode(), b"item,title\ni1,One\n")
    assert first.path is not None
    assert first.path.resolve().is_relative_to((tmp_path / "data" / "own").resolve())
    assert first.path.name == "log.csv"
    assert first.path.read_bytes() == GOOD.encode()
    assert table.load(Config(path=str(first.path))).train.items.titles[1] == "One"
    again = own.keep("another name.csv", GOOD.encode(), b"item,title\ni1,One\n")
    assert again.path == first.path
    other = own.keep("log.csv", GOOD.encode())
    assert other.path != first.path, "without its titles it is another log"
    files = [file for file in (tmp_path / "data").rglob("*") if file.is_file()]
    assert {file.name for file in files} == {"log.csv", "items.csv"}
    assert not (tmp_path / "etc").exists()


def test_what_has_problems_is_not_kept(tmp_path: Path) -> None:
    found = own.keep("log.csv", (GOOD + "u1,i1,good,1\n").encode())
    assert found.path is None
    assert found.checked.problems[0].where == "line 26"
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.exe", b"x", r"ends in '\.exe': it must end in \.csv, \.tsv or \.parquet"),
        ("log.csv.pkl", pickle.dumps({"a": 1}), "ends in '.pkl'"),
        ("log", b"x", "it must end in"),
        (".parquet", b"x", "it must end in"),
        ("log.parquet", pickle.dumps({"a": 1}), "cannot be read as parquet"),
        ("log.csv", b"\x00\xff\x00\x01" * 50, "column user, item, reward, time is missing"),
        ("log.csv", b"", r"^log\.csv is empty"),
        ("log.csv", HEADER.encode() + b"a," + b"x" * 20_000 + b",1,1\n", "a cell in line 2 has more than 10000 bytes"),
    ],
)
def test_uploads_that_are_no_logs(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        own.keep(name, content)
    assert not (tmp_path / "data").exists()


def test_caps_on_bytes_rows_and_all_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="the log has 50000001 bytes: it must have 50000000 or less"):
        own.keep("log.csv", b" " * 50_000_001)
    with pytest.raises(BadInput, match=r"items\.csv has 10000001 bytes"):
        own.keep("log.csv", GOOD.encode(), b" " * 10_000_001)
    monkeypatch.setattr(own, "MOST_ROWS", 20)
    with pytest.raises(BadInput, match=r"^log\.csv has more than 20 rows: it must have 20 or less"):
        own.keep("log.csv", GOOD.encode())
    monkeypatch.setattr(own, "MOST_ROWS", 100)
    monkeypatch.setattr(own, "MOST_KEPT", len(GOOD) + 10)
    own.keep("log.csv", GOOD.encode())
    with pytest.raises(BadInput, match="remove what is not needed any more"):
        own.keep("log.tsv", GOOD.replace(",", "\t").encode())


def test_a_parquet_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MOST_ROWS", 10_000)
    monkeypatch.setattr(table, "MOST_UNPACKED", 1)
    frame = pd.DataFrame({"user": np.arange(9000) % 50, "item": np.arange(9000) % 7, "reward": 1.0, "time": np.arange(9000)})
    frame.to_parquet(tmp_path / "log.parquet")
    with pytest.raises(BadInput, match=r"unpacks to \d+ bytes: it must be 10000 or less"):
        own.keep("log.parquet", (tmp_path / "log.parquet").read_bytes())


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = own.keep("log.csv", GOOD.encode()).path
    assert kept is not None
    kept.unlink()
    os.symlink(outside / "target.csv", kept)
    with pytest.raises(BadInput, match="is a symbolic link"):
        own.keep("log.csv", GOOD.encode())
    kept.unlink()
    kept.parent.rmdir()
    os.symlink(outside, kept.parent)
    with pytest.raises(BadInput, match="is a symbolic link"):
        own.keep("log.csv", GOOD.encode())
    kept.parent.unlink()
    own.folder().rmdir()
    os.symlink(outside, own.folder())
    with pytest.raises(BadInput, match="is a symbolic link"):
        own.keep("log.csv", GOOD.encode())
    assert list(outside.iterdir()) == []


# The numbers of a dataset


def test_the_overview_counts_what_the_log_holds(tmp_path: Path) -> None:
    rows = ["a,x,1,1", "a,y,0,2", "a,x,1,3", "b,x,0,1", "b,y,0,2", "b,z,0.5,3"]
    path = tmp_path / "log.csv"
    path.write_text(HEADER + "\n".join(rows))
    found = overview(table.load(Config(path=str(path))))
    assert found.exposures.tolist() == [3, 2, 1]
    assert found.plays.tolist() == [2, 0, 0.5]
    assert found.rate.tolist() == pytest.approx([2 / 3, 0, 0.5])
    assert found.lengths.tolist() == [3, 3]
    assert found.liking.tolist() == pytest.approx([2 / 3, 1 / 6])
    assert found.row["mean_reward"] == pytest.approx(2.5 / 6)
    assert found.row["density"] == 1.0
    assert found.row["gini"] == pytest.approx(gini(torch.tensor([3, 2, 1])))
    assert found.row["popularity_reward_r2_counts"] == pytest.approx(np.corrcoef([3, 2, 1], [2, 0, 0.5])[0, 1] ** 2)
    assert found.row["popularity_reward_r_rates"] == pytest.approx(np.corrcoef([3, 2, 1], [2 / 3, 0, 0.5])[0, 1])
    assert found.fitted
    assert found.lorenz[[0, -1]].tolist() == [0, 1]


def test_users_of_two_worlds_are_counted_apart(data: Data) -> None:
    found = overview(data)
    assert len(found.lengths) == found.row["users"] == data.train.users + data.test.users
    assert (found.lengths == 40).all()
    assert not found.fitted


def test_the_command_and_the_page_share_their_numbers(data: Data) -> None:
    row = inspect(small_spec(method="random"))
    assert row == {**overview(data).row, "fidelity": None}


def test_in_counts_popularity_explains_all_and_in_rates_nothing() -> None:
    """The same items: what is shown more is not liked more, and yet collects more."""
    generator = np.random.default_rng(0)
    exposures, rate = generator.lognormal(4, 1.6, 4000), generator.beta(2, 5, 4000)
    assert correlation(exposures, exposures * rate) ** 2 > 0.6
    assert correlation(exposures, rate) ** 2 < 0.01
    assert correlation([1, 1, 1], [1, 2, 3]) == 0


def test_real_items_of_kuairand_pure_are_not_liked_more_where_they_are_shown_more() -> None:
    folder = Path(os.environ.get("FAIRSTATE_TEST_DATA", "")) / "kuairand_pure"
    if not (folder / "item_popularity.csv").is_file():
        pytest.skip("FAIRSTATE_TEST_DATA names no folder with kuairand_pure")
    popularity = pd.read_csv(folder / "item_popularity.csv")["popularity"].to_numpy()
    quality = pd.read_csv(folder / "item_quality.csv")["quality"].to_numpy()
    assert correlation(popularity, quality) == pytest.approx(-0.006, abs=0.001)
    assert correlation(popularity, popularity * quality) ** 2 > 0.6


def test_fidelity_is_known_once_a_world_was_fitted_and_never_fitted_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNS_DIR", str(tmp_path / "runs"))
    path = tmp_path / "log.csv"
    path.write_text(GOOD)
    spec = make(dataset=str(path), method="random", settings={"world": {"slate": 2, "max_len": 3}})
    fingerprint = run.load_data(spec).fingerprint
    assert run.kept_fidelity(fingerprint) == {}
    told = inspect(spec)["fidelity"]
    kept = run.kept_fidelity(fingerprint)
    assert set(kept) == {"train", "test"}
    assert kept["test"]["log_loss"] == told["test"]["log_loss"]
