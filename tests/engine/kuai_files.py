"""Small files in the schemas of KuaiRec and KuaiRand-Pure, ways to spoil them, and runs on them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from benchmarks.kuai import Sizes
from engine import catalog, run
from engine.contracts import Data, Dataset, Items
from engine.recorder import MemoryRecorder
from engine.spec import RunSpec, make

REC = Sizes(80, 120, 2600, 30, 60, 1750, 150, 12)
RAND = Sizes(90, 130, 2500, 100, 140, 1600, 40, 3)
VIDEO_FEATURES = "video_features_basic_pure.csv"


def copied(files: Path, folder: Path) -> Path:
    shutil.copytree(files, folder / "files")
    return folder / "files"


def edited(file: Path, line: int, text: str | None) -> None:
    """Put `text` in place of a line, counted from 1 with the header, or take it out."""
    lines = file.read_text().splitlines()
    lines[line - 1 : line] = [] if text is None else [text]
    file.write_text("\n".join(lines) + "\n")


def added(file: Path, *lines: str) -> None:
    file.write_text(file.read_text() + "".join(line + "\n" for line in lines))


def small_log(user: list[int], item: list[int], reward: list[float], absent: list[int] | None = None) -> Dataset:
    nothing = torch.zeros(4, dtype=torch.int64)
    gone = None if absent is None else torch.tensor(absent)
    items = Items(nothing, nothing.bool(), torch.zeros(4, 1).bool(), nothing, ("a", "none"), ("",) * 4, gone)
    return Dataset(torch.tensor(user), torch.tensor(item), torch.tensor(reward), torch.arange(len(user)), None, 2, items)


def tiny(name: str, method: str, files: Path, **changes: Any) -> RunSpec:
    settings = {
        "dataset": {"path": str(files)}, "world": {"slate": 5, "max_len": 8}, "state": {"width": 6, "history": 60, "epochs": 2},
        **changes.pop("settings", {}),
    }  # fmt: skip
    if method not in ("random", "popular", "greedy", "balanced", "oracle", "fixed_weights"):
        settings.setdefault("method", {"users": 40})
    return make(**{"dataset": name, "method": method, "purifier": "identity", "episodes": 60, "evaluation_episodes": 30,
                   "device": "cpu", "settings": settings, **changes})  # fmt: skip


class Trial:
    """A run's parts, trained for a moment."""

    def __init__(self, spec: RunSpec, data: Data) -> None:
        from engine.contracts import Budget
        from engine.state.stage import Stage

        self.spec, self.data, self.budget = spec, data, Budget(40)
        self.view = run.purify(spec, Stage(data, spec.config("state"), spec.seed))
        self.train, self.test = (run.make_world(spec, data, part)[0] for part in run.PARTS)

    def policy(self) -> Any:
        module = catalog.find("methods", self.spec.method)
        generator = torch.Generator().manual_seed(1)
        config = self.spec.config("method")
        return module.train(self.train, self.view, self.data.train, config, self.budget, MemoryRecorder(), generator)
