"""Runs made by `python -m engine train --out DIR`, shown beside those of the queue.

Only files with known names are read or copied, and only regular ones. Nothing is unpickled: `.pt` files are copied as they
are, after their checksum was compared where there is one.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from engine.options import BadInput
from engine.recorder import read_metrics
from engine.spec import RunSpec, from_json
from runs_db import files, queue
from runs_db.database import Unavailable
from runs_db.identity import host
from runs_db.models import DONE, now, runs
from runs_db.store import Store, insert_run, legal_name

NEEDED = ("spec.json", "result.json")
KNOWN = (
    *NEEDED,
    "metrics.jsonl",
    "episodes.csv",
    "policy.pt",
    "policy.pt.sha256",
    "states.pt",
    "states.pt.sha256",
    files.LOG,
)


@dataclass(frozen=True)
class Imported:
    """The id of the run, and whether it was there already."""

    run: int
    again: bool


def import_folder(store: Store, source: Path | str) -> Imported:
    """Copy a folder made by `engine train --out` and show it as a done run; the same folder twice gives the first id.

    Raises BadInput for a folder that is not one, with the file and the reason; Unavailable if it cannot be copied.
    """
    folder = Path(source)
    present = _regular_files(folder)
    spec, result = _spec(folder), _result(folder)
    key = hashlib.sha256((spec.to_json() + json.dumps(result, sort_keys=True)).encode()).hexdigest()
    first = _already(store, key)
    if first is not None:
        return Imported(first, True)
    points, table = _points(folder), _episodes(folder)
    _compare_checksums(folder, present)
    incoming = _copy(store.database.folder, folder, present)
    seconds = result["seconds"].get("total", 0.0) if isinstance(result.get("seconds"), dict) else 0.0
    summary = {name: value for name, value in result.items() if name != "spec"}
    row: dict[str, Any] = {
        "name": _name(folder),
        "state": DONE,
        "host": host(),
        "progress": 1.0,
        "started_at": now() - seconds,
        "ended_at": now(),
        "seconds": seconds,
        "summary": json.dumps(summary),
        "source": key,
    }

    def work(connection: Connection) -> int:
        run = insert_run(connection, store.database.folder, spec, row)
        if points:
            queue.write_points(connection, run, points)
        if table:
            queue.write_episodes(connection, run, table)
        incoming.rename(files.run_folder(store.database.folder, run))
        return run

    try:
        return Imported(store.database.write(work), False)
    except IntegrityError:
        first = _already(store, key)
        if first is None:
            raise
        return Imported(first, True)
    except OSError as error:
        raise Unavailable(f"{folder} could not be copied: {error.strerror or error}") from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _regular_files(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder: name one that `python -m engine train --out DIR` has made")
    present = []
    for name in KNOWN:
        try:
            mode = (folder / name).lstat().st_mode
        except FileNotFoundError:
            continue
        except OSError as error:
            raise BadInput(f"{folder / name} cannot be read: {error.strerror or error}") from None
        if not stat.S_ISREG(mode):
            raise BadInput(f"{folder / name} is not a regular file: links and the like are not imported")
        present.append(name)
    missing = [name for name in NEEDED if name not in present]
    if missing:
        raise BadInput(
            f"{folder} has no {' and no '.join(missing)}: name a folder that `python -m engine train --out DIR` has finished"
        )
    return present


def _spec(folder: Path) -> RunSpec:
    try:
        return from_json(_text(folder / "spec.json"))
    except (BadInput, TypeError) as error:
        raise BadInput(f"{folder / 'spec.json'}: {error}") from None


def _result(folder: Path) -> dict[str, Any]:
    path = folder / "result.json"
    try:
        result = json.loads(_text(path), parse_constant=lambda word: _refuse(path, f"{word} is not a number"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON: {error}" if not isinstance(error, BadInput) else str(error)) from None
    if not isinstance(result, dict):
        raise BadInput(f"{path} must be a JSON object")
    return result


def _points(folder: Path) -> dict[tuple[str, int], float]:
    path = folder / "metrics.jsonl"
    try:
        history = read_metrics(folder)
        points = {(str(name), int(step)): float(value) for name, steps in history.items() for step, value in steps.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        raise BadInput(f"{path} is not readable: every line must be a JSON object with `step` and numbers") from None
    for (name, step), value in points.items():
        if not math.isfinite(value) or len(name) > 200:
            raise BadInput(f"{path}: {name[:60]} is {value} at step {step}, it must be a number")
    return points


def _episodes(folder: Path) -> dict[str, list[float]]:
    path = folder / "episodes.csv"
    if not path.exists():
        return {}
    table: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        names = [name for name in reader.fieldnames or [] if name in ("user", *queue.EPISODE_COLUMNS)]
        if "user" not in names:
            raise BadInput(f"{path} has no column user")
        for row in reader:
            for name in names:
                try:
                    value = float(row[name] or "nan")
                except (TypeError, ValueError):
                    raise BadInput(f"{path}, line {reader.line_num}: {name} = {row[name]!r} must be a number") from None
                if name == "user" and not value.is_integer():
                    raise BadInput(f"{path}, line {reader.line_num}: user = {row[name]!r} must be a whole number")
                table.setdefault(name, []).append(value)
    users = table.get("user", [])
    if len(set(users)) < len(users):
        raise BadInput(f"{path} has a user twice: it must have one line for each user")
    return table


def _compare_checksums(folder: Path, present: list[str]) -> None:
    for name in present:
        if f"{name}.sha256" in present:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != _text(folder / f"{name}.sha256").strip():
                raise BadInput(f"{folder / name} is damaged: it does not match its .sha256")


def _copy(root: Path, folder: Path, present: list[str]) -> Path:
    incoming = root / f"{files.INCOMING}{uuid.uuid4().hex}"
    try:
        incoming.mkdir(parents=True)
        for name in present:
            # O_NOFOLLOW: the file may have become a link since it was looked at.
            with (
                os.fdopen(os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW), "rb") as old,
                (incoming / name).open("wb") as new,
            ):
                shutil.copyfileobj(old, new)
    except OSError as error:
        shutil.rmtree(incoming, ignore_errors=True)
        raise Unavailable(f"{folder} could not be copied into {root}: {error.strerror or error}") from error
    return incoming


def _already(store: Store, key: str) -> int | None:
    with store.database.read() as connection:
        return connection.execute(select(runs.c.id).where(runs.c.source == key)).scalar_one_or_none()


def _name(folder: Path) -> str:
    try:
        return legal_name(folder.resolve().name[:80])
    except BadInput:
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from None


def _refuse(path: Path, reason: str) -> float:
    raise BadInput(f"{path}: {reason}")
