"""A log of your own: a CSV or Parquet file with columns user, item, reward, time and optionally randomised

`user` and `item` are any text or number; `reward` lies in [0, 1], or `dataset.threshold` turns ratings into 0 and 1; `time` is
seconds or ISO 8601; `randomised` is 1 where the exposure was random. Beside the log may lie items.csv (item, title, tags),
tags separated by spaces or |. Other columns are ignored. What cannot be used is named with its line; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from engine.contracts import Data
from engine.data.split import by_time
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

COLUMNS = ("user", "item", "reward", "time")
MOST_ROWS, MOST_TEXT = 20_000_000, 200


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of a user's own log."""

    path: str = option("", "the .csv, .tsv or .parquet file")
    threshold: float | None = option(None, "rewards from here on become 1, others 0; none: rewards lie in [0, 1] already")


def catalogue_size(config: Config) -> int | None:
    """Items in play: known only after reading."""
    return None


def load(config: Config) -> Data:
    """Read, check and split the log. Raises BadInput naming the file, the column and the line."""
    path = Path(config.path)
    table = read(path)
    reward = _numbers(table, "reward", path)
    if config.threshold is not None:
        reward = (reward >= config.threshold).astype(np.float64)
    elif reward.min() < 0 or reward.max() > 1:
        line = int(np.flatnonzero((reward < 0) | (reward > 1))[0])
        raise BadInput(
            f"{path}: reward in {_where(path, line)} is {reward[line]:g}: rewards must lie in [0, 1], or set "
            f"dataset.threshold to turn ratings into 0 and 1"
        )
    time = _times(table, path)
    randomised = None
    if "randomised" in table:
        flag = _numbers(table, "randomised", path)
        if not np.isin(flag, (0, 1)).all():
            line = int(np.flatnonzero(~np.isin(flag, (0, 1)))[0])
            raise BadInput(f"{path}: randomised in {_where(path, line)} is {flag[line]:g}: it must be 0 or 1")
        randomised = flag.astype(bool)
    user, users = pd.factorize(_ids(table, "user", path), sort=True)
    item, items = pd.factorize(_ids(table, "item", path), sort=True)
    if len(users) < 2 or len(items) < 2:
        raise BadInput(f"{path} has {len(users)} user(s) and {len(items)} item(s): it must have at least 2 of each")
    titles, tags, sources = _descriptions(path, [str(name) for name in items])
    sources[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    content = {**asdict(config), "path": "", "sources": sources, "version": 1}
    return by_time(
        str(path),
        user.astype(np.int64),
        item.astype(np.int64),
        reward,
        time,
        randomised,
        tags,
        titles,
        hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        sources,
        {},
    )


def read(path: Path) -> pd.DataFrame:
    """The needed columns as text (CSV) or as stored (Parquet)."""
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".tsv", ".parquet"):
        raise BadInput(f"dataset {str(path)!r} is not legal: the file must end in .csv, .tsv or .parquet")
    if not path.is_file():
        raise BadInput(f"dataset {str(path)!r} is not legal: there is no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty: it must have a header line with {', '.join(COLUMNS)}, and rows")
    try:
        if suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(
                path, sep="\t" if suffix == ".tsv" else ",", dtype=str, keep_default_na=False, skip_blank_lines=False,
                encoding_errors="replace", nrows=MOST_ROWS + 1,
            )  # fmt: skip
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise BadInput(f"{path} cannot be read as {suffix[1:]}: {str(error).strip().splitlines()[0][:200]}") from None
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise BadInput(
            f"{path}: column {', '.join(missing)} is missing; it has {', '.join(map(str, table.columns[:20]))} and must have "
            f"{', '.join(COLUMNS)}"
        )
    if not len(table):
        raise BadInput(f"{path} has a header and no rows: it must have at least 2 users and 2 items")
    if len(table) > MOST_ROWS:
        raise BadInput(f"{path} has more than {MOST_ROWS} rows: it must have {MOST_ROWS} or less")
    kept = [*COLUMNS, *(["randomised"] if "randomised" in table else [])]
    return table[kept].reset_index(drop=True)


def _where(path: Path, row: int) -> str:
    return f"row {row + 1}" if path.suffix.lower() == ".parquet" else f"line {row + 2}"


def _blank(column: pd.Series) -> np.ndarray:
    return (
        column.isna() | (column.astype(str).str.strip() == "") | column.astype(str).str.lower().isin(("nan", "null", "none"))
    ).to_numpy()


def _refuse_blank(table: pd.DataFrame, name: str, path: Path) -> None:
    blank = _blank(table[name])
    if blank.all():
        raise BadInput(f"{path}: column {name} holds no value at all")
    if blank.any():
        raise BadInput(f"{path}: {name} in {_where(path, int(np.flatnonzero(blank)[0]))} is missing ({blank.sum()} such rows)")


def _numbers(table: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    _refuse_blank(table, name, path)
    numbers = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(f"{path}: {name} in {_where(path, row)} is {str(table[name][row])[:40]!r}: it must be a number")
    return numbers


def _times(table: pd.DataFrame, path: Path) -> np.ndarray:
    """int64 (N,) seconds."""
    _refuse_blank(table, "time", path)
    column = table["time"]
    if pd.api.types.is_datetime64_any_dtype(column):
        return (column.astype("datetime64[s]").astype("int64")).to_numpy()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all():
        return numbers.astype(np.int64)
    dates = pd.to_datetime(column.astype(str), format="ISO8601", errors="coerce", utc=True)
    wrong = dates.isna().to_numpy()
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise BadInput(f"{path}: time in {_where(path, row)} is {str(column[row])[:40]!r}: it must be seconds or ISO 8601")
    return dates.dt.tz_localize(None).astype("datetime64[s]").astype("int64").to_numpy()


def _ids(table: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    _refuse_blank(table, name, path)
    text = table[name].astype(str).str.strip()
    long = (text.str.len() > MOST_TEXT).to_numpy()
    if long.any():
        raise BadInput(f"{path}: {name} in {_where(path, int(np.flatnonzero(long)[0]))} has more than {MOST_TEXT} characters")
    return text.to_numpy(dtype=object)


def _descriptions(path: Path, items: list[str]) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Titles and tags from items.csv beside the log, where there is one."""
    file = path.with_name("items.csv")
    if not file.is_file() or file == path:
        return [f"item {name}" for name in items], [[] for _ in items], {}
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if "item" not in table:
        raise BadInput(f"{file}: column item is missing; it must have item, and may have title and tags")
    table["item"] = table["item"].str.strip()
    known = table.drop_duplicates("item", keep="last").set_index("item").reindex(items)
    titles = known["title"].fillna("").tolist() if "title" in known else [""] * len(items)
    tags = known["tags"].fillna("").str.replace("|", " ").str.split().tolist() if "tags" in known else [[] for _ in items]
    titles = [str(title)[:MOST_TEXT] or f"item {name}" for title, name in zip(titles, items, strict=True)]
    return titles, tags, {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
