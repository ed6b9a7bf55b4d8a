"""KuaiRand-Pure: 27,285 people's feed to learn from, and 1.19 million answers to videos shown at random as the test world

Gao et al., "KuaiRand", CIKM 2022 (CC BY-SA 4.0). Both `log_standard_…` files are the training log; `log_random_…`, whose
exposures were random, is the test log, to which the test world's responses are fitted. A response is `is_click` (in the feed
of single videos: watched to the end, or for 7 s), or `long_view` (18 s), by `dataset.response`.

One id space: users of the training log first, then those of the random log alone; a test user's session starts from that
user's training rows. The test world holds all videos of the feature file and the logs; the 32 that no training row shows are
absent from the train world, which knows nothing of what people would answer to them. What is mended is counted (`repairs`): of
rows with one user, video and time the last counts; rows of the standard logs that say they were random, and the other way
round, are left out, and rows whose response is empty.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from engine import cache
from engine.contracts import Data, Items
from engine.data import bundle, fetch, kuai
from engine.data.bundle import Bundle, Columns
from engine.data.heads import head_items
from engine.options import Config as BaseConfig
from engine.options import option

NAME = "kuairand-pure"
STANDARD = ("log_standard_4_08_to_4_21_pure.csv", "log_standard_4_22_to_5_08_pure.csv")
RANDOM, VIDEOS = "log_random_4_22_to_5_08_pure.csv", "video_features_basic_pure.csv"
REQUIRED = (*STANDARD, RANDOM, VIDEOS)
ARCHIVE = "KuaiRand-Pure.tar.gz"
URL = f"https://zenodo.org/records/10439422/files/{ARCHIVE}"
MD5 = "0820331067a3784d9691136f772b35a7"  # as Zenodo publishes it
SIZE = "about 50 MB"
ROWS = {"train": 1_436_609, "test": 1_186_059}  # as published; Table 1 of the paper
MANUAL = f"download {ARCHIVE} from https://zenodo.org/records/10439422 in a browser, and put it, as it is or unpacked, into"
RESPONSES = ("is_click", "long_view")
COLUMNS = {"user_id": "int32", "video_id": "int32", "time_ms": "int64", **dict.fromkeys((*RESPONSES, "is_rand"), "float32")}
MOST_TIME = 4_000_000_000_000  # ms
EMPTY = 255  # a response that is not there


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of `kuairand-pure`."""

    path: str | None = option(None, f"the folder of the files, or the archive; none: {NAME} under DATA_DIR")
    response: str = option("is_click", "the column that is the response", choices=RESPONSES, source="KuaiSim: is_click")


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
    logs = {}
    for part in ("train", "test"):
        own = dict(kept[part])
        answered = own[config.response] != EMPTY
        repairs[f"{part} rows without {config.response}, left out"] = int((~answered).sum())
        logs[part] = own, answered
    about = kept["items"]
    own, answered = logs["train"]
    exposures = torch.bincount(own["item"][answered], minlength=len(about["titles"]))
    repairs["videos that no training row shows"] = int((exposures == 0).sum())
    head = head_items(exposures)
    items = Items(exposures, head, about["tags"], about["main_tag"], tuple(about["tag_names"]), tuple(about["titles"]))
    absent = (exposures == 0).nonzero()[:, 0]
    seen = replace(items, absent=absent if len(absent) else None)
    train, test = (
        kuai.log_of(own, own[config.response].float(), part == "test", there).select(answered)
        for (part, (own, answered)), there in zip(logs.items(), (seen, items), strict=True)
    )
    for part, log in (("train", train), ("test", test)):
        kuai.check_rows(part, len(log))
    content = {"version": 2, "response": config.response, "sources": kept["sources"]}
    return Data(
        name=NAME,
        train=train,
        test=test,
        train_start=kuai.earlier_half(train),
        test_start=kuai.of_users(train, test.users, items),
        shared_users=True,
        fingerprint=hashlib.sha256(json.dumps([NAME, content], sort_keys=True).encode()).hexdigest(),
        sources=kept["sources"],
        repairs=repairs,
        files=kept["files"],
    )


def _found(config: Config) -> Bundle:
    return kuai.found(NAME, config.path, REQUIRED, (), ARCHIVE, f"({SIZE}), or {MANUAL}")


def _kept(found: Bundle) -> dict[str, Any]:
    return cache.fetch(NAME, {"files": found.stamp()}, lambda: _read(found.opened(REQUIRED, ())))


def _read(files: Bundle) -> dict[str, Any]:
    """Everything that is kept of the files; what is mended, counted."""
    logs = {name: bundle.read_csv(files, name, COLUMNS) for name in (*STANDARD, RANDOM)}
    for log in logs.values():
        kuai.check_ids(log, "user_id", "video_id")
        log.refuse("time_ms", (log["time_ms"] < 0) | (log["time_ms"] > MOST_TIME), "milliseconds since 1970")
        for name in (*RESPONSES, "is_rand"):
            log.refuse(name, ~np.isnan(log[name]) & ~np.isin(log[name], (0, 1)), "0 or 1")
    described = bundle.read_csv(files, VIDEOS, {"video_id": "int32", "tag": "text"})
    kuai.check_ids(described, "video_id")
    parts = {"train": [logs[name] for name in STANDARD], "test": [logs[RANDOM]]}
    columns = {part: {name: np.concatenate([log[name] for log in own]) for name in COLUMNS} for part, own in parts.items()}
    users, user_at = kuai.numbered(columns["train"]["user_id"], columns["test"]["user_id"])
    videos, video_at = kuai.numbered(np.concatenate([described["video_id"], *(log["video_id"] for log in logs.values())]))
    repairs, counted, kept = {}, {}, {}
    for part, table in columns.items():
        user, item = user_at[table["user_id"]], video_at[table["video_id"]]
        counted[part] = {
            "users": int(np.count_nonzero(np.bincount(user))),
            "items": int(np.count_nonzero(np.bincount(item))),
            "interactions": len(user),
        }
        said = table["is_rand"] == (1 if part == "train" else 0)
        other = "random" if part == "train" else "not random"
        repairs[f"{part} rows marked as {other}, left out"] = int(said.sum())
        rows = np.flatnonzero(~said)
        moment = table["time_ms"]
        # Rows with one user, video and time come to lie side by side, in the order of the file.
        order = rows[np.lexsort((item[rows], moment[rows], user[rows]))]
        same = (
            (user[order][1:] == user[order][:-1])
            & (item[order][1:] == item[order][:-1])
            & (moment[order][1:] == moment[order][:-1])
        )
        repairs[f"{part} rows that repeat a user, video and time, the last kept"] = int(same.sum())
        rows = np.sort(order[np.r_[~same, True]])
        kuai.check_rows(part, len(rows))
        rows = rows[kuai.order_of(user[rows], moment[rows])]
        people = int(user.max()) + 1 if part == "train" else len(users)
        answers = {name: np.where(np.isnan(table[name][rows]), EMPTY, table[name][rows]).astype(np.uint8) for name in RESPONSES}
        kept[part] = kuai.kept_log(user[rows], item[rows], people, time=(moment[rows] // 1000).astype(np.int32), **answers)
    tags = _tags(described, videos)
    repairs["videos without a tag"] = sum(not own for own in tags)
    digests = {name: log.digest for name, log in logs.items()}
    return {
        **kept,
        "items": kuai.kept_items(tags, [f"video {video}" for video in videos.tolist()]),
        "repairs": repairs,
        "files": counted,
        "sources": {**digests, VIDEOS: described.digest},
    }


def _tags(described: Columns, videos: np.ndarray) -> list[list[str]]:
    """Each video's tags from text like `39` or `12,39`, which may be empty."""
    text = pd.Series(described["tag"]).str.strip()
    legal = text.str.fullmatch(r"(\d+(\s*,\s*\d+)*)?").to_numpy(dtype=bool)
    described.refuse("tag", ~legal, "whole numbers with commas, or empty")
    own = dict(zip(described["video_id"].tolist(), text.str.findall(r"\d+"), strict=True))  # of a video's lines the last counts
    return [[f"tag {int(tag)}" for tag in dict.fromkeys(own.get(video, []))] for video in videos.tolist()]


def fetched(folder: Path, say: fetch.Say = lambda _: None) -> int:
    """See that the published files are in the folder; returns their rows. The archive's published MD5 is checked, and the rows
    are counted. Raises BadInput with the manual steps."""
    found = bundle.find(folder, REQUIRED, (), (ARCHIVE,))
    place = folder if found is not None else kuai.download(NAME, URL, MD5, folder, MANUAL, say)
    found = found or Bundle(place, None)
    say(f"{NAME}: reading it once, and counting")
    return kuai.check_published(NAME, _kept(found)["files"], ROWS, place)
