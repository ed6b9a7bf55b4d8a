"""KuaiRec and KuaiRand-Pure: files made from a seed in the published schema, with every trap, and every refusal."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.kuai import Sizes, tarred, write_kuairand, write_kuairec, zipped
from engine import catalog, run
from engine.__main__ import main
from engine.contracts import Data, Dataset, Items
from engine.data import bundle, fetch, kuai, kuairand, kuairec
from engine.data.heads import with_head_share
from engine.data.observed import response_table
from engine.evaluate import evaluation_users, sessions_of
from engine.learn.moment import Rules, observe, observed
from engine.metrics import exposure_counts, gini, summary
from engine.options import BadInput
from engine.overview import environment, overview
from engine.recorder import MemoryRecorder
from engine.spec import RunSpec, make
from engine.world.responses import Table

REC = Sizes(80, 120, 2600, 30, 60, 1750, 150, 12)
RAND = Sizes(90, 130, 2500, 100, 140, 1600, 40, 3)
VIDEO_FEATURES = "video_features_basic_pure.csv"


@pytest.fixture(scope="session")
def rec_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rec") / "data"
    folder.mkdir()
    write_kuairec(folder, REC, seed=3)
    return folder


@pytest.fixture(scope="session")
def rand_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rand") / "data"
    folder.mkdir()
    write_kuairand(folder, RAND, seed=4)
    return folder


@pytest.fixture(scope="session")
def rec(rec_files: Path) -> Data:
    return kuairec.load(kuairec.Config(path=str(rec_files)))


@pytest.fixture(scope="session")
def rand(rand_files: Path) -> Data:
    return kuairand.load(kuairand.Config(path=str(rand_files)))


def copied(files: Path, folder: Path) -> Path:
    shutil.copytree(files, folder / "files")
    return folder / "files"


def edited(file: Path, line: int, text: str | None) -> None:
    """Put `text` in place of a line, counted from 1 with the header, or take it out."""
    lines = file.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    file.write_text("\n".join(lines) + "\n")


def added(file: Path, *lines: str) -> None:
    file.write_text(file.read_text() + "".join(line + "\n" for line in lines))


# What is loaded


def test_table_1_of_both(rec: Data, rand: Data) -> None:
    for data, sizes in ((rec, REC), (rand, RAND)):
        train, test = environment(data, "train"), environment(data, "test")
        assert (train["users"], train["items"], train["interactions"]) == (sizes.users, sizes.items, sizes.rows)
        assert (test["users"], test["items"], test["interactions"]) == (sizes.test_users, sizes.test_items, sizes.test_rows)
        assert test["density"] == pytest.approx(sizes.test_rows / (sizes.test_users * sizes.test_items))
        assert overview(data).row["environments"] == {"train": train, "test": test}
        assert overview(data).row["repairs"] == data.repairs


def test_kuairec_against_pandas(rec: Data, rec_files: Path) -> None:
    """The same by the plainest means: of rows of a pair the last, those of test pairs out, users in the order of time."""
    big, small = (pd.read_csv(rec_files / name) for name in (kuairec.BIG, kuairec.SMALL))
    testers = sorted(small["user_id"].unique())
    order = testers + sorted(set(big["user_id"]) - set(testers))
    videos = sorted(set(big["video_id"]) | set(small["video_id"]))
    kept = big.drop_duplicates(["user_id", "video_id"], keep="last")
    assert rec.repairs["train rows that repeat a pair, the last kept"] == len(big) - len(kept) == REC.repeats
    kept = kept.assign(user=kept["user_id"].map({u: n for n, u in enumerate(order)}))
    kept = kept.sort_values(["user", "timestamp"], kind="stable")
    assert rec.train.user.tolist() == kept["user"].tolist()
    assert rec.train.item.tolist() == kept["video_id"].map({v: n for n, v in enumerate(videos)}).tolist()
    assert np.allclose(rec.train.reward.numpy(), kept["watch_ratio"].clip(upper=1), atol=1e-6)
    assert rec.train.time.tolist() == (kept["timestamp"] // 1).astype(int).tolist()
    assert (rec.train.users, rec.test.users, len(rec.train.items)) == (REC.users, REC.test_users, REC.items)
    starts = [list(group["video_id"])[: (len(group) + 1) // 2] for _, group in kept.groupby("user")]
    assert rec.train_start.item.tolist() == [videos.index(video) for own in starts for video in own]
    mine = kept[kept["user"] < len(testers)]
    assert rec.test_start.item.tolist() == mine["video_id"].map({v: n for n, v in enumerate(videos)}).tolist()
    assert rec.test_start.users == len(testers)


def test_kuairand_against_pandas(rand: Data, rand_files: Path) -> None:
    logs = [pd.read_csv(rand_files / name) for name in (*kuairand.STANDARD, kuairand.RANDOM)]
    train = pd.concat(logs[:2]).drop_duplicates(["user_id", "video_id", "time_ms"], keep="last")
    assert (
        rand.repairs["train rows that repeat a user, video and time, the last kept"] == RAND.rows - len(train) == RAND.repeats
    )
    train = train.sort_values(["user_id", "time_ms"], kind="stable")
    first = sorted(train["user_id"].unique())
    order = first + sorted(set(logs[2]["user_id"]) - set(first))
    assert rand.train.user.tolist() == train["user_id"].map({u: n for n, u in enumerate(order)}).tolist()
    assert rand.train.item.tolist() == train["video_id"].tolist()
    assert rand.train.reward.tolist() == train["is_click"].tolist()
    assert len(rand.test) == RAND.test_rows
    assert (rand.train.users, rand.test.users) == (RAND.users, RAND.test_users)
    assert (bool(rand.train.randomised.any()), bool(rand.test.randomised.all())) == (False, True)  # type: ignore[union-attr]
    exposures = train["video_id"].value_counts().reindex(range(RAND.test_items), fill_value=0)
    assert rand.train.items.popularity.tolist() == exposures.tolist()
    assert int(rand.train.items.head.sum()) == RAND.test_items // 5
    assert exposures[rand.train.items.head.numpy()].min() >= exposures[~rand.train.items.head.numpy()].max()
    assert rand.repairs["videos that no training row shows"] == int((exposures == 0).sum()) >= 10


def test_responses_by_their_options(rec: Data, rec_files: Path, rand_files: Path) -> None:
    ratio = pd.read_csv(rec_files / kuairec.SMALL).sort_values(["user_id", "timestamp"])["watch_ratio"]
    above = {1.0: 0, 3.0: 0}
    for clip in above:
        data = kuairec.load(kuairec.Config(path=str(rec_files), clip=clip))
        assert data.test.reward.double().sum().item() == pytest.approx((ratio.clip(upper=clip) / clip).sum(), rel=1e-5)
        assert float(data.test.reward.max()) == 1.0
        above[clip] = data.repairs["watch ratios above dataset.clip"]
    assert above[1.0] > above[3.0] > 0
    liked = kuairec.load(kuairec.Config(path=str(rec_files), threshold=2.0))
    assert float(liked.test.reward.sum()) == float((ratio >= 2).sum())
    assert "watch ratios above dataset.clip" not in liked.repairs
    assert len({rec.fingerprint, data.fingerprint, liked.fingerprint}) == 3
    long_view = kuairand.load(kuairand.Config(path=str(rand_files), response="long_view"))
    said = pd.read_csv(rand_files / kuairand.RANDOM)["long_view"]
    assert long_view.test.reward.sum() == said.sum()


def test_worlds_share_no_row_and_one_id_space(rec: Data) -> None:
    train = set(zip(rec.train.user.tolist(), rec.train.item.tolist(), strict=True))
    assert not train & set(zip(rec.test.user.tolist(), rec.test.item.tolist(), strict=True))
    absent = rec.test.items.absent
    assert absent is not None
    assert len(absent) == REC.items - REC.test_items
    assert not torch.isin(rec.test.item, absent).any()
    assert rec.train.items.absent is None
    assert rec.shared_users


def test_heads_are_a_fifth_of_what_is_in_play_and_have_one_border(rec: Data) -> None:
    items, in_play = rec.test.items, rec.test.items.in_play()
    assert int((items.head & in_play).sum()) == REC.test_items // 5
    border = items.popularity[items.head & in_play].min()
    assert items.popularity[in_play & ~items.head].max() <= border
    assert torch.equal(items.head[~in_play], items.popularity[~in_play] >= border)
    assert torch.equal(items.head, rec.train.items.head)
    tenth = with_head_share(rec, 0.1)
    assert int((tenth.test.items.head & in_play).sum()) == REC.test_items // 10
    assert torch.equal(tenth.test_start.items.head, tenth.train.items.head)
    assert tenth.test.items.absent is rec.test.items.absent
    assert tenth.train.items.absent is None


def test_tags_and_titles(rec: Data, rec_files: Path) -> None:
    items = rec.train.items
    own = dict(line.split(",", 1) for line in (rec_files / kuairec.TAGS).read_text().splitlines()[1:])
    for place in (0, 7, REC.items - 1):
        wanted = [f"tag {int(tag)}" for tag in re.findall(r"\d+", own[str(place)])]
        assert {name for name, has in zip(items.tag_names, items.tags[place].tolist(), strict=False) if has} == set(wanted)
        assert items.tag_names[int(items.main_tag[place])] == wanted[0]
    assert items.titles[:3] == ('caption, "0"', "video 1", 'caption, "2"')
    assert rec.repairs["lines of captions that cannot be read, left out"] == 1


def test_captions_that_break_off_are_done_without(rec_files: Path, tmp_path: Path) -> None:
    folder = copied(rec_files, tmp_path)
    (folder / kuairec.CAPTIONS).write_text("\n\n")
    data = kuairec.load(kuairec.Config(path=str(folder)))
    assert data.train.items.titles[:3] == ("video 0", "video 1", "video 2")
    assert data.repairs["lines of captions that cannot be read, left out"] == 2
    (folder / kuairec.CAPTIONS).write_text("video_id,caption\n1,good\nno number,of a caption\n2,two\n")
    data = kuairec.load(kuairec.Config(path=str(folder)))
    assert data.train.items.titles[:3] == ("video 0", "good", "two")
    assert data.repairs["lines of captions that cannot be read, left out"] == 1


# Traps


def test_kuairec_counts_what_it_mends(rec_files: Path, tmp_path: Path) -> None:
    folder = copied(rec_files, tmp_path)
    small = pd.read_csv(folder / kuairec.SMALL)
    pair = small.iloc[0]
    user, video = int(pair["user_id"]), int(pair["video_id"])
    added(
        folder / kuairec.BIG,
        f"{user},{video},1,1,,,,0.5",  # of the test matrix
        "79,119,1,1,2020-07-05 00:00:00,20200705,1593878903.5,0.25",
        "79,119,1,1,,,,0.75",  # again, without a time
        "79,118,1,1,,,,",  # no watch ratio
    )
    added(folder / kuairec.SMALL, f"{user},{video},1,1,,,,0.125")
    added(folder / kuairec.TAGS, '0,"[ 3 ]"', "1,[]", "2,")
    before, data = (kuairec.load(kuairec.Config(path=str(path))) for path in (rec_files, folder))

    def more(name: str) -> int:
        return data.repairs[name] - before.repairs[name]

    assert more("train rows of pairs that the test matrix holds, left out") == 1
    assert more("train rows that repeat a pair, the last kept") in (1, 2)  # 2 where a row of the pair was there before
    assert more("train rows without a time, placed last") == 1
    assert more("train rows without a watch ratio, left out") == 1
    assert more("test rows that repeat a pair, the last kept") == 1
    assert more("videos without a tag") == 2
    last = data.train.user == int(data.train.user.max())
    assert data.train.reward[last][-1] == 0.75
    assert data.train.item[last][-1] == 119
    assert data.train.time[last][-1] == data.train.time.max()
    assert data.test.reward[(data.test.user == 0)][-1] == 0.125
    assert environment(data, "train")["interactions"] == REC.rows + 4
    assert data.train.items.tag_names[int(data.train.items.main_tag[0])] == "tag 3"
    assert before.repairs["test rows without a time, placed last"] > 500


def test_rows_of_a_pair_are_told_apart_by_the_file_not_by_time(rec_files: Path, tmp_path: Path) -> None:
    folder = copied(rec_files, tmp_path)
    added(folder / kuairec.BIG, "79,119,1,1,x,1,1593999999,0.125", "79,119,1,1,x,1,1593000000,0.625")
    data = kuairec.load(kuairec.Config(path=str(folder)))
    mine = (data.train.user == data.train.users - 1) & (data.train.item == 119)
    assert data.train.reward[mine].tolist() == [0.625]


def test_kuairand_counts_what_it_mends(rand_files: Path, tmp_path: Path) -> None:
    folder = copied(rand_files, tmp_path)
    rest = "0,0,0,0,0"
    added(
        folder / kuairand.STANDARD[1],
        f"5,7,20220422,400,1650485801301,0,{rest},1,1,1,0,0,0,0,1",
        f"5,7,20220422,400,1650485801301,1,{rest},1,1,1,0,0,0,0,1",  # the same again: the last is kept
        f"5,8,20220422,400,1650485801302,1,{rest},1,1,1,0,0,0,1,1",  # says that it was random
        f"5,9,20220422,400,1650485801303,,{rest},1,1,1,0,0,0,0,1",  # no answer
    )
    added(folder / kuairand.RANDOM, f"5,7,20220422,400,1650485801301,0,{rest},1,1,1,0,0,0,0,1")
    added(
        folder / VIDEO_FEATURES,
        '0,1,NORMAL,2022-04-10,Web,0.0,,1.0,1.0,0,,"45, 3"',
        "1,1,NORMAL,2022-04-10,Web,0.0,,1.0,1.0,0,,",
    )
    before, data = (kuairand.load(kuairand.Config(path=str(path))) for path in (rand_files, folder))

    def more(name: str) -> int:
        return data.repairs[name] - before.repairs[name]

    assert more("train rows that repeat a user, video and time, the last kept") == 1
    assert more("train rows marked as random, left out") == 1
    assert more("test rows marked as not random, left out") == 1
    assert more("train rows without is_click, left out") == 1
    assert len(data.train) - len(before.train) == 1
    assert data.train.reward[(data.train.item == 7) & (data.train.time == 1650485801)].tolist() == [1]
    assert data.train.items.tag_names[int(data.train.items.main_tag[0])] == "tag 45"
    assert not data.train.items.tags[1].any()
    assert "train rows without long_view, left out" not in data.repairs


def test_real_feature_file(tmp_path: Path) -> None:
    """KuaiRand-Pure's own video features, beside logs made for its 7,583 videos."""
    given = Path(os.environ.get("FAIRSTATE_TEST_DATA", "")) / "kuairand_pure" / VIDEO_FEATURES
    if not given.is_file():
        pytest.skip("FAIRSTATE_TEST_DATA names no folder with kuairand_pure's feature files")
    write_kuairand(tmp_path, Sizes(300, 7551, 30_000, 320, 7583, 20_000, 10, 3), videos=given.read_text())
    data = kuairand.load(kuairand.Config(path=str(tmp_path)))
    assert len(data.train.items) == 7583
    assert int(data.train.items.tags.any(0).sum()) == 46
    assert data.repairs["videos without a tag"] == 96
    assert data.repairs["videos that no training row shows"] >= 32
    assert sorted(set(data.train.items.tags.sum(1).tolist())) == [0, 1, 2, 3]


# Refusals

BIG_ROW = "3,5,1,1,x,1,1593878903.5,0.5"
REC_BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("column", lambda f: edited(f / "big_matrix.csv", 1, "user_id,video_id,a,b,c,d,timestamp,ratio"),
     r"big_matrix\.csv: column watch_ratio is missing; it has user_id, video_id, a, b, c, d, timestamp, ratio and must"),
    ("twice", lambda f: edited(f / "big_matrix.csv", 1, "user_id,video_id,a,b,c,user_id,timestamp,watch_ratio"),
     r"big_matrix\.csv has 2 columns user_id: it must have one"),
    ("text", lambda f: edited(f / "big_matrix.csv", 5, "3,5,1,1,x,1,1593878903.5,much"),
     r"big_matrix\.csv: watch_ratio in line 5 is 'much': it must be a number"),
    ("id", lambda f: edited(f / "small_matrix.csv", 7, "3.5,5,1,1,x,1,1593878903.5,1"),
     r"small_matrix\.csv: user_id in line 7 is '3\.5': it must be a whole number"),
    ("no id", lambda f: edited(f / "small_matrix.csv", 7, ",5,1,1,x,1,1593878903.5,1"),
     r"small_matrix\.csv: user_id in line 7 is empty \(1 such\): it must be a whole number"),
    ("minus", lambda f: edited(f / "big_matrix.csv", 9, "-3,5,1,1,x,1,1593878903.5,1"),
     r"big_matrix\.csv: user_id in line 9 is -3: it must be an id from 0 to 50000000"),
    ("negative", lambda f: edited(f / "big_matrix.csv", 9, "3,5,1,1,x,1,1593878903.5,-0.5"),
     r"big_matrix\.csv: watch_ratio in line 9 is -0\.5: it must be 0 or more, and finite"),
    ("infinite", lambda f: edited(f / "big_matrix.csv", 9, "3,5,1,1,x,1,1593878903.5,inf"),
     r"big_matrix\.csv: watch_ratio in line 9 is inf: it must be 0 or more, and finite"),
    ("time", lambda f: edited(f / "big_matrix.csv", 9, "3,5,1,1,x,1,1593878903500,1"),
     r"big_matrix\.csv: timestamp in line 9 is 1593878903500\.0: it must be seconds since 1970"),
    ("short", lambda f: edited(f / "big_matrix.csv", 12, "3,5,1"),
     r"big_matrix\.csv: line 12 has 3 cells: it must have 8, as the header has"),
    ("blank", lambda f: edited(f / "big_matrix.csv", 12, ""),
     r"big_matrix\.csv: user_id in line 12 is empty \(1 such\): it must be a whole number"),
    ("cut", lambda f: (f / "big_matrix.csv").write_text((f / "big_matrix.csv").read_text()[:-3]),
     r"big_matrix\.csv: line 2601, the last, is cut off"),
    ("cut early", lambda f: (f / "small_matrix.csv").write_text((f / "small_matrix.csv").read_text().rpartition(",")[0]),
     r"small_matrix\.csv: line 1751 has 7 cells: it must have 8"),
    ("empty", lambda f: (f / "small_matrix.csv").write_text(""), r"small_matrix\.csv is empty: it must have a header line"),
    ("header", lambda f: (f / "small_matrix.csv").write_text("user_id,video_id,timestamp,watch_ratio\n"),
     r"small_matrix\.csv has a header and no rows"),
    ("feat", lambda f: edited(f / "item_categories.csv", 4, "2,drama"),
     r"item_categories\.csv: feat in line 4 is drama: it must be a list of whole numbers, as in \[27, 9\]"),
    ("gone", lambda f: (f / "item_categories.csv").unlink(), r"holds no item_categories\.csv: it must hold big_matrix\.csv"),
    ("double", lambda f: shutil.copytree(f, f / "copy") and [(f / n).unlink() for n in ("big_matrix.csv",)]
     and shutil.copytree(f / "copy", f / "more"), r"holds big_matrix\.csv twice \(.*copy.*more"),
    ("captions", lambda f: edited(f / "kuairec_caption_category.csv", 1, "video,a,b,c"),
     r"kuairec_caption_category\.csv: column video_id is missing; it has video, a, b, c and must have video_id, caption"),
    ("nothing", lambda f: (f / "big_matrix.csv").write_text("user_id,video_id,timestamp,watch_ratio\n3,5,1,\n3,6,1,\n"),
     r"the train log has 0 rows that can be used: it must have at least 2"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in REC_BAD], ids=[row[0] for row in REC_BAD])
def test_kuairec_names_what_it_cannot_use(
    spoil: Callable[[Path], object], message: str, rec_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(rec_files, tmp_path)
    spoil(folder)
    with pytest.raises(BadInput, match=message) as refused:
        kuairec.load(kuairec.Config(path=str(folder)))
    assert "\n" not in str(refused.value)
    assert main(["data", "inspect", "kuairec", f"--set=dataset.path={folder}"]) == 2
    assert re.search(message, capsys.readouterr().err)


RAND_BAD = [
    ("is_click", "5,7,20220422,400,1650485801301,2,0,0,0,0,0,1,1,1,0,0,0,0,1", "is_click in line 3 is 2.0: it must be 0 or 1"),
    ("is_rand", "5,7,20220422,400,1650485801301,1,0,0,0,0,0,1,1,1,0,0,0,7,1", "is_rand in line 3 is 7.0: it must be 0 or 1"),
    (
        "time_ms",
        "5,7,20220422,400,-1,1,0,0,0,0,0,1,1,1,0,0,0,0,1",
        "time_ms in line 3 is -1: it must be milliseconds",
    ),
    ("time", "5,7,20220422,400,soon,1,0,0,0,0,0,1,1,1,0,0,0,0,1", "time_ms in line 3 is 'soon': it must be a whole number"),
]


@pytest.mark.parametrize(("line", "message"), [row[1:] for row in RAND_BAD], ids=[row[0] for row in RAND_BAD])
@pytest.mark.parametrize("name", [kuairand.STANDARD[1], kuairand.RANDOM])
def test_kuairand_names_what_it_cannot_use(name: str, line: str, message: str, rand_files: Path, tmp_path: Path) -> None:
    folder = copied(rand_files, tmp_path)
    edited(folder / name, 3, line)
    with pytest.raises(BadInput, match=re.escape(f"{name}: {message}")):
        kuairand.load(kuairand.Config(path=str(folder)))


def test_kuairand_refuses_tags_that_are_no_numbers(rand_files: Path, tmp_path: Path) -> None:
    folder = copied(rand_files, tmp_path)
    added(folder / VIDEO_FEATURES, "3,1,NORMAL,2022-04-10,Web,0.0,,1.0,1.0,0,,fun")
    with pytest.raises(BadInput, match=rf"tag in line {RAND.test_items + 2} is fun: it must be whole numbers with commas"):
        kuairand.load(kuairand.Config(path=str(folder)))


@pytest.mark.parametrize("name", ["kuairec", "kuairand-pure"])
def test_where_the_files_are_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    module = catalog.find("datasets", name)
    assert not module.present(tmp_path / name)
    assert main(["data", "inspect", name]) == 2
    said = capsys.readouterr().err
    assert f"python -m engine data fetch {name}" in said
    assert f"https://zenodo.org/records/{'18164998' if name == 'kuairec' else '10439422'} in a browser" in said
    assert len(said.strip().splitlines()) == 1
    with pytest.raises(BadInput, match=r"dataset\.path = '/no/where' is not legal: there is no such file or folder"):
        module.load(module.Config(path="/no/where"))
    (tmp_path / "x.rar").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"x\.rar' is not legal: it must be a folder, or end in \.zip, \.tar\.gz"):
        module.load(module.Config(path=str(tmp_path / "x.rar")))


# Archives


def test_archives_say_the_same_as_folders(
    rec: Data, rand: Data, rec_files: Path, rand_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for name, files, folder_data, pack, archive, inside in (
        ("kuairec", rec_files, rec, zipped, kuairec.ARCHIVE, "KuaiRec 2.0/data"),
        ("kuairand-pure", rand_files, rand, tarred, kuairand.ARCHIVE, "KuaiRand-Pure/data"),
    ):
        module = catalog.find("datasets", name)
        (tmp_path / name).mkdir()
        packed = pack(files, tmp_path / name / archive, inside)
        assert module.present(tmp_path / name)
        for config in (module.Config(), module.Config(path=str(packed))):
            data = module.load(config)
            assert data.fingerprint == folder_data.fingerprint
            assert torch.equal(data.train.item, folder_data.train.item)
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == [archive], "nothing is unpacked"
        nested = tmp_path / "nested" / inside
        shutil.copytree(files, nested)
        assert module.load(module.Config(path=str(tmp_path / "nested"))).fingerprint == folder_data.fingerprint


def test_archives_that_are_torn_or_of_something_else(rec_files: Path, rand_files: Path, tmp_path: Path) -> None:
    whole = zipped(rec_files, tmp_path / "KuaiRec.zip", "data")
    rand_whole = tarred(rand_files, tmp_path / "Pure.tar.gz", "data")

    def refused(module: ModuleType, path: Path, message: str) -> None:
        with pytest.raises(BadInput, match=message) as error:
            module.load(module.Config(path=str(path)))
        assert "\n" not in str(error.value)

    refused(
        kuairand,
        whole,
        r"KuaiRec\.zip is not the published archive: it holds no log_standard_4_08.*; it must hold log_standard",
    )
    refused(kuairec, rand_whole, r"Pure\.tar\.gz is not the published archive: it holds no big_matrix\.csv")
    for path, module in ((whole, kuairec), (rand_whole, kuairand)):
        half = tmp_path / f"half{path.name}"
        half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        refused(module, half, r"half.* cannot be read as an archive: .*; get it again")
        other = tmp_path / f"other{path.name}"
        other.write_bytes(b"this is a page that says: not found")
        refused(module, other, r"other.* cannot be read as an archive")
    spoiled = bytearray(whole.read_bytes())
    with zipfile.ZipFile(whole) as opened:
        info = opened.getinfo("data/big_matrix.csv")
    at = info.header_offset + info.compress_size // 2
    spoiled[at : at + 40] = bytes(40)
    (tmp_path / "bad.zip").write_bytes(spoiled)
    refused(kuairec, tmp_path / "bad.zip", r"bad\.zip, big_matrix\.csv (cannot be read: .*; get it again|.* line \d+ )")
    with zipfile.ZipFile(tmp_path / "double.zip", "w") as opened:
        for folder in ("a", "b"):
            opened.writestr(f"{folder}/big_matrix.csv", "x")
    refused(
        kuairec, tmp_path / "double.zip", r"double\.zip holds big_matrix\.csv twice \(a/big_matrix\.csv and b/big_matrix\.csv\)"
    )


def test_nothing_is_written_or_followed_by_an_archive(rec_files: Path, tmp_path: Path) -> None:
    """Names with ../ are names; a link is no file."""
    outside = tmp_path / "deep" / "KuaiRec.zip"
    outside.parent.mkdir()
    zipped(rec_files, outside, "../../up")
    data = kuairec.load(kuairec.Config(path=str(outside)))
    assert len(data.test) == REC.test_rows
    assert [path.name for path in tmp_path.rglob("*")] == ["deep", "KuaiRec.zip"]
    with tarfile.open(tmp_path / "links.tar.gz", "w:gz") as tar:
        for name in kuairec.REQUIRED:
            link = tarfile.TarInfo(f"data/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, str(rec_files / name)
            tar.addfile(link)
    with pytest.raises(BadInput, match=r"links\.tar\.gz is not the published archive: it holds no big_matrix\.csv"):
        kuairec.load(kuairec.Config(path=str(tmp_path / "links.tar.gz")))


def test_a_file_that_claims_to_be_huge_is_not_read(rec_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(rec_files, tmp_path / "KuaiRec.zip", "data")
    monkeypatch.setattr(bundle, "MOST_BYTES", 10_000)
    with pytest.raises(BadInput, match=r"big_matrix\.csv unpacks to \d+ bytes: it must be 10000 or less"):
        kuairec.load(kuairec.Config(path=str(path)))


def test_parsed_once_and_again_when_a_file_changes(rec_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(rec_files, tmp_path)
    first = kuairec.load(kuairec.Config(path=str(folder)))
    real = bundle.read_csv
    monkeypatch.setattr(bundle, "read_csv", lambda *_: pytest.fail("the files were parsed again"))
    again = kuairec.load(kuairec.Config(path=str(folder), clip=2.0))
    assert torch.equal(again.train.item, first.train.item)
    monkeypatch.setattr(bundle, "read_csv", real)
    added(folder / kuairec.BIG, "79,119,1,1,x,1,1593999999,0.125")
    second = kuairec.load(kuairec.Config(path=str(folder)))
    assert second.fingerprint != first.fingerprint
    edited(folder / kuairec.BIG, REC.rows + 2, "79,119,1,1,x,1,1593999999,0.625")  # of the same size, at another time
    os.utime(folder / kuairec.BIG, ns=(1, 1))
    assert kuairec.load(kuairec.Config(path=str(folder))).fingerprint != second.fingerprint


# The test world of KuaiRec


def small_log(user: list[int], item: list[int], reward: list[float], absent: list[int] | None = None) -> Dataset:
    nothing = torch.zeros(4, dtype=torch.int64)
    gone = None if absent is None else torch.tensor(absent)
    items = Items(nothing, nothing.bool(), torch.zeros(4, 1).bool(), nothing, ("a", "none"), ("",) * 4, gone)
    return Dataset(torch.tensor(user), torch.tensor(item), torch.tensor(reward), torch.arange(len(user)), None, 2, items)


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


def tiny(name: str, method: str, files: Path, **changes: Any) -> RunSpec:
    settings = {
        "dataset": {"path": str(files)}, "world": {"slate": 5, "max_len": 8}, "state": {"width": 6, "history": 60, "epochs": 2},
        **changes.pop("settings", {}),
    }  # fmt: skip
    if method not in ("random", "popular", "greedy", "balanced", "oracle", "fixed_weights"):
        settings.setdefault("method", {"users": 40})
    return make(**{"dataset": name, "method": method, "purifier": "identity", "episodes": 60, "evaluation_episodes": 30,
                   "device": "cpu", "settings": settings, **changes})  # fmt: skip


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


class Trial:
    """A run's parts, trained for a moment."""

    def __init__(self, spec: RunSpec, data: Data) -> None:
        from engine.contracts import Budget
        from engine.state.stage import Stage

        self.spec, self.data, self.budget = spec, data, Budget(40)
        self.view = run.purify(spec, Stage(data, spec.config("state"), spec.seed))
        self.train, self.test = (run.make_world(spec, data, part)[0] for part in run.PARTS)

    def policy(self) -> Any:
        module = catalog.find("methods", self.spec.method)
        generator = torch.Generator().manual_seed(1)
        config = self.spec.config("method")
        return module.train(self.train, self.view, self.data.train, config, self.budget, MemoryRecorder(), generator)


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


# Fetching


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one file with byte ranges; breaks off after `breaks` bytes, once for each number in the list."""

    content, breaks, ranges, seen = b"", list[int](), True, list[str | None]()
    tag = '"one"'

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).seen.append(wanted)
        start = int(wanted[6:-1]) if wanted and self.ranges and self.headers.get("If-Range", self.tag) == self.tag else 0
        if start >= len(self.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(self.content)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.send_header("ETag", self.tag)
        self.end_headers()
        stop = type(self).breaks.pop(0) if self.breaks else len(self.content)
        self.wfile.write(self.content[start:stop])
        if stop < len(self.content):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[str, type[Server]]]:
    handler = type("Own", (Server,), {"breaks": [], "seen": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/file.zip", handler
        server.shutdown()


def test_a_broken_download_is_gone_on_with(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    server.content, server.breaks = os.urandom(900_000), [400_000, 700_000]
    path = tmp_path / "in" / "file.zip"
    said: list[str] = []
    for _ in range(2):
        with pytest.raises(OSError, match="the connection ended after"):
            fetch.archive(url, path, said.append)
    digest = fetch.archive(url, path, said.append, hashlib.md5(server.content).hexdigest())
    assert server.seen == [None, "bytes=400000-", "bytes=700000-"]
    assert path.read_bytes() == server.content
    assert digest == hashlib.sha256(server.content).hexdigest()
    assert [file.name for file in path.parent.iterdir()] == ["file.zip"]
    assert "going on after 1 MB" in said
    assert said[-1] == "1 of 1 MB (100 %)"
    fetch.archive(url, path, said.append)
    assert len(server.seen) == 3, "a whole file is not asked for again"


def test_what_came_of_another_file_or_without_ranges_is_begun_again(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    path = tmp_path / "file.zip"
    server.content, server.breaks = b"a" * 600_000, [300_000]
    with pytest.raises(OSError, match="ended after"):
        fetch.archive(url, path, lambda _: None)
    server.content, server.tag = b"b" * 600_000, '"two"'
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    path.rename(tmp_path / "file.zip.part")  # all of it had come, but for the last look
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    (tmp_path / "file.zip").rename(tmp_path / "file.zip.part")
    with (tmp_path / "file.zip.part").open("ab") as file:
        file.write(b"more than there is")
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content
    path.unlink()
    server.ranges, server.breaks = False, [100_000]
    with pytest.raises(OSError, match="ended after"):
        fetch.archive(url, path, lambda _: None)
    fetch.archive(url, path, lambda _: None)
    assert path.read_bytes() == server.content


def test_a_wrong_checksum_leaves_nothing(site: tuple[str, type[Server]], tmp_path: Path) -> None:
    url, server = site
    server.content = b"x" * 1000
    with pytest.raises(
        BadInput, match=r"file\.zip came with MD5 [0-9a-f]{32} and must have 0{32}: it was removed, fetch it again"
    ):
        fetch.archive(url, tmp_path / "file.zip", lambda _: None, "0" * 32)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_progress_tells_what_is_left() -> None:
    assert fetch._progress(50_000_000, 200_000_000, 10_000_000) == "50 of 200 MB (25 %), 10.0 MB/s, 15 s left"
    assert fetch._progress(50_000_000, None, 10_000_000) == "50 MB"


@pytest.mark.parametrize(("name", "module"), [("kuairec", kuairec), ("kuairand-pure", kuairand)])
def test_fetch_by_the_command(
    name: str, module: ModuleType, rec_files: Path, rand_files: Path, tmp_path: Path, site: tuple[str, type[Server]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The archive as published but smaller, from this test's own server; other row counts are refused."""
    url, server = site
    packed = zipped(rec_files, tmp_path / "k.zip", "d") if name == "kuairec" else tarred(rand_files, tmp_path / "k.tar.gz", "d")
    server.content = packed.read_bytes()
    monkeypatch.setattr(module, "URL", url.replace("file.zip", module.ARCHIVE))
    if name != "kuairec":
        monkeypatch.setattr(module, "MD5", hashlib.md5(server.content).hexdigest())
    argv = ["data", "fetch", name, f"--to={tmp_path / 'data'}", "--json"]
    assert main(argv) == 2
    said = capsys.readouterr().err
    assert f"SHA-256 {hashlib.sha256(server.content).hexdigest()}" in said
    sizes = REC if name == "kuairec" else RAND
    assert f"holds {sizes.rows} rows for the train world: the published {name} has {module.ROWS['train']}" in said
    monkeypatch.setattr(module, "ROWS", {"train": sizes.rows, "test": sizes.test_rows})
    assert main(argv) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told == {"name": name, "folder": str(tmp_path / "data" / name), "rows": sizes.rows + sizes.test_rows}
    assert len(server.seen) == 1
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    assert len(module.load(module.Config()).test) == sizes.test_rows


def test_offline_says_the_manual_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, module in (("kuairec", kuairec), ("kuairand-pure", kuairand)):
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:9/{module.ARCHIVE}")
        assert main(["data", "fetch", name, f"--to={tmp_path}"]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith(f"error: dataset {name} could not be fetched (")
        assert said.endswith(f"put it, as it is or unpacked, into {tmp_path / name}")


def test_ids_and_order_helpers() -> None:
    ids, place = kuai.numbered(np.array([7, 3, 7]), np.array([3, 9, 1]))
    assert ids.tolist() == [3, 7, 1, 9]
    assert place[[3, 7, 1, 9, 0]].tolist() == [0, 1, 2, 3, -1]
    user, moment = np.array([1, 0, 1, 1]), np.array([5, 9, 5, 2])
    assert kuai.order_of(user, moment).tolist() == [1, 3, 0, 2]
    assert kuai.order_of(user, moment * (1 << 59) // 9).tolist() == [1, 3, 0, 2]


def test_a_path_is_kept_absolute_and_shown_in_commands(rec_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.launching import command

    monkeypatch.chdir(rec_files.parent)
    spec = make(dataset="kuairec", method="a2c", settings={"dataset": {"path": "data"}})
    assert spec.settings["dataset"]["path"] == str(rec_files)
    assert f"--set dataset.path={rec_files}" in command(spec)
    assert make(dataset="kuairec", method="a2c", settings={"dataset": {"path": "none"}}).settings["dataset"]["path"] is None
