"""Getting files that datasets need: over HTTP, or out of a published wheel through the user's own package index."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from engine.checkpoint import write_whole
from engine.options import BadInput

Say = Callable[[str], None]


def data_folder() -> Path:
    """DATA_DIR, default `data/`."""
    return Path(os.environ.get("DATA_DIR", "data"))


def get(url: str, *, limit: int, timeout: float = 20.0) -> bytes:
    """The content of `url`. Raises OSError where it does not answer, BadInput where there is more than `limit` bytes."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        content: bytes = answer.read(limit + 1)
    if len(content) > limit:
        raise BadInput(f"{url} sent more than {limit} bytes")
    return content


def wheel(requirement: str, timeout: float = 120.0) -> bytes:
    """The wheel of `name==version`, as a zip's bytes; nothing is installed. Raises BadInput."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", "--dest", folder, requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise BadInput(f"no answer within {timeout:.0f} s") from None
        files = list(Path(folder).glob("*.whl"))
        if done.returncode or not files:
            last = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise BadInput(last[:200])
        return files[0].read_bytes()


def archive(url: str, path: Path, say: Say, md5: str | None = None, timeout: float = 30.0) -> str:
    """Get a large file to `path` and return its SHA-256; what an interrupted attempt left in `path`.part is gone on with.

    Tells `say` about once a second how far it is and how long it will take. Raises OSError where the server does not answer
    or breaks off (what came is kept), BadInput where what came is not the published file (it is removed).
    """
    part, mark = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        _continue(url, part, mark, say, timeout)
    held = path if path.is_file() else part
    sums = {"sha256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with held.open("rb") as file:
        while block := file.read(1 << 20):
            for own in sums.values():
                own.update(block)
    mark.unlink(missing_ok=True)
    if md5 is not None and sums["md5"].hexdigest() != md5:
        held.unlink()
        raise BadInput(
            f"{path.name} came with MD5 {sums['md5'].hexdigest()} and must have {md5}: it was removed, fetch it again"
        )
    if held is part:
        os.replace(part, path)
    return sums["sha256"].hexdigest()


def _continue(url: str, part: Path, mark: Path, say: Say, timeout: float) -> None:
    """Append to `part` what it lacks, by an HTTP range; from the start where the server knows no ranges or another file."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": "fairstate"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if mark.is_file():
            headers["If-Range"] = mark.read_text()
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if (error.headers.get("Content-Range") or "").rpartition("/")[2] != str(have):
            part.unlink()
            _continue(url, part, mark, say, timeout)
        return  # all of it had come
    with answer:
        resumed = answer.status == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if tag := answer.headers.get("ETag"):
            write_whole(mark, tag.encode())
        if resumed:
            say(f"going on after {have / 1e6:.0f} MB")
        began = told = time.monotonic()
        start = have
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(1 << 18):
                file.write(block)
                have += len(block)
                now = time.monotonic()
                if now - told >= 1:
                    told = now
                    say(_progress(have, total, (have - start) / (now - began)))
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes; the same command goes on from there")
    say(_progress(have, total, None))


def _progress(have: int, total: int | None, speed: float | None) -> str:
    text = f"{have / 1e6:.0f}" + (f" of {total / 1e6:.0f} MB ({100 * have / max(total, 1):.0f} %)" if total else " MB")
    if speed and total:
        text += f", {speed / 1e6:.1f} MB/s, {max(total - have, 0) / speed:.0f} s left"
    return text
