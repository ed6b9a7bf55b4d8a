"""Folders beside the database: one per run, named by its id. Nothing outside RUNS_DIR is ever written or removed.

RUNS_DIR/<id>/  spec.json, result.json, run.log, checkpoints/, policy.pt, states.pt; maps.pt, maps.log where somebody asked
RUNS_DIR/cache/ what stage I has learnt, shared by runs; may be removed at any time
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from engine.options import BadInput
from runs_db.database import Unavailable

CHECKPOINTS = "checkpoints"
LOG = "run.log"
MAPS = "maps.pt"  # engine.maps.FILE, which takes torch to import
CACHE = "cache"
SET_ASIDE = "set-aside-"  # folders of an earlier database that were in the way
INCOMING = "incoming-"  # imports on their way


@dataclass(frozen=True)
class Waste:
    """Something `prune` may remove: what it is and how many bytes it takes."""

    path: Path
    why: str
    bytes: int


def run_folder(root: Path, run: int) -> Path:
    """The folder of a run, whether it exists or not. Raises BadInput if a link leads it out of RUNS_DIR."""
    folder = root / str(int(run))
    if folder.is_symlink() or not folder.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"the folder of run {run} is a link to somewhere else; remove the link {folder}")
    return folder


def make_run_folder(root: Path, run: int) -> Path:
    """The folder of a run, made if need be. Raises BadInput or Unavailable."""
    folder = run_folder(root, run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(f"the folder {folder} cannot be made: {error.strerror or error}") from error
    return folder


def set_aside(root: Path, run: int) -> None:
    """Move away what lies in the folder of a run that is new: it belongs to an earlier database. Raises Unavailable."""
    folder = root / str(int(run))
    try:
        if folder.is_symlink() or folder.exists():
            folder.rename(root / f"{SET_ASIDE}{run}-{time.time_ns()}")
    except OSError as error:
        raise Unavailable(f"the folder {folder} is in the way and cannot be moved: {error.strerror or error}") from error


def remove_run_folder(root: Path, run: int) -> None:
    """Remove the folder of a run. If it is a link, the link goes and what it points to stays. Raises Unavailable."""
    folder = root / str(int(run))
    try:
        if folder.is_symlink():
            folder.unlink()
        elif folder.exists():
            shutil.rmtree(run_folder(root, run))
    except OSError as error:
        raise Unavailable(
            f"the folder {folder} could not be removed: {error.strerror or error}; "
            "its run is deleted, `python -m runs_db prune` tries again"
        ) from error


def tail(path: Path, lines: int, most: int = 65_536) -> str:
    """The last lines of a text file, at most `most` bytes of it; empty if there is no file."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - most))
            text = file.read(most).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def whole(path: Path) -> bool:
    """Whether a file kept by `engine.checkpoint` is there and as it was written: a read of it, without torch."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == path.with_name(path.name + ".sha256").read_text()
    except OSError:
        return False


def find_waste(root: Path, known: Iterable[int], done: Iterable[int], cache_days: float) -> list[Waste]:
    """Folders of runs that no longer exist, checkpoints of done runs, and cache files unused for `cache_days`."""
    known, done = set(known), set(done)
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.is_symlink() or not path.is_dir():
            continue
        number = int(path.name) if path.name.isdigit() and str(int(path.name)) == path.name else None
        if number is not None and number not in known:
            found.append(Waste(path, "folder of a run that is not in the database", _size(path)))
        elif path.name.startswith(SET_ASIDE):
            found.append(Waste(path, "folder of a run of an earlier database", _size(path)))
        elif path.name.startswith(INCOMING) and _age(path) > 3600:
            found.append(Waste(path, "import that was interrupted", _size(path)))
        elif number in done and (path / CHECKPOINTS).is_dir() and not (path / CHECKPOINTS).is_symlink():
            found.append(Waste(path / CHECKPOINTS, f"checkpoints of run {number}, which is done", _size(path / CHECKPOINTS)))
    for path in _files(root / CACHE):
        if _age(path) > cache_days * 86_400:
            found.append(Waste(path, f"cache file unused for {cache_days:g} days", path.lstat().st_size))
    return found


def remove_waste(root: Path, waste: Iterable[Waste]) -> int:
    """Remove what `find_waste` found; the bytes freed. Raises Unavailable."""
    freed = 0
    for item in waste:
        if not item.path.resolve().is_relative_to(root.resolve()):
            raise BadInput(f"{item.path} is not inside {root}")
        try:
            shutil.rmtree(item.path) if item.path.is_dir() else item.path.unlink()
        except OSError as error:
            raise Unavailable(f"{item.path} could not be removed: {error.strerror or error}") from error
        freed += item.bytes
    return freed


def _files(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        return []
    return [Path(place) / name for place, _, names in os.walk(folder) for name in sorted(names)]


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in _files(folder))


def _age(path: Path) -> float:
    status = path.lstat()
    return time.time() - max(status.st_mtime, status.st_atime)
