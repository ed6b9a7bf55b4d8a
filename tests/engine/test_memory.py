"""Peak memory is this program's own, and falls back where /proc does not tell it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine import memory


def test_a_child_is_not_charged_with_its_parents_memory() -> None:
    if not memory.STATUS.exists():
        pytest.skip("this system has no /proc")
    child = "from engine.memory import peak_mb; print(peak_mb())"
    code = f"import subprocess, sys; x = bytearray(300 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 5 < float(told) < 200


def test_memory_held_counts_even_when_it_is_free_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = memory.peak_mb()
    held = bytearray(int(before + 64) << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    del held
    after = memory.peak_mb()
    assert after > before + 60
    monkeypatch.setattr(memory, "STATUS", tmp_path / "nothing")
    assert memory.peak_mb() >= after - 1
