"""CSV files of a published dataset, wherever they lie: in a folder, or still in the archive that they came in.

Archives are read member by member and never unpacked; members are known by the last part of their name, and links are not
followed, so nothing that an archive says decides where something is written or read.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from engine.options import BadInput

LEVELS = 3  # of folders below the one that is given in which files are looked for
MOST_BYTES = 8_000_000_000  # of one file once it is unpacked
BLOCK = 1 << 23  # bytes that are parsed at once
ARCHIVES = (".zip", ".tar.gz", ".tgz", ".tar")
TORN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError)


@dataclass(frozen=True)
class Bundle:
    """Where a dataset's files are. archive: the file that holds them, or None where they lie in a folder. files: name → path
    in the folder, or → member of the archive, None where that has not been looked into."""

    archive: Path | None
    files: Mapping[str, str] | None

    def stamp(self) -> list[list[Any]]:
        """[name, bytes, time] of what is there: changes when a file does."""
        paths = [self.archive] if self.archive else [Path(path) for path in (self.files or {}).values()]
        return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]

    def label(self, name: str) -> str:
        """A file's name in messages."""
        return f"{self.archive}, {name}" if self.archive else str((self.files or {}).get(name, name))

    def opened(self, required: Sequence[str], optional: Sequence[str]) -> Bundle:
        """The same, with an archive's members found. Raises BadInput where it is torn or a required file is not in it."""
        if self.archive is None:
            return self
        found: dict[str, str] = {}
        for member, size in self._members():
            name = PurePosixPath(member).name
            if name not in (*required, *optional):
                continue
            if name in found:
                raise BadInput(f"{self.archive} holds {name} twice ({found[name]} and {member}): it must hold it once")
            if size > MOST_BYTES:
                raise BadInput(f"{self.archive}: {name} unpacks to {size} bytes: it must be {MOST_BYTES} or less")
            found[name] = member
        for name in required:
            if name not in found:
                raise BadInput(
                    f"{self.archive} is not the published archive: it holds no {name}; it must hold {', '.join(required)}"
                )
        return Bundle(self.archive, found)

    def _members(self) -> list[tuple[str, int]]:
        assert self.archive is not None
        try:
            if self.archive.name.endswith(".zip"):
                with zipfile.ZipFile(self.archive) as opened:
                    return [(own.filename, own.file_size) for own in opened.infolist() if not own.is_dir()]
            with tarfile.open(self.archive) as tar:
                return [(own.name, own.size) for own in tar if own.isreg()]
        except TORN as error:
            raise BadInput(f"{self.archive} cannot be read as an archive: {_said(error)}; get it again") from None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file's bytes. What is torn raises BadInput, also while it is being read."""
        assert self.files is not None
        place = self.files[name]
        try:
            if self.archive is None:
                with Path(place).open("rb") as file:
                    yield file
            elif self.archive.name.endswith(".zip"):
                with zipfile.ZipFile(self.archive) as opened, opened.open(place) as member:
                    yield member  # type: ignore[misc]
            else:
                with tarfile.open(self.archive) as tar:
                    stream = tar.extractfile(next(own for own in tar if own.isreg() and own.name == place))
                    assert stream is not None
                    yield stream  # type: ignore[misc]
        except TORN as error:
            raise BadInput(f"{self.label(name)} cannot be read: {_said(error)}; get it again") from None


def find(path: Path, required: Sequence[str], optional: Sequence[str], archives: Sequence[str]) -> Bundle | None:
    """The bundle at `path`: a folder that has the files somewhere in it, an archive, or a folder with the archive in it. None
    where there is nothing of it. Raises BadInput where a part of it is missing or there twice."""
    if path.is_file():
        if not path.name.endswith(ARCHIVES):
            raise BadInput(f"dataset.path = {str(path)!r} is not legal: it must be a folder, or end in {', '.join(ARCHIVES)}")
        return Bundle(path, None)
    found: dict[str, str] = {}
    for level in range(LEVELS + 1):
        here: dict[str, str] = {}
        for name in (*required, *optional):
            for file in sorted(path.glob("*/" * level + name)):
                if name in here:
                    raise BadInput(f"{path} holds {name} twice ({here[name]} and {file}): it must hold it once")
                here[name] = str(file)
        found = {**here, **found}
    missing = [name for name in required if name not in found]
    if not missing:
        return Bundle(None, dict(sorted(found.items())))
    for archive in archives:
        if (path / archive).is_file():
            return Bundle(path / archive, None)
    if len(missing) < len(required):
        raise BadInput(f"{path} holds no {', '.join(missing)}: it must hold {', '.join(required)}, or {' or '.join(archives)}")
    return None


def lies_in(folder: Path, required: Sequence[str], archives: Sequence[str]) -> bool:
    """Whether any of the files or archives is in the folder; nothing is opened."""
    return any(
        next(folder.glob("*/" * level + name), None) is not None
        for level in range(LEVELS + 1)
        for name in (*required, *(archives if level == 0 else ()))
    )


@dataclass(frozen=True)
class Columns:
    """What was read of a CSV file. values: name → (N,); text as objects, NaN and "" where a cell is empty. digest: SHA-256 of
    the file."""

    label: str
    values: dict[str, np.ndarray]
    digest: str

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))

    def __getitem__(self, name: str) -> np.ndarray:
        return self.values[name]

    def refuse(self, name: str, wrong: np.ndarray, legal: str) -> None:
        """Raises BadInput where a row of the bool mask (N,) is set, naming the first."""
        if wrong.any():
            row = int(wrong.argmax())
            raise BadInput(f"{self.label}: {name} in line {row + 2} is {str(self[name][row])[:40]}: it must be {legal}")


LEGAL = {"int": "a whole number", "float": "a number", "text": "text"}


def read_csv(bundle: Bundle, name: str, kinds: Mapping[str, str]) -> Columns:
    """The columns that `kinds` names, as "int32", "int64", "float32", "float64" or "text"; others are not looked at.

    Cells of numbers may be empty in float columns only. Raises BadInput with the file and the line: a missing or renamed
    column, a line of another length, a cell that is no number, an empty file, a last line that is cut off.
    """
    import pyarrow as pa
    from pyarrow import csv

    label = bundle.label(name)
    types = {"int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32(), "float64": pa.float64(), "text": pa.string()}
    header: list[str] = []

    def parse(threads: bool) -> tuple[Any, _Reader]:
        with bundle.open(name) as stream:
            reader = _Reader(stream)
            header.extend(_header(label, reader.header, kinds))
            quoted = "text" in kinds.values() or b'"' in reader.header
            table = csv.read_csv(
                pa.PythonFile(reader, mode="r"),
                csv.ReadOptions(use_threads=threads, block_size=BLOCK),
                csv.ParseOptions(quote_char='"' if quoted else False, newlines_in_values=quoted, ignore_empty_lines=False),
                csv.ConvertOptions(
                    column_types={column: types[kind] for column, kind in kinds.items()},
                    include_columns=list(kinds),
                    strings_can_be_null=False,
                ),
            )
            return table, reader

    try:
        table, reader = parse(True)
    except pa.ArrowInvalid:
        try:
            table, reader = parse(False)  # slower, but it knows the line
        except pa.ArrowInvalid as error:
            raise BadInput(_sentence(label, header, str(error))) from None
    if not table.num_rows:
        raise BadInput(f"{label} has a header and no rows")
    if reader.last != b"\n":
        raise BadInput(f"{label}: line {table.num_rows + 1}, the last, is cut off: each line must end, so get the file again")
    values = {}
    for column, kind in kinds.items():
        found = table.column(column)
        if kind.startswith("int") and found.null_count:
            row = int(np.asarray(found.is_null()).argmax())
            raise BadInput(f"{label}: {column} in line {row + 2} is empty ({found.null_count} such): it must be a whole number")
        values[column] = found.to_numpy()
    return Columns(label, values, reader.digest.hexdigest())


class _Reader(io.RawIOBase):
    """A stream that is hashed while it is read, with its first line known beforehand."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.digest, self.last = stream, hashlib.sha256(), b""
        self.header = stream.readline(1 << 16)
        self._ahead = self.header

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if self._ahead:
            content, self._ahead = self._ahead, b""
        else:
            content = self.stream.read(size)
        self.digest.update(content)
        self.last = content[-1:] or self.last
        return content


def _header(label: str, header: bytes, kinds: Mapping[str, str]) -> list[str]:
    """The columns of a file. Raises BadInput where one of `kinds` is missing or there twice."""
    if not header:
        raise BadInput(f"{label} is empty: it must have a header line with {', '.join(kinds)}, and rows")
    names = [cell.strip().strip('"') for cell in header.decode("utf-8-sig", "replace").strip().split(",")]
    missing = [column for column in kinds if column not in names]
    if missing:
        has = ", ".join(cell[:40] for cell in names[:40])
        raise BadInput(f"{label}: column {', '.join(missing)} is missing; it has {has} and must have {', '.join(kinds)}")
    for column in kinds:
        if names.count(column) > 1:
            raise BadInput(f"{label} has {names.count(column)} columns {column}: it must have one")
    return names


def _sentence(label: str, header: Sequence[str], said: str) -> str:
    """What a parser's complaint means."""
    if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", said):
        line, wanted, got = found.groups()
        return f"{label}: line {line} has {got} cells: it must have {wanted}, as the header has"
    if found := re.search(r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+): invalid value '(.*)'", said, re.S):
        place, line, kind, value = found.groups()
        column = header[int(place)]
        legal = LEGAL["float" if kind in ("float", "double") else "int" if kind.startswith("int") else "text"]
        return f"{label}: {column} in line {line} is {value[:40]!r}: it must be {legal}"
    return f"{label} cannot be read as csv: {said.splitlines()[0][:200]}"


def _said(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
