"""The methods that the paper compares, as far as they are built, the references beside them, and what the paper printed."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine import catalog
from engine.methods import METHODS
from engine.statistics import Change, Estimate, Spread
from engine.studies import draw
from engine.studies.ask import Arm, Ask, chosen
from engine.studies.tables import listed

PAPERS = ("a2c", "td3", "bcq", "mofir", "dorl", "dnair", "sac4ir", "dsrm_hrl")  # in the order of its Table 2
REFERENCES = ("random", "popular", "greedy", "fixed_weights", "balanced", "oracle")
OURS = draw.method_title("dsrm_hrl")
ORACLE = draw.method_title("oracle")  # sees the truth
BALANCED = Arm("balanced, purified states", "balanced", "diffusion")  # no learning from sessions, and hard to beat
MEASURES = ("len", "r_each", "r_cum", "ad")  # the paper's
FOLDER = Path(__file__).parents[1] / "paper"

Found = Mapping[str, Mapping[str, Mapping[int, float | None]]]  # row → measure → seed → value


def missing() -> list[str]:
    """Titles of the paper's methods that are not built."""
    return [draw.method_title(name) for name in PAPERS if name not in METHODS]


def told_missing() -> list[str]:
    """A sentence that names them, where there are any."""
    names = missing()
    return [f"Not built yet, and so not compared: {listed(names)}."] if names else []


def learner(name: str) -> bool:
    """Whether a method learns from sessions or logs; the others are references."""
    return bool(catalog.find("methods", name).LEARNS)


def arms(methods: str | None, *, references: bool = True) -> list[Arm]:
    """Each method behind its own default purifier, learners first, then references. methods: names with commas; none: the
    paper's methods that are built, and with `references` those too. Raises BadInput."""
    default = (*PAPERS, *(REFERENCES if references else ()))
    names = chosen(methods, default, METHODS, "study.methods")
    made = []
    for name in sorted(names, key=lambda name: not learner(name)):
        made.append(Arm(draw.method_title(name), name, catalog.default_purifier(name)))
        if name == BALANCED.method:
            made[-1] = replace(made[-1], title="balanced, raw states")
            made.append(BALANCED)
    return made


def found(ask: Ask, arms: list[Arm], runs: Mapping[str, Any], measures: tuple[str, ...]) -> Found:
    """Every arm's results."""
    return {arm.title: {name: ask.by_seed(arm, runs, name) for name in measures} for arm in arms}


def best(means: Mapping[str, float | None], better: int) -> str | None:
    """The title with the best mean."""
    known = {title: mean for title, mean in means.items() if mean is not None}
    return max(known, key=lambda title: better * known[title]) if known else None


def estimate(found: Change | None) -> Estimate | None:
    """A change as a cell of a table."""
    return None if found is None else Estimate(found.mean, found.low, found.high, found.n)


def rows(name: str) -> Iterator[dict[str, str]]:
    """The lines of engine/paper/NAME.csv."""
    with (FOLDER / f"{name}.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


@lru_cache(1)
def printed() -> dict[tuple[str, int], dict[str, dict[str, Spread]]]:
    """(dataset, Max Len) → method → measure → the paper's mean and deviation of 3 seeds; an interval is not known."""
    table: dict[tuple[str, int], dict[str, dict[str, Spread]]] = {}
    for line in rows("table2"):
        own = table.setdefault((line["dataset"], int(line["max_len"])), {}).setdefault(line["method"], {})
        own[line["metric"]] = Spread(float(line["mean"]), float(line["std"]), float("nan"), float("nan"), 3)
    return table
