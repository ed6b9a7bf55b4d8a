"""A log of your own: a CSV or Parquet file with columns user, item, reward, time and optionally randomised

`user` and `item` are any text or number; `reward` lies in [0, 1], or `dataset.threshold` turns ratings into 0 and 1; `time` is
seconds or ISO 8601; `randomised` is 1 where the exposure was random. Beside the log may lie items.csv (item, title, tags),
tags separated by spaces or |. Other columns are ignored. What cannot be used is named with its line; nothing is guessed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
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
BLOCK = 1 << 20  # rows that are read and looked at together: memory holds the text of one block, not of the log
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
class _Block:
    """Rows of one column from `start` on: its values (n,), and for each row (b,) which of them it holds; None: each its own.

    A log of millions of rows holds few different users, items and rewards, so these are looked at once a block.
    """

    start: int
    values: pd.Series
    codes: np.ndarray | None

    def spread(self, found: np.ndarray) -> np.ndarray:
        """(b,) a result for each row, from results (n,) for the values."""
        return found if self.codes is None else found[self.codes]


@dataclass(frozen=True)
class _Table:
    """A log as text (CSV) or as stored (Parquet). names: all columns that the file has; blocks: of those that are needed."""

    rows: int
    names: list[str]
    blocks: dict[str, list[_Block]]


@dataclass(frozen=True)
class _Columns:
    """The columns of a log (N,) as far as they could be read; a row that could not be holds NaN, 0 or an empty text.

    user, item: places in users and items, which are sorted as text.
    """

    user: np.ndarray
    users: list[str]
    item: np.ndarray
    items: list[str]
    reward: np.ndarray
    time: np.ndarray
    randomised: np.ndarray | None


def catalogue_size(config: Config) -> int | None:
    """Items in play: known only after reading."""
    return None


def load(config: Config) -> Data:
    """Read, check and split the log. Raises BadInput naming the file, the column and the line."""
    path = Path(config.path)
    columns, problems, _ = _columns(_read(path), path, config)
    if problems:
        raise BadInput(f"{path}: {problems[0].sentence}")
    titles, tags, sources = _descriptions(path, columns.items)
    sources[path.name] = _digest(path)
    content = {**asdict(config), "path": "", "sources": sources, "version": 1}
    return by_time(
        str(path),
        columns.user,
        columns.item,
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
    return _columns(_read(path), path, config)[0].items


def check(config: Config, most_rows: int = MOST_ROWS) -> Checked:
    """Everything that is wrong with the rows of a log, up to MOST_PROBLEMS, and what was understood.

    Raises BadInput where there are no rows to look at: the file, its header or its items.csv cannot be used.
    """
    path = Path(config.path)
    table = _read(path, most_rows)
    columns, problems, wrong = _columns(table, path, config)
    _, _, sources = _descriptions(path, columns.items)
    shown: dict[str, Any] = {
        "user": [columns.users[place] for place in columns.user[:PREVIEW]],
        "item": [columns.items[place] for place in columns.item[:PREVIEW]],
        "reward": columns.reward[:PREVIEW],
        "time": pd.to_datetime(columns.time[:PREVIEW], unit="s", errors="coerce").strftime("%Y-%m-%d %H:%M:%S"),
    }
    if columns.randomised is not None:
        shown[OPTIONAL] = columns.randomised[:PREVIEW]
    return Checked(
        rows=table.rows,
        users=sum(map(bool, columns.users)),  # a cell that is empty is nobody
        items=sum(map(bool, columns.items)),
        used=tuple(table.blocks),
        ignored=tuple(name[:MOST_TEXT] for name in table.names if name not in table.blocks),
        described=bool(sources),
        preview=pd.DataFrame(shown),
        problems=tuple(problems[:MOST_PROBLEMS]),
        wrong_rows=wrong,
    )


def _read(path: Path, most_rows: int = MOST_ROWS) -> _Table:
    suffix = path.suffix.lower()
    if suffix not in KINDS:
        raise BadInput(f"dataset {str(path)!r} is not legal: the file must end in .csv, .tsv or .parquet")
    if not path.is_file():
        raise BadInput(f"dataset {str(path)!r} is not legal: there is no such file")
    if path.stat().st_size == 0:
        raise BadInput(f"{path} is empty: it must have a header line with {', '.join(COLUMNS)}, and rows")
    try:
        if suffix == ".parquet":
            table = _read_parquet(path, most_rows)
        else:
            table = _read_text(path, "\t" if suffix == ".tsv" else ",", most_rows)
    except BadInput:
        raise
    except (ValueError, OSError, OverflowError, pd.errors.ParserError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BadInput(f"{path} cannot be read as {suffix[1:]}: {said}") from None
    if not table.rows:
        raise BadInput(f"{path} has a header and no rows: it must have at least 2 users and 2 items")
    if table.rows > most_rows:
        raise BadInput(f"{path} has more than {most_rows} rows: it must have {most_rows} or less")
    return table


def _read_text(path: Path, separator: str, most_rows: int) -> _Table:
    options: dict[str, Any] = {
        "sep": separator, "dtype": str, "keep_default_na": False, "encoding_errors": "replace", "skip_blank_lines": False,
    }  # fmt: skip
    names = [str(name) for name in pd.read_csv(path, nrows=0, **options).columns]
    kept = _needed(path, names)
    if _is_plain(path):
        try:
            return _in_blocks(names, kept, _plain_parts(path, separator, names, kept, most_rows))
        except ValueError:  # a line that is too short or too long, letters that are not UTF-8: the careful way says which
            pass
    rows = max(BLOCK * 8 // max(len(names), 8), 1)  # as much text at once, however many columns are read to be ignored
    with pd.read_csv(path, nrows=most_rows + 1, chunksize=rows, **options) as parts:
        return _in_blocks(names, kept, _aligned(parts, path, names))


def _is_plain(path: Path) -> bool:
    """Whether lines end where lines end and cells where separators are: no quotes, no lone returns, no zeros. The header may
    have quotes that are closed on its line."""
    with path.open("rb") as file:
        if file.readline(1 << 20).count(b'"') % 2:
            return False
        while part := file.read(1 << 24):
            if b'"' in part or b"\0" in part or part.count(b"\r") != part.count(b"\r\n"):
                return False
    return True


def _plain_parts(path: Path, separator: str, names: list[str], kept: list[str], most_rows: int) -> Iterator[pd.DataFrame]:
    """What pandas would read of a plain file, three times as fast. Raises ValueError where lines differ in length."""
    from pyarrow import csv, string

    reader = csv.open_csv(
        path,
        csv.ReadOptions(use_threads=False, block_size=BLOCK * 32, column_names=names, skip_rows=1),
        csv.ParseOptions(delimiter=separator, quote_char=False, ignore_empty_lines=False),
        csv.ConvertOptions(column_types=dict.fromkeys(kept, string()), include_columns=kept, strings_can_be_null=False),
    )
    with reader:
        rows = 0
        for batch in reader:
            yield batch.to_pandas()
            rows += len(batch)
            if rows > most_rows:
                return


def _aligned(parts: Iterable[pd.DataFrame], path: Path, names: list[str]) -> Iterator[pd.DataFrame]:
    for part in parts:
        if not isinstance(part.index, pd.RangeIndex):
            raise BadInput(
                f"{path}: line 2 has more cells than the header, which has {len(names)}: each line must have as many"
            )
        yield part


def _read_parquet(path: Path, most_rows: int) -> _Table:
    from pyarrow import float64, parquet, types

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
    table = file.read(columns=kept)
    for place, name in enumerate(table.column_names):  # one kind in all blocks, whichever of them has the gaps
        column = table.column(place)
        if column.null_count and types.is_integer(column.type):
            table = table.set_column(place, name, column.cast(float64(), safe=False))
    parts = (table.slice(start, BLOCK).to_pandas(ignore_metadata=True) for start in range(0, table.num_rows, BLOCK))
    return _in_blocks(names, kept, parts)


def _in_blocks(names: list[str], kept: list[str], parts: Iterable[pd.DataFrame]) -> _Table:
    """`parts`: the rows in their order, with at least the kept columns."""
    rows = 0
    blocks: dict[str, list[_Block]] = {name: [] for name in kept}
    for part in parts:
        for name in kept:
            column = part[name].reset_index(drop=True)
            repeats = isinstance(column.dtype, pd.StringDtype) or pd.api.types.is_integer_dtype(column.dtype)
            if repeats and name != "time":
                codes, values = pd.factorize(column, use_na_sentinel=False)
                blocks[name].append(_Block(rows, pd.Series(values, name=name), codes.astype(np.int32)))
            else:
                blocks[name].append(_Block(rows, column, None))
        rows += len(part)
    return _Table(rows, names, blocks)


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

    def __init__(self, rows: int, path: Path) -> None:
        self._parquet = path.suffix.lower() == ".parquet"
        self._found: list[Problem] = []
        self._wrong = np.zeros(rows, dtype=bool)

    def rows(
        self,
        blocks: Sequence[_Block],
        wrong: Sequence[np.ndarray],
        legal: str,
        say: Callable[[str, str], str] | None = None,
    ) -> None:
        """Every row whose value is marked in `wrong`, bool (n,) for each block of a column, has the same problem. say: its
        sentence from place and value."""
        left = MOST_PROBLEMS
        for block, marked in zip(blocks, wrong, strict=True):
            if not marked.any():
                continue
            mask = block.spread(marked)
            self._wrong[block.start : block.start + len(mask)] |= mask
            name = str(block.values.name)
            for row in np.flatnonzero(mask)[:left].tolist():
                where = f"row {block.start + row + 1}" if self._parquet else f"line {block.start + row + 2}"
                value = str(block.values.iloc[row if block.codes is None else block.codes[row]])[:40]
                text = say(where, value) if say else f"{name} in {where} is {value!r}: it must be {legal}"
                self._found.append(Problem(block.start + row, where, name, value, legal, text))
                left -= 1

    def whole(self, column: str, value: str, legal: str, sentence: str) -> None:
        """The file as a whole has a problem."""
        self._found.append(Problem(-1, "the file", column, value, legal, sentence))

    def told(self) -> tuple[list[Problem], int]:
        """The problems in the order of rows, and how many rows have one."""
        return sorted(self._found, key=lambda problem: problem.row), int(self._wrong.sum())


def _columns(table: _Table, path: Path, config: Config) -> tuple[_Columns, list[Problem], int]:
    findings = _Findings(table.rows, path)
    (user, users), (item, items) = (_ids(table.blocks[name], findings) for name in ("user", "item"))
    reward = _rewards(table.blocks["reward"], config.threshold, findings)
    time = _times(table.blocks["time"], findings)
    randomised = _flags(table.blocks[OPTIONAL], findings) if OPTIONAL in table.blocks else None
    problems, wrong = findings.told()
    if not problems:
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
        elif randomised is not None and randomised.sum() == 1:
            findings.whole(
                OPTIONAL, "1 row", "none, or at least 2 rows",
                "the log has 1 randomised row: the later half of these rows alone is the test log, so it must have none or 2 "
                "or more",
            )  # fmt: skip
        problems, wrong = findings.told()
    return _Columns(user, users, item, items, reward, time, randomised), problems, wrong


def _missing(blocks: Sequence[_Block], findings: _Findings, legal: str) -> list[np.ndarray]:
    """bool (n,) for each block: the value is empty, or says that it is."""
    blank, count, rows = [], 0, 0
    for block in blocks:
        empty = block.values.isna()
        if not pd.api.types.is_numeric_dtype(block.values) and not pd.api.types.is_datetime64_any_dtype(block.values):
            text = block.values.astype(str).str.strip()
            empty |= (text == "") | text.str.lower().isin(("nan", "null", "none", "<na>"))
        blank.append(empty.to_numpy(dtype=bool))
        marked = block.spread(blank[-1])
        count, rows = count + int(marked.sum()), rows + len(marked)
    name = str(blocks[0].values.name)
    if count == rows:
        findings.whole(name, "no value at all", legal, f"column {name} holds no value at all")
    elif count:
        findings.rows(blocks, blank, legal, lambda where, value: f"{name} in {where} is missing ({count} such rows)")
    return blank


def _numbers(blocks: Sequence[_Block], findings: _Findings, legal: str = "a number") -> list[np.ndarray]:
    """float64 (n,) for each block, NaN where the value is not a finite number."""
    blank = _missing(blocks, findings, legal)
    numbers = [_parsed(block.values) for block in blocks]
    wrong = [~np.isfinite(own) for own in numbers]
    findings.rows(blocks, [bad & ~empty for bad, empty in zip(wrong, blank, strict=True)], legal)
    return [np.where(bad, np.nan, own) for bad, own in zip(wrong, numbers, strict=True)]


def _parsed(values: pd.Series) -> np.ndarray:
    """float64 (n,), NaN where there is no number."""
    return pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _rewards(blocks: Sequence[_Block], threshold: float | None, findings: _Findings) -> np.ndarray:
    reward = _numbers(blocks, findings)
    if threshold is not None:
        return _joined(blocks, [np.where(np.isnan(own), np.nan, own >= threshold) for own in reward])
    findings.rows(
        blocks, [(own < 0) | (own > 1) for own in reward], "0 to 1, or set a threshold",
        lambda where, value: f"reward in {where} is {value}: rewards must lie in [0, 1], or set dataset.threshold to turn "
        "ratings into 0 and 1",
    )  # fmt: skip
    return _joined(blocks, reward)


def _flags(blocks: Sequence[_Block], findings: _Findings) -> np.ndarray:
    flag = _numbers(blocks, findings, "0 or 1")
    findings.rows(
        blocks, [~np.isnan(own) & ~np.isin(own, (0, 1)) for own in flag], "0 or 1",
        lambda where, value: f"{OPTIONAL} in {where} is {value}: it must be 0 or 1",
    )  # fmt: skip
    return _joined(blocks, [own == 1 for own in flag])


def _times(blocks: Sequence[_Block], findings: _Findings) -> np.ndarray:
    """int64 (N,) seconds; the whole column holds numbers, or the whole column ISO 8601."""
    legal = "seconds or ISO 8601"
    blank = _missing(blocks, findings, legal)
    if pd.api.types.is_datetime64_any_dtype(blocks[0].values):
        return _joined(blocks, [_seconds(block.values) for block in blocks])
    numbers = [_parsed(block.values) for block in blocks]
    usable = [np.isfinite(own) & (np.abs(own) < 2.0**62) for own in numbers]
    if not all((good | empty).all() for good, empty in zip(usable, blank, strict=True)):
        dates = [pd.to_datetime(own.values.astype(str), format="ISO8601", errors="coerce", utc=True) for own in blocks]
        dated = [own.notna().to_numpy() for own in dates]
        # A log of numbers with one slip, or of dates with one: what most rows are is what the others must be.
        plain = sum(int(block.spread(a & ~b).sum()) for block, a, b in zip(blocks, usable, dated, strict=True))
        as_dates = sum(int(block.spread(b).sum()) for block, b in zip(blocks, dated, strict=True)) >= plain
        good = dated if as_dates else usable
        findings.rows(blocks, [~own & ~empty for own, empty in zip(good, blank, strict=True)], legal)
        if as_dates:
            return _joined(blocks, [_seconds(own) for own in dates])
    return _joined(blocks, [np.where(good, own, 0).astype(np.int64) for good, own in zip(usable, numbers, strict=True)])


def _seconds(moments: pd.Series) -> np.ndarray:
    """int64 (n,), 0 where there is no moment."""
    moments = moments.fillna(pd.Timestamp(0, tz=moments.dt.tz))
    moments = moments.dt.tz_localize(None) if moments.dt.tz is not None else moments
    return moments.astype("datetime64[s]").astype("int64").to_numpy()


def _ids(blocks: Sequence[_Block], findings: _Findings) -> tuple[np.ndarray, list[str]]:
    """int64 (N,) places, and the different ids sorted as text."""
    legal = f"an id of at most {MOST_TEXT} characters"
    blank = _missing(blocks, findings, legal)
    text = [block.values.astype(str).str.strip().mask(empty, "") for block, empty in zip(blocks, blank, strict=True)]
    long = [(own.str.len() > MOST_TEXT).to_numpy(dtype=bool) for own in text]
    name = str(blocks[0].values.name)
    findings.rows(blocks, long, legal, lambda where, _: f"{name} in {where} has more than {MOST_TEXT} characters")
    place, known = pd.factorize(pd.concat(text, ignore_index=True).str.slice(0, MOST_TEXT), sort=True)
    parts = np.split(place, np.cumsum([len(own) for own in text])[:-1])
    return _joined(blocks, parts).astype(np.int64), [str(own) for own in known]


def _joined(blocks: Sequence[_Block], found: Sequence[np.ndarray]) -> np.ndarray:
    """(N,) from results (n,) for each block's values."""
    return np.concatenate([block.spread(own) for block, own in zip(blocks, found, strict=True)])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    return titles, tags, {file.name: _digest(file)}
