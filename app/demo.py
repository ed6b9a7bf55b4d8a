"""The demonstration on Home: three runs on one small synthetic platform, chosen to be over within a minute on two cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runs_db.models import DONE, FINISHED
from runs_db.store import Run, Store

TAG = "demo"
SEEDS = (11, 15, 19, 23, 29, 31, 37, 41)
SIZES: dict[str, Any] = {"users": 300, "train_users": 1500, "items": 800, "log_length": 60}
# The slowest first, so that the two others share the second slot. On so small a platform a smaller denoiser does as well.
EPISODES = 3000
ARMS: tuple[tuple[str, int, dict[str, dict[str, Any]]], ...] = (
    ("dsrm_hrl", EPISODES, {"purifier": {"training_steps": 600, "parts": 20_000, "hidden": 64}}),
    ("a2c", EPISODES, {}),
    ("balanced", 0, {}),
)


def specs(seed: int) -> list[Any]:
    """The three RunSpecs. Imports torch."""
    from engine.spec import make

    return [
        make(method=method, seed=seed, episodes=episodes, device="cpu", threads=1, settings={"dataset": SIZES, **more})
        for method, episodes, more in ARMS
    ]


def newest(store: Store) -> list[Run]:
    """The runs of the newest demonstration, in the order of ARMS; empty if there was none."""
    found = store.runs(tags=[TAG], sort="-id", limit=len(ARMS))
    return sorted((run for run in found if run.name == found[0].name), key=lambda run: run.id)


def start(store: Store) -> list[int]:
    """Queue a demonstration with the next seed; the ids of its runs."""
    last = newest(store)
    seed = SEEDS[(SEEDS.index(last[0].seed) + 1) % len(SEEDS)] if last and last[0].seed in SEEDS else SEEDS[0]
    return store.enqueue_all(specs(seed), name=f"Demo, seed {seed}", tags=[TAG])


# Where the stages of these runs begin and end, for a bar that moves from the first second on: nothing has been measured yet.
_STAGES = {
    "item vectors, observed": (0.05, 0.15),
    "item vectors, disentangled": (0.15, 0.25),
    "parts of histories": (0.25, 0.3),
    "diffusion": (0.3, 0.5),
    "training": (0.5, 0.97),
    "evaluation": (0.97, 1.0),
}


def progress(run: Run) -> float:
    """How far a run of the demonstration is, 0 to 1."""
    if run.state in FINISHED or not run.active:
        return 1.0 if run.state == DONE else 0.0
    low, high = _STAGES.get(run.stage, (0.0, 0.05))
    part = (run.stage_done or 0.0) / run.stage_total if run.stage_total else 0.0
    return max(run.progress or 0.0, low + (high - low) * min(part, 1.0))


def busy(runs: Sequence[Run]) -> bool:
    """Whether a demonstration is under way."""
    return any(run.active or run.state == "queued" for run in runs)
