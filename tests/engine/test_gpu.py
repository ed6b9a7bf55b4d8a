"""A run on a GPU: only where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import run
from engine.recorder import MemoryRecorder
from small import small_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")


@pytest.mark.parametrize("method", ["a2c", "dsrm_hrl", "balanced", "oracle", "random"])
def test_a_run_on_the_gpu_is_a_run(method: str, tmp_path: Path) -> None:
    on_gpu = run.run(small_spec(method=method, purifier="diffusion", device="cuda"), MemoryRecorder(), tmp_path / "gpu").metrics
    on_cpu = run.run(small_spec(method=method, purifier="diffusion", device="cpu"), MemoryRecorder(), tmp_path / "cpu").metrics
    assert on_gpu["device"].startswith("cuda")
    assert on_gpu["len"] == pytest.approx(on_cpu["len"], rel=0.1)
    assert run.load_run(tmp_path / "gpu").play(torch.arange(20)).user_steps > 0
