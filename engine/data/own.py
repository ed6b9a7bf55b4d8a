"""Logs that come in through the app: held against caps, checked, and kept under names that the server makes.

A log is kept as DATA_DIR/own/<digest of its content>/log.csv (.tsv, .parquet), with items.csv beside it where one was given.
Nothing of the name that a browser sends is used but its ending, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePath

from engine.checkpoint import write_whole
from engine.data import fetch, table
from engine.data.table import Checked
from engine.options import BadInput

MOST_BYTES, MOST_ITEM_BYTES = 50_000_000, 10_000_000  # of a log, and of its items.csv
MOST_ROWS = 5_000_000
MOST_CELL = 10_000  # bytes between two separators of a text file
MOST_KEPT = 2_000_000_000  # bytes of all kept logs together


@dataclass(frozen=True)
class Kept:
    """A log that came in: where it lies, None if it has problems, and what was understood of it."""

    path: Path | None
    checked: Checked


def folder() -> Path:
    """`own/` under DATA_DIR (default `data/`)."""
    return fetch.data_folder() / "own"


def keep(name: str, log: bytes, items: bytes | None = None, threshold: float | None = None) -> Kept:
    """Check a log as `table.check` does, and keep it if nothing is wrong. The same content is kept once.

    Raises BadInput where a cap is passed or the file as a whole cannot be used; messages call the files log and items.csv.
    """
    kind = PurePath(name).suffix.lower()
    if kind not in table.KINDS:
        raise BadInput(f"the file's name ends in {kind[:20]!r}: it must end in .csv, .tsv or .parquet")
    _capped("the log", log, MOST_BYTES, None if kind == ".parquet" else "\t" if kind == ".tsv" else ",")
    if items is not None:
        _capped(table.ITEMS, items, MOST_ITEM_BYTES, ",")
    with tempfile.TemporaryDirectory() as aside:
        path = Path(aside) / f"log{kind}"
        path.write_bytes(log)
        if items is not None:
            path.with_name(table.ITEMS).write_bytes(items)
        try:
            checked = table.check(table.Config(path=str(path), threshold=threshold), MOST_ROWS)
        except BadInput as error:
            raise BadInput(str(error).replace(f"{aside}{os.sep}", "")) from None
    return Kept(None if checked.problems else _write(kind, log, items), checked)


def _capped(what: str, content: bytes, most: int, separator: str | None) -> None:
    if len(content) > most:
        raise BadInput(f"{what} has {len(content)} bytes: it must have {most} or less; give the path of a larger one")
    if separator is None:
        return
    for number, line in enumerate(content.splitlines(), 1):
        if len(line) > MOST_CELL and max(map(len, line.split(separator.encode()))) > MOST_CELL:
            raise BadInput(f"{what}: a cell in line {number} has more than {MOST_CELL} bytes: it must have {MOST_CELL} or less")


def _write(kind: str, log: bytes, items: bytes | None) -> Path:
    """The path of the kept log. Raises BadInput where the folder is not what this module made."""
    root = folder()
    if root.is_symlink():
        raise BadInput(f"{root} is a symbolic link: it must be a folder of its own")
    root.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(b"%d %s " % (len(log), kind.encode()) + log + (b"" if items is None else b" items " + items))
    place = root.resolve() / digest.hexdigest()[:24]
    path = place / f"log{kind}"
    for part in (place, path, place / table.ITEMS):
        if part.is_symlink() or not part.resolve().is_relative_to(root.resolve()):
            raise BadInput(f"{part} is a symbolic link: remove it, then try again")
    if path.is_file() and path.stat().st_size == len(log):
        return path
    held = sum(file.stat().st_size for file in root.rglob("*") if file.is_file())
    if held + len(log) > MOST_KEPT:
        raise BadInput(f"{root} holds {held} bytes, all kept logs may have {MOST_KEPT}: remove what is not needed any more")
    if items is not None:
        write_whole(place / table.ITEMS, items)
    write_whole(path, log)  # last: a log that is there is whole
    return path
