"""KuaiRec 2.0: 7,176 people's feed to learn from, and a test world in which nearly every answer is known (1,411 × 3,327)

Gao et al., "KuaiRec: a fully-observed dataset", CIKM 2022 (CC BY-SA 4.0). `big_matrix.csv` is the training log; the small
matrix, whose pairs were nearly all shown, answers in the test world, looked up, not fitted. A response is the share of the
video that was watched: watch_ratio is unbounded (loops count), so it is cut at `dataset.clip` and divided by it.

One id space: users of the small matrix first, then all others; a test user's session starts from that user's training rows.
Videos that the small matrix lacks are absent from the test world. What is mended is counted (`repairs`): of several rows of
one pair the last in the file counts; rows without a time come after the user's others; training rows of a pair that the small
matrix holds are left out, so that no answer of the test world is learnt from; a pair that the small matrix lacks is answered
by its user's and its video's means (engine/data/observed.py).

Heads: the most exposed 20 % of the test world's videos by the training log (paper §5.1.1), and every other video shown at
least as often, so that one border holds in both worlds.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from engine import cache
from engine.contracts import Data, Items
from engine.data import bundle, fetch, kuai
from engine.data.bundle import Bundle
from engine.data.heads import head_items
from engine.data.observed import response_table
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

NAME = "kuairec"
BIG, SMALL, TAGS, CAPTIONS = "big_matrix.csv", "small_matrix.csv", "item_categories.csv", "kuairec_caption_category.csv"
REQUIRED, OPTIONAL = (BIG, SMALL, TAGS), (CAPTIONS,)
ARCHIVE = "KuaiRec.zip"
URL = f"https://zenodo.org/records/18164998/files/{ARCHIVE}"
SIZE = "about 430 MB"
ROWS = {"train": 12_530_806, "test": 4_676_570}  # as published; Table 1 of the paper
MANUAL = f"download {ARCHIVE} from https://zenodo.org/records/18164998 in a browser, and put it, as it is or unpacked, into"
MOST_TIME = 4e9  # s
COLUMNS = {"user_id": "int32", "video_id": "int32", "timestamp": "float64", "watch_ratio": "float32"}


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of `kuairec`."""

    path: str | None = option(None, f"the folder of the files, or the archive; none: {NAME} under DATA_DIR")
    clip: float = option(
        1.0, "watch ratios are cut here, then divided by it; 1: the share of the video watched", above=0, high=1000
    )
    threshold: float | None = option(
        None, "watch ratios from here on become 1, others 0, instead of clipping", above=0, high=1000, source="the authors: 2"
    )


def catalogue_size(config: Config) -> int | None:
    """Items in play: known only after reading."""
    return None


def present(folder: Path) -> bool:
    """Whether something of the dataset lies in the folder; it is not looked into."""
    return bundle.lies_in(folder, REQUIRED, (ARCHIVE,))


def load(config: Config) -> Data:
    """The two worlds from files that are there; they are parsed once and kept in the cache. Raises BadInput with the file and
    the line of what cannot be used, or with how to get the files."""
    kept = _kept(_found(config))
    repairs: dict[str, int] = dict(kept["repairs"])

    def reward(log: dict[str, Tensor]) -> Tensor:
        ratio = log["ratio"]
        if config.threshold is not None:
            return (ratio >= config.threshold).float()
        return ratio.clamp(0, config.clip) / config.clip

    big, small = kept["train"], kept["test"]
    if config.threshold is None:
        repairs["watch ratios above dataset.clip"] = sum(int((log["ratio"] > config.clip).sum()) for log in (big, small))
    about = kept["items"]
    exposures = torch.bincount(big["item"], minlength=len(about["titles"]))
    in_play = torch.zeros(len(exposures), dtype=torch.bool)
    in_play[small["item"].long()] = True
    head = head_items(exposures, in_play=in_play)
    items = Items(exposures, head, about["tags"], about["main_tag"], tuple(about["tag_names"]), tuple(about["titles"]))
    absent = (~in_play).nonzero()[:, 0]
    there = replace(items, absent=absent if len(absent) else None)
    train, test = kuai.log_of(big, reward(big), False, items), kuai.log_of(small, reward(small), False, there)
    table = response_table(test)
    repairs["test pairs without a row, answered by means"] = table.missing
    content = {"version": 1, "clip": config.clip, "threshold": config.threshold, "sources": kept["sources"]}
    return Data(
        name=NAME,
        train=train,
        test=test,
        train_start=kuai.earlier_half(train),
        test_start=kuai.of_users(train, test.users, there),
        shared_users=True,
        fingerprint=hashlib.sha256(json.dumps([NAME, content], sort_keys=True).encode()).hexdigest(),
        sources=kept["sources"],
        repairs=repairs,
        files=kept["files"],
        responses={"test": table},
    )


def _found(config: Config) -> Bundle:
    return kuai.found(NAME, config.path, REQUIRED, OPTIONAL, ARCHIVE, f"({SIZE}), or {MANUAL}")


def _kept(found: Bundle) -> dict[str, Any]:
    return cache.fetch(NAME, {"files": found.stamp()}, lambda: _read(found.opened(REQUIRED, OPTIONAL)))


def _read(files: Bundle) -> dict[str, Any]:
    """Everything that is kept of the files; what is mended, counted."""
    big, small = (bundle.read_csv(files, name, COLUMNS) for name in (BIG, SMALL))
    for log in (big, small):
        kuai.check_ids(log, "user_id", "video_id")
        log.refuse("watch_ratio", (log["watch_ratio"] < 0) | np.isinf(log["watch_ratio"]), "0 or more, and finite")
        log.refuse("timestamp", ~(np.nan_to_num(log["timestamp"]) < MOST_TIME), "seconds since 1970")
    tagged = bundle.read_csv(files, TAGS, {"video_id": "int32", "feat": "text"})
    kuai.check_ids(tagged, "video_id")
    users, user_at = kuai.numbered(small["user_id"], big["user_id"])
    videos, video_at = kuai.numbered(np.concatenate([big["video_id"], small["video_id"]]))
    testers = int(user_at[small["user_id"]].max()) + 1
    repairs = {}
    logs: dict[str, Any] = {}
    counted = {}
    tested = np.zeros((testers, len(videos)), dtype=bool)
    tested[user_at[small["user_id"]], video_at[small["video_id"]]] = True
    for part, log, people in (("test", small, testers), ("train", big, len(users))):
        user, item = user_at[log["user_id"]], video_at[log["video_id"]]
        counted[part] = {"users": _different(user), "items": _different(item), "interactions": len(user)}
        ratio, moment = log["watch_ratio"], log["timestamp"]
        known = ~np.isnan(ratio)
        repairs[f"{part} rows without a watch ratio, left out"] = int((~known).sum())
        if part == "train":
            also = np.zeros(len(user), dtype=bool)
            mine = user < testers
            also[mine] = tested[user[mine], item[mine]]  # a training row that the test world would answer
            repairs["train rows of pairs that the test matrix holds, left out"] = int((also & known).sum())
            known &= ~also
        last = np.full(people * len(videos), -1, dtype=np.int32)
        pair = user.astype(np.int32 if last.size < 1 << 31 else np.int64) * len(videos) + item
        rows = np.flatnonzero(known)
        last[pair[rows]] = rows  # of rows of one pair, the last that is assigned stays
        keep = np.zeros(len(user), dtype=bool)
        keep[rows] = last[pair[rows]] == rows
        del last, pair
        repairs[f"{part} rows that repeat a pair, the last kept"] = len(rows) - int(keep.sum())
        rows = np.flatnonzero(keep)
        kuai.check_rows(part, len(rows))
        late = np.isnan(moment[rows])
        repairs[f"{part} rows without a time, placed last"] = int(late.sum())
        ms = np.round(np.nan_to_num(moment[rows]) * 1000).astype(np.int64)
        ms[late] = ms.max(initial=0) + 1
        order = kuai.order_of(user[rows], ms)
        rows, time = rows[order], (ms[order] // 1000).astype(np.int32)
        logs[part] = kuai.kept_log(user[rows], item[rows], people, ratio=ratio[rows], time=time)
    tags = _tags(tagged, videos)
    repairs["videos without a tag"] = sum(not own for own in tags)
    titles, unreadable, sources = _titles(files, videos)
    repairs["lines of captions that cannot be read, left out"] = unreadable
    return {
        **logs,
        "items": kuai.kept_items(tags, titles),
        "repairs": repairs,
        "files": counted,
        "sources": {BIG: big.digest, SMALL: small.digest, TAGS: tagged.digest, **sources},
    }


def _different(places: np.ndarray) -> int:
    return int(np.count_nonzero(np.bincount(places)))


def _tags(tagged: bundle.Columns, videos: np.ndarray) -> list[list[str]]:
    """Each video's tags from lists as text, `[27, 9]`."""
    text = pd.Series(tagged["feat"]).str.strip()
    legal = text.str.fullmatch(r"(\[\s*(\d+\s*(,\s*\d+\s*)*)?\])?").to_numpy(dtype=bool)
    tagged.refuse("feat", ~legal, "a list of whole numbers, as in [27, 9]")
    own = dict(zip(tagged["video_id"].tolist(), text.str.findall(r"\d+"), strict=True))  # of a video's lines the last counts
    return [[f"tag {int(tag)}" for tag in dict.fromkeys(own.get(video, []))] for video in videos.tolist()]


def _titles(files: Bundle, videos: np.ndarray) -> tuple[list[str], int, dict[str, str]]:
    """Each video's caption where there is one, how many lines of the captions cannot be read, and the file's digest."""
    titles = {video: f"video {video}" for video in videos.tolist()}
    assert files.files is not None
    if CAPTIONS not in files.files:
        return list(titles.values()), 0, {}
    with files.open(CAPTIONS) as stream:
        content = stream.read(bundle.MOST_BYTES)
    digest = {CAPTIONS: hashlib.sha256(content).hexdigest()}
    bad: list[list[str]] = []
    try:
        table = pd.read_csv(
            io.BytesIO(content), dtype=str, keep_default_na=False, engine="python", encoding_errors="replace",
            on_bad_lines=lambda cells: bad.append(cells),
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError):  # captions are for people: numbers do as well
        return list(titles.values()), content.count(b"\n"), digest
    for column in ("video_id", "caption"):
        if column not in table:
            has = ", ".join(map(str, table.columns))[:200]
            raise BadInput(f"{files.label(CAPTIONS)}: column {column} is missing; it has {has} and must have video_id, caption")
    number = pd.to_numeric(table["video_id"], errors="coerce").fillna(-1).astype(np.int64)
    said = table["caption"].fillna("").str.replace(r"\s+", " ", regex=True).str.strip().str.slice(0, 200)
    good = (number >= 0) & ~said.isin(("", "UNKNOWN"))
    own = dict(zip(number[good].tolist(), said[good], strict=True))
    titles |= {video: own[video] for video in titles.keys() & own.keys()}
    return list(titles.values()), len(bad) + int((number < 0).sum()), digest


def fetched(folder: Path, say: fetch.Say = lambda _: None) -> int:
    """See that the published files are in the folder; returns their rows. Zenodo's checksum of the archive is not known here,
    so its digest is told and the rows of both matrices are counted. Raises BadInput with the manual steps."""
    found = bundle.find(folder, REQUIRED, OPTIONAL, (ARCHIVE,))
    place = folder if found is not None else kuai.download(NAME, URL, None, folder, MANUAL, say)
    found = found or Bundle(place, None)
    say(f"{NAME}: reading it once, and counting")
    return kuai.check_published(NAME, _kept(found)["files"], ROWS, place)
