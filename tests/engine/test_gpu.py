"""Runs on a GPU: only where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import catalog, run
from engine.options import Stopped
from engine.recorder import MemoryRecorder
from small import small_spec

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")


@pytest.mark.parametrize("method", list(catalog.TABLES["methods"]))
def test_a_run_on_the_gpu_is_a_run(method: str, tmp_path: Path) -> None:
    on_gpu = run.run(small_spec(method=method, purifier="diffusion", device="cuda"), MemoryRecorder(), tmp_path / "gpu").metrics
    on_cpu = run.run(small_spec(method=method, purifier="diffusion", device="cpu"), MemoryRecorder(), tmp_path / "cpu").metrics
    assert on_gpu["device"].startswith("cuda")
    assert on_gpu["len"] == pytest.approx(on_cpu["len"], rel=0.1)
    assert run.load_run(tmp_path / "gpu").play(torch.arange(20)).user_steps > 0


@pytest.mark.parametrize("purifier", list(catalog.TABLES["purifiers"]))
def test_every_purifier_serves_a_run_on_the_gpu(purifier: str, tmp_path: Path) -> None:
    reward = {}
    for device in ("cuda", "cpu"):
        spec = small_spec(method="balanced", purifier=purifier, device=device)
        reward[device] = run.run(spec, MemoryRecorder(), tmp_path / device).metrics["r_cum"]
    assert reward["cuda"] == pytest.approx(reward["cpu"], rel=0.1)


class StopsOnce(MemoryRecorder):
    """Asks to stop at the first checkpoint of the training."""

    def stop_requested(self) -> bool:
        return len(self.stages) > 0 and self.stages[-1] == "training"


@pytest.mark.parametrize("method", ["a2c", "td3", "dsrm_hrl"])
def test_a_stopped_run_goes_on_on_the_gpu(method: str, tmp_path: Path) -> None:
    spec = small_spec(method=method, device="cuda")
    with pytest.raises(Stopped):
        run.run(spec, StopsOnce(), tmp_path / "run")
    whole = run.run(spec, MemoryRecorder(), tmp_path / "run").metrics
    assert whole["episodes"] >= spec.episodes
