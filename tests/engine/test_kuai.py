"""KuaiRec and KuaiRand-Pure: files made from a seed in the published schema, with every trap, and every refusal."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.kuai import Sizes, write_kuairand
from engine import catalog
from engine.__main__ import main
from engine.contracts import Data
from engine.data import kuai, kuairand, kuairec
from engine.data.heads import with_head_share
from engine.options import BadInput
from engine.overview import environment, overview
from engine.spec import make
from kuai_files import RAND, REC, VIDEO_FEATURES, added, copied, edited

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
    absent = rand.train.items.absent
    assert absent is not None
    assert absent.tolist() == exposures[exposures == 0].index.tolist()
    assert rand.test.items.absent is None, "what training never showed can be shown in the test world"


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
