"""Studies: name → module. A module has `Config`, `TITLE`, `QUESTION`, `specs(ask)`, `measure(ask, runs, kept)` and
`read(ask, runs, measured)` (engine/studies/ask.py says what these are)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.spec import RunSpec

STUDIES = {
    "figure2": "engine.studies.figure2",
    "figure3": "engine.studies.figure3",
    "figure4": "engine.studies.figure4",
    "figure6": "engine.studies.figure6",
    "figure7": "engine.studies.figure7",
    "pareto": "engine.studies.pareto",
    "sensitivity": "engine.studies.sensitivity",
    "table2": "engine.studies.table2",
    "table3": "engine.studies.table3",
    "table4": "engine.studies.table4",
}


def specs(
    name: str,
    *,
    dataset: str = "synthetic",
    budget: str = "quick",
    seeds: Sequence[int] | None = None,
    sets: Sequence[str] = (),
) -> list[RunSpec]:
    """The runs of a study; some studies have none. `sets`: texts such as `world.max_len=50`. Raises BadInput."""
    from engine.studies.ask import asked

    ask = asked(name, dataset=dataset, budget=budget, seeds=seeds, sets=sets)
    return ask.module.specs(ask)
