"""Files that survive a crash: written whole or not at all, two kept, each with its SHA-256; no pickle is ever loaded."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch

KEPT = 2


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves either the old content or the new: temporary name, fsync, replace, fsync folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_tensors(path: Path, state: dict[str, Any]) -> None:
    """Keep nested dicts and lists of tensors, numbers and text, with a `.sha256` beside the file."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    write_whole(path.with_name(path.name + ".sha256"), hashlib.sha256(content).hexdigest().encode())
    write_whole(path, content)


def read_tensors(path: Path) -> dict[str, Any] | None:
    """What `write_tensors` kept, or None if the file is absent or not whole."""
    try:
        content = path.read_bytes()
        digest = path.with_name(path.name + ".sha256").read_text()
    except OSError:
        return None
    if hashlib.sha256(content).hexdigest() != digest:
        return None
    return torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Add a checkpoint to a folder and drop all but the newest two."""
    numbers = _numbers(folder)
    path = folder / f"{(numbers[-1] if numbers else 0) + 1:06d}.pt"
    write_tensors(path, state)
    for number in numbers[: 1 - KEPT]:
        for name in (f"{number:06d}.pt", f"{number:06d}.pt.sha256"):
            (folder / name).unlink(missing_ok=True)
    return path


def newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that is whole, or None; a damaged one falls back to the one before."""
    for number in reversed(_numbers(folder)):
        state = read_tensors(folder / f"{number:06d}.pt")
        if state is not None:
            return state
    return None


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("*.pt") if path.stem.isdigit())
