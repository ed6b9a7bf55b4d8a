"""A log of your own: a CSV or Parquet file with columns user, item, reward, time and optionally randomised

`user` and `item` are any text or number; `reward` lies in [0, 1], or `dataset.threshold` turns ratings into 0 and 1; `time` is
seconds or ISO 8601; `randomised` is 1 where the exposure was random. Beside the log may lie items.csv (item, title, tags),
tags separated by spaces or |. Other columns are ignored. What cannot be used is named with its line; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from engine.contracts import Data
from engine.data.split import by_time
from engine.options import BadInput, option
from engine.options import Config as BaseConfig

COLUMNS = ("user", "item", "reward", "time")
OPTIONAL = "randomised"
ITEMS = "items.csv"
KINDS = (".csv", ".tsv", ".parquet")
MOST_ROWS, MOST_COLUMNS, MOST_TEXT, MOST_TAGS = 20_000_000, 500, 200, 1000
MOST_UNPACKED = 200  # bytes a row of a Parquet file's needed columns once they are unpacked, at the most rows allowed
MOST_PROBLEMS = 20  # that a check lists
PREVIEW = 8


@dataclass(frozen=True)
class Config(BaseConfig):
    """`dataset.*` of a user's own log."""

    path: str = option("", "the .csv, .tsv or .parquet file")
    threshold: float | None = option(None, "rewards from here on become 1, others 0; none: rewards lie in [0, 1] already")


@dataclass(frozen=True)
class Problem:
    """Something that cannot be used. row: from 0, or −1 for the whole file; where: its line, as people count; column: or "";
    value: what is there; legal: what must be; sentence: all of it in words."""

    row: int
    where: str
    column: str
    value: str
    legal: str
    sentence: str


@dataclass(frozen=True)
class Checked:
    """What was understood of a log. used, ignored: columns; described: whether items.csv lies beside it; preview: the first
    rows as they were read; problems: the first, in the order of lines; wrong_rows: how many rows have one."""

    rows: int
    users: int
    items: int
    used: tuple[str, ...]
    ignored: tuple[str, ...]
    described: bool
    preview: pd.DataFrame
    problems: tuple[Problem, ...]
    wrong_rows: int


@dataclass(frozen=True)
class _Columns:
    """The columns of a log as far as they could be read; a row that could not be holds NaN, 0 or an empty text."""

    user: np.ndarray
    item: np.ndarray
    reward: np.ndarray
    time: np.ndarray
    randomised: np.ndarray | None


def catalogue_size(config: Config) -> int | None:
    """Items in play: known only after reading."""
    return None


def load(config: Config) -> Data:
    """Read, check and split the log. Raises BadInput naming the file, the column and the line."""
    path = Path(config.path)
    columns, problems, _ = _columns(read(path), path, config)
    if problems:
        raise BadInput(f"{path}: {problems[0].sentence}")
    user, _ = pd.factorize(columns.user, sort=True)
    item, items = pd.factorize(columns.item, sort=True)
    titles, tags, sources = _descriptions(path, [str(name) for name in items])
    sources[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    content = {**asdict(config), "path": "", "sources": sources, "version": 1}
    return by_time(
        str(path),
        user.astype(np.int64),
        item.astype(np.int64),
        columns.reward,
        columns.time,
        columns.randomised,
        tags,
        titles,
        hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest(),
        sources,
        {},
    )


def item_names(config: Config) -> list[str]:
    """The log's own name of each item, by id."""
    path = Path(config.path)
    columns, _, _ = _columns(read(path), path, config)
    return [str(name) for name in pd.factorize(columns.item, sort=True)[1]]


def check(config: Config, most_rows: int = MOST_ROWS) -> Checked:
    """Everything that is wrong with the rows of a log, up to MOST_PROBLEMS, and what was understood.

    Raises BadInput where there are no rows to look at: the file, its header or its items.csv cannot be used.
    """
    path = Path(config.path)
    table = read(path, most_rows)
    columns, problems, wrong = _columns(table, path, config)
    items = [str(name) for name in pd.unique(columns.item)]
    _, _, sources = _descriptions(path, items)
    shown = {
        "user": columns.user[:PREVIEW],
        "item": columns.item[:PREVIEW],
        "reward": columns.reward[:PREVIEW],
        "time": pd.to_datetime(columns.time[:PREVIEW], unit="s", errors="coerce").strftime("%Y-%m-%d %H:%M:%S"),
    }
    if columns.randomised is not None:
        shown[OPTIONAL] = columns.randomised[:PREVIEW]
    used = [name for name in (*COLUMNS, OPTIONAL) if name in table]
    return Checked(
        rows=len(table),
        users=int(pd.Series(columns.user).nunique()),
        items=len(items),
        used=tuple(used),
        ignored=tuple(str(name)[:MOST_TEXT] for name in table.attrs["columns"] if name not in used),
        described=bool(sources),
        preview=pd.DataFrame(shown),
        problems=tuple(problems[:MOST_PROBLEMS]),
        wrong_rows=wrong,
    )


def read(path: Path, most_rows: int = MOST_ROWS) -> pd.DataFrame:
    """The needed columns as text (CSV) or as stored (Parquet); `attrs["columns"]` names all that the file has."""
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise BadInput(f"dataset {str(path)!r} is not legal: the file must end in .csv, .tsv or .parquet")
    if not path.is_file():
        raise BadInput(f"dataset {str(path)!r} is not legal: there is no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty: it must have a header line with {', '.join(COLUMNS)}, and rows")
    try:
        if suffix == ".parquet":
            names, table = _read_parquet(path, most_rows)
        else:
            names, table = _read_text(path, "\t" if suffix == ".tsv" else ",", most_rows)
    except BadInput:
        raise
    except (ValueError, OSError, OverflowError, pd.errors.ParserError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInput(f"{path} cannot be read as {suffix[1:]}: {said}") from None
    if not len(table):
        raise BadInput(f"{path} has a header and no rows: it must have at least 2 users and 2 items")
    if len(table) > most_rows:
        raise BadInput(f"{path} has more than {most_rows} rows: it must have {most_rows} or less")
    table = table.reset_index(drop=True)
    table.attrs["columns"] = names
    return table


def _read_text(path: Path, separator: str, most_rows: int) -> tuple[list[str], pd.DataFrame]:
    options: dict[str, Any] = {"sep": separator, "dtype": str, "keep_default_na": False, "encoding_errors": "replace"}
    names = [str(name) for name in pd.read_csv(path, nrows=0, **options).columns]
    kept = _needed(path, names)
    table = pd.read_csv(path, skip_blank_lines=False, nrows=most_rows + 1, **options)
    if not isinstance(table.index, pd.RangeIndex):
        raise BadInput(f"{path}: line 2 has more cells than the header, which has {len(names)}: each line must have as many")
    return names, table[kept]


def _read_parquet(path: Path, most_rows: int) -> tuple[list[str], pd.DataFrame]:
    from pyarrow import parquet, types

    file = parquet.ParquetFile(path)
    names = list(file.schema_arrow.names)
    kept = _needed(path, names)
    for name in kept:
        if names.count(name) > 1:
            raise BadInput(f"{path} has {names.count(name)} columns {name}: it must have one")
        kind = file.schema_arrow.field(name).type
        if types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind) or types.is_duration(kind):
            raise BadInput(f"{path}: column {name} holds {str(kind)[:60]}: it must hold numbers, text or times")
    about = file.metadata
    if about.num_rows > most_rows:
        raise BadInput(f"{path} has more than {most_rows} rows: it must have {most_rows} or less")
    groups = [about.row_group(number) for number in range(about.num_row_groups)]
    columns = (group.column(number) for group in groups for number in range(group.num_columns))
    unpacked = sum(part.total_uncompressed_size for part in columns if part.path_in_schema.split(".")[0] in kept)
    if unpacked > most_rows * MOST_UNPACKED:
        raise BadInput(f"{path} unpacks to {unpacked} bytes: it must be {most_rows * MOST_UNPACKED} or less")
    return names, file.read(columns=kept).to_pandas(ignore_metadata=True)


def _needed(path: Path, names: Sequence[str]) -> list[str]:
    """The columns to keep of those that a file has."""
    if len(names) > MOST_COLUMNS:
        raise BadInput(f"{path} has {len(names)} columns: it must have {MOST_COLUMNS} or less")
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        has = ", ".join(name[:40] for name in names[:20])
        raise BadInput(f"{path}: column {', '.join(missing)} is missing; it has {has} and must have {', '.join(COLUMNS)}")
    return [*COLUMNS, *([OPTIONAL] if OPTIONAL in names else [])]


class _Findings:
    """Collects problems: the first of each kind, and which rows have any."""

    def __init__(self, table: pd.DataFrame, path: Path) -> None:
        self._parquet = path.suffix.lower() == ".parquet"
        self._found: list[Problem] = []
        self._wrong = np.zeros(len(table), dtype=bool)

    def rows(self, column: pd.Series, wrong: np.ndarray, legal: str, say: Callable[[str, str], str] | None = None) -> None:
        """Every row of a bool mask (N,) has the same problem in `column`. say: its sentence from place and value."""
        name = str(column.name)
        for row in np.flatnonzero(wrong)[:MOST_PROBLEMS]:
            where = f"row {row + 1}" if self._parquet else f"line {row + 2}"
            value = str(column.iloc[row])[:40]
            text = say(where, value) if say else f"{name} in {where} is {value!r}: it must be {legal}"
            self._found.append(Problem(int(row), where, name, value, legal, text))
        self._wrong |= wrong

    def whole(self, column: str, value: str, legal: str, sentence: str) -> None:
        """The file as a whole has a problem."""
        self._found.append(Problem(-1, "the file", column, value, legal, sentence))

    def told(self) -> tuple[list[Problem], int]:
        """The problems in the order of rows, and how many rows have one."""
        return sorted(self._found, key=lambda problem: problem.row), int(self._wrong.sum())


def _columns(table: pd.DataFrame, path: Path, config: Config) -> tuple[_Columns, list[Problem], int]:
    findings = _Findings(table, path)
    user, item = (_ids(table[name], findings) for name in ("user", "item"))
    reward = _rewards(table["reward"], config.threshold, findings)
    time = _times(table["time"], findings)
    randomised = _flags(table[OPTIONAL], findings) if OPTIONAL in table else None
    problems, wrong = findings.told()
    if not problems:
        users, items = pd.unique(user), pd.unique(item)
        if len(users) < 2 or len(items) < 2:
            findings.whole(
                "", f"{len(users)} user(s), {len(items)} item(s)", "at least 2 of each",
                f"the log has {len(users)} user(s) and {len(items)} item(s): it must have at least 2 of each",
            )  # fmt: skip
        elif len(users) == len(user):
            findings.whole(
                "user", "one row a user", "at least one user with 2 rows or more",
                "the log has one row for each user: the later half of a user's rows is the test log, so users need 2 or more",
            )  # fmt: skip
        problems, wrong = findings.told()
    return _Columns(user, item, reward, time, randomised), problems, wrong


def _missing(column: pd.Series, findings: _Findings, legal: str) -> np.ndarray:
    """bool (N,): the cell is empty, or says that it is."""
    text = column.astype(str).str.strip()
    blank = (column.isna() | (text == "") | text.str.lower().isin(("nan", "null", "none", "<na>"))).to_numpy()
    if blank.all():
        findings.whole(str(column.name), "no value at all", legal, f"column {column.name} holds no value at all")
    elif blank.any():
        findings.rows(
            column, blank, legal, lambda where, value: f"{column.name} in {where} is missing ({blank.sum()} such rows)"
        )
    return blank


def _numbers(column: pd.Series, findings: _Findings, legal: str = "a number") -> np.ndarray:
    """float64 (N,), NaN where the cell is not a finite number."""
    blank = _missing(column, findings, legal)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(numbers)
    findings.rows(column, wrong & ~blank, legal)
    return np.where(wrong, np.nan, numbers)


def _rewards(column: pd.Series, threshold: float | None, findings: _Findings) -> np.ndarray:
    reward = _numbers(column, findings)
    if threshold is not None:
        return np.where(np.isnan(reward), np.nan, reward >= threshold)
    findings.rows(
        column, (reward < 0) | (reward > 1), "0 to 1, or set a threshold",
        lambda where, value: f"reward in {where} is {value}: rewards must lie in [0, 1], or set dataset.threshold to turn "
        "ratings into 0 and 1",
    )  # fmt: skip
    return reward


def _flags(column: pd.Series, findings: _Findings) -> np.ndarray:
    flag = _numbers(column, findings, "0 or 1")
    findings.rows(
        column, ~np.isnan(flag) & ~np.isin(flag, (0, 1)), "0 or 1",
        lambda where, value: f"{column.name} in {where} is {value}: it must be 0 or 1",
    )  # fmt: skip
    return flag == 1


def _times(column: pd.Series, findings: _Findings) -> np.ndarray:
    """int64 (N,) seconds; the whole column holds numbers, or the whole column ISO 8601."""
    legal = "seconds or ISO 8601"
    blank = _missing(column, findings, legal)
    if pd.api.types.is_datetime64_any_dtype(column):
        moments = column.fillna(pd.Timestamp(0, tz=column.dt.tz))
        moments = moments.dt.tz_localize(None) if moments.dt.tz is not None else moments
        return moments.astype("datetime64[s]").astype("int64").to_numpy()
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    usable = np.isfinite(numbers) & (np.abs(numbers) < 2.0**62)
    if (usable | blank).all():
        return np.where(usable, numbers, 0).astype(np.int64)
    dates = pd.to_datetime(column.astype(str), format="ISO8601", errors="coerce", utc=True)
    dated = dates.notna().to_numpy()
    # A log of numbers with one slip, or of dates with one: what most rows are is what the others must be.
    as_dates = dated.sum() >= (usable & ~dated).sum()
    good = dated if as_dates else usable
    findings.rows(column, ~good & ~blank, legal)
    if not as_dates:
        return np.where(usable, numbers, 0).astype(np.int64)
    filled = dates.fillna(pd.Timestamp(0, tz="UTC"))
    return filled.dt.tz_localize(None).astype("datetime64[s]").astype("int64").to_numpy()


def _ids(column: pd.Series, findings: _Findings) -> np.ndarray:
    legal = f"an id of at most {MOST_TEXT} characters"
    blank = _missing(column, findings, legal)
    text = column.astype(str).str.strip()
    long = (text.str.len() > MOST_TEXT).to_numpy() & ~blank
    findings.rows(column, long, legal, lambda where, _: f"{column.name} in {where} has more than {MOST_TEXT} characters")
    return text.str.slice(0, MOST_TEXT).to_numpy(dtype=object)


def _descriptions(path: Path, items: list[str]) -> tuple[list[str], list[list[str]], dict[str, str]]:
    """Titles and tags from items.csv beside the log, where there is one."""
    file = path.with_name(ITEMS)
    if not file.is_file() or file == path:
        return [f"item {name}" for name in items], [[] for _ in items], {}
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False, encoding_errors="replace", nrows=MOST_ROWS)
    except (ValueError, OSError, pd.errors.ParserError) as error:
        raise BadInput(f"{file} cannot be read as csv: {str(error).strip().splitlines()[0][:200]}") from None
    if "item" not in table:
        raise BadInput(f"{file}: column item is missing; it must have item, and may have title and tags")
    table["item"] = table["item"].fillna("").str.strip()
    known = table.drop_duplicates("item", keep="last").set_index("item").reindex(items)
    titles = known["title"].fillna("").tolist() if "title" in known else [""] * len(items)
    tags = known["tags"].fillna("").str.replace("|", " ").str.split().tolist() if "tags" in known else [[] for _ in items]
    tags = [[tag[:MOST_TEXT] for tag in own] for own in tags]
    several = len({tag for own in tags for tag in own})
    if several > MOST_TAGS:
        raise BadInput(f"{file} has {several} different tags: it must have {MOST_TAGS} or less")
    titles = [str(title)[:MOST_TEXT] or f"item {name}" for title, name in zip(titles, items, strict=True)]
    return titles, tags, {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
