"""What the two datasets of Kuaishou share: ids, order of time, worlds from one log each, and how their archives are got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.contracts import Dataset, Items
from engine.data import fetch
from engine.data.bundle import Bundle, Columns, find
from engine.data.split import memberships
from engine.options import BadInput

MOST_ID = 50_000_000  # ids are places in tables


def found(name: str, path: str | None, required: Sequence[str], optional: Sequence[str], archive: str, how: str) -> Bundle:
    """The files of a dataset at `path`, or under DATA_DIR. Raises BadInput, where they are not there with how to get them."""
    folder = Path(path) if path is not None else fetch.data_folder() / name
    if path is not None and not folder.exists():
        raise BadInput(f"dataset.path = {path!r} is not legal: there is no such file or folder")
    bundle = find(folder, required, optional, (archive,))
    if bundle is None:
        raise BadInput(f"dataset {name} is not in {folder}: run `python -m engine data fetch {name}` {how} {folder}")
    return bundle


def check_ids(log: Columns, *names: str) -> None:
    """Raises BadInput where an id is negative or too large."""
    for name in names:
        log.refuse(name, (log[name] < 0) | (log[name] > MOST_ID), f"an id from 0 to {MOST_ID}")


def numbered(first: np.ndarray, *others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ids ascending: those of `first`, then those met in `others` alone; int32 table from id to place, −1 where there is
    none)."""
    highest = max((int(part.max()) for part in (first, *others) if len(part)), default=0)
    rank = np.zeros(highest + 1, dtype=np.int8)
    for part in others:
        rank[part] = 1
    rank[first] = 2
    ids = np.concatenate([np.flatnonzero(rank == 2), np.flatnonzero(rank == 1)])
    place = np.full(highest + 1, -1, dtype=np.int32)
    place[ids] = np.arange(len(ids), dtype=np.int32)
    return ids, place


def order_of(user: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Positions (N,) by user, then by moment (int64), then as they stand."""
    low = int(moment.min()) if len(moment) else 0
    span = (int(moment.max()) if len(moment) else 0) - low + 1
    if (int(user.max(initial=0)) + 1) * span < 1 << 62:
        return np.argsort(user.astype(np.int64) * span + (moment - low), kind="stable")
    return np.lexsort((moment, user))


def kept_log(user: np.ndarray, item: np.ndarray, users: int, **more: np.ndarray) -> dict[str, Any]:
    """A log sorted by user in the small shape in which the cache holds it."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(part)) for name, part in more.items()}
    lengths = torch.from_numpy(np.bincount(user, minlength=users).astype(np.int32))
    return {"lengths": lengths, "item": torch.from_numpy(np.ascontiguousarray(item.astype(np.int32))), **tensors}


def log_of(kept: Mapping[str, Tensor], reward: Tensor, randomised: bool, items: Items) -> Dataset:
    """The log that `kept_log` put away; its users are all who have a length."""
    lengths = kept["lengths"].long()
    user = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
    flags = torch.full((len(user),), randomised)
    return Dataset(user, kept["item"].long(), reward, kept["time"].long(), flags, len(lengths), items)


def earlier_half(log: Dataset) -> Dataset:
    """The first half of each user's rows, one more where odd: what is known of a training user when a session begins."""
    lengths = log.lengths()
    half = (lengths + 1) // 2
    skipped = (lengths.cumsum(0) - lengths) - (half.cumsum(0) - half)  # rows before a user's first that are left out
    return log.select(torch.repeat_interleave(skipped, half) + torch.arange(int(half.sum())))


def of_users(log: Dataset, users: int, items: Items) -> Dataset:
    """The rows of the users 0 … users − 1, who may be more than the log has."""
    rows = int(log.lengths()[:users].sum())
    randomised = None if log.randomised is None else log.randomised[:rows]
    return Dataset(log.user[:rows], log.item[:rows], log.reward[:rows], log.time[:rows], randomised, users, items)


def kept_items(tags: Sequence[Sequence[str]], titles: Sequence[str]) -> dict[str, Any]:
    """What is known of items, as the cache holds it."""
    membership, main, names = memberships(tags)
    return {"tags": membership, "main_tag": main, "tag_names": list(names), "titles": list(titles)}


def check_rows(part: str, rows: int) -> None:
    """Raises BadInput where mending has left a part of a dataset with nothing."""
    if rows < 2:
        raise BadInput(f"the {part} log has {rows} rows that can be used: it must have at least 2")


def download(name: str, url: str, md5: str | None, folder: Path, manual: str, say: fetch.Say) -> Path:
    """The published archive in the folder, fetched, or gone on with, where it is not there. Raises BadInput with the manual
    steps."""
    path = folder / url.rpartition("/")[2]
    say(f"{name}: asking {url}")
    try:
        digest = fetch.archive(url, path, lambda text: say(f"{name}: {text}"), md5)
    except (OSError, ValueError) as error:
        said = str(error) or type(error).__name__
        raise BadInput(f"dataset {name} could not be fetched ({said}): {manual} {folder}") from None
    say(f"{name}: SHA-256 {digest}" + ("" if md5 is None else ", and the published MD5"))
    return path


def check_published(name: str, files: Mapping[str, Mapping[str, int]], wanted: Mapping[str, int], place: Path) -> int:
    """All rows. Raises BadInput where a part has another number of them than was published."""
    for part, rows in wanted.items():
        if files[part]["interactions"] != rows:
            raise BadInput(
                f"{place} holds {files[part]['interactions']} rows for the {part} world: the published {name} has {rows}, so "
                "remove it and fetch it again"
            )
    return sum(wanted.values())
