"""The paper's tables and figures: what it printed, which runs rebuild them here, and which of those are missing.

Nothing here touches Streamlit. Making specs imports the engine's methods and so torch; everything else does not.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import launching, results, words
from app.launching import Arm
from engine.methods import METHODS
from engine.purify import PURIFIERS
from engine.statistics import Spread, spread
from engine.studies import STUDIES
from engine.studies.tables import Cell, Column, Row, Table

if TYPE_CHECKING:
    from engine.spec import RunSpec
    from runs_db.store import Run

ROOT = Path(__file__).parents[1]
PRINTED = ROOT / "engine" / "paper"
KEPT = Path("docs") / "results"  # pages of studies, below ROOT
PAPER_SEEDS = 3  # "averaged across three random seeds"
OUTCOMES = ("len", "r_each", "r_cum", "ad")
DEVICES = ("cpu", "auto")  # runs that differ in nothing else are the same experiment here
QUICK, FULL = "quick", "full"
COLUMNS = {
    "len": Column("len", "Len", 1, 2, "steps per session"),
    "r_each": Column("r_each", "R_each", 1, 3, "mean response"),
    "r_cum": Column("r_cum", "R_cum", 1, 2, "responses per session"),
    "ad": Column("ad", "AD", -1, 3, "0 = balanced exposure"),
    "utility": Column("utility", "Utility", 1, 3, "genuine preference"),
    "seconds": Column("seconds", "Training", -1, 1, "seconds"),
    "before": Column("before", "Before it", -1, 1, "seconds of stage I"),
}


@dataclass(frozen=True)
class Exhibit:
    """A table or figure. measures: those of the runs that rebuild it, none where no runs do; printed: the name of its CSV
    file, empty where the paper gives no numbers."""

    title: str
    about: str
    measures: tuple[str, ...] = ()
    printed: str = ""

    @property
    def study(self) -> str:
        """The study that makes a page of it; empty where there is none."""
        name = self.title.lower().replace(" ", "")
        return name if name in STUDIES else ""

    @property
    def runs(self) -> bool:
        """Whether it is rebuilt from runs."""
        return bool(self.measures)


_EXHIBITS = (
    Exhibit("Table 1", "The data sets that the paper trains and tests on, and the one here."),
    Exhibit(
        "Table 2",
        "Overall performance: every method as its authors meant it, DSRM-HRL behind its diffusion purifier.",
        measures=OUTCOMES,
        printed="table2.csv",
    ),
    Exhibit(
        "Table 3",
        "The ablation: FLAT has no hierarchy, HRL no purification, + RCE, TCE and BOD other denoisers; + DSRM is the whole.",
        OUTCOMES,
        "table3.csv",
    ),
    Exhibit(
        "Table 4",
        "Seconds of training, printed for KuaiRec at Max Len 30. Another machine has other seconds; what can be compared is "
        "how many times as long as A2C a method takes.",
        measures=("seconds", "before"),
        printed="table4.csv",
    ),
    Exhibit(
        "Figure 2",
        "The paper plots items' exposures against their positive responses, finds R² > 0.85, and concludes that popularity "
        "drives reward. Both axes count exposures, so the study asks in rates too.",
    ),
    Exhibit(
        "Figure 3",
        "The paper trains one policy on raw and on purified states and reports longer sessions and a smaller AD at once, with "
        "policy and reward unchanged.",
        ("len", "r_cum", "ad", "utility"),
    ),
    Exhibit(
        "Figure 4",
        "The paper draws users' states before and after purification: by popularity before, by interest after.",
    ),
    Exhibit("Figure 5", "A drawing of the framework. Nothing in it is measured, so there is nothing to rebuild."),
    Exhibit(
        "Figure 6",
        "The paper retrains with 5 to 500 diffusion steps and finds a peak at 10 to 30 and a collapse beyond.",
        ("len", "r_cum", "ad"),
    ),
    Exhibit(
        "Figure 7",
        "Training dynamics: how long sessions are and how balanced exposure is while methods train, over three seeds at Max "
        "Len 30.",
        measures=("len", "ad"),
    ),
)
EXHIBITS = {own.title: own for own in _EXHIBITS}


@dataclass(frozen=True)
class Line:
    """A row of an exhibit. arm: None where this version has not what it needs."""

    title: str
    arm: Arm | None

    @property
    def key(self) -> str:
        """What `printed` calls it."""
        return _key(self.title)


@dataclass(frozen=True)
class Standing:
    """A row and its runs, one a seed: done, on the way, and those that are to be launched (lost: which of them failed)."""

    line: Line
    specs: tuple[RunSpec, ...]
    done: Mapping[int, Run]
    waiting: Mapping[int, Run]
    lost: Mapping[int, Run]

    @property
    def missing(self) -> list[RunSpec]:
        """What would have to be launched."""
        return [spec for spec in self.specs if spec.seed not in self.done and spec.seed not in self.waiting]

    def spread(self, measure: str) -> Spread | None:
        """Over the seeds that are done."""
        return spread([value(run, measure) for _, run in sorted(self.done.items())])


TABLE_2 = ("a2c", "td3", "bcq", "mofir", "dorl", "dnair", "sac4ir", "dsrm_hrl")
TABLE_4 = {
    "A2C": ("a2c", "identity"), "SAC4IR": ("sac4ir", "identity"), "DNaIR": ("dnair", "identity"),
    "HRL": ("dsrm_hrl", "identity"), "RCE": ("dsrm_hrl", "rce"), "DSRM-HRL": ("dsrm_hrl", "diffusion"),
}  # fmt: skip
_ALSO = {"SAC4IF": "SAC4IR", "Ours": "DSRM-HRL"}  # what the paper's tables call them, and what they are called here


def lines(exhibit: str, budget: str) -> list[Line]:
    """The rows of an exhibit that is rebuilt from runs."""
    from engine.studies import figure3, figure6, table3

    if exhibit in ("Table 2", "Figure 7"):
        found = [(words.method_title(name), _arm(name, None)) for name in TABLE_2]
    elif exhibit == "Table 3":
        found = [(row.title, _arm(row.method, row.purifier, row.settings)) for row in table3.ROWS]
    elif exhibit == "Table 4":
        found = [(title, _arm(name, purifier)) for title, (name, purifier) in TABLE_4.items()]
    elif exhibit == "Figure 3":
        pairs = [(name, purifier) for name in figure3.METHODS_COMPARED for purifier in figure3.PURIFIERS_COMPARED]
        found = [(words.label_title(f"{name} + {purifier}"), _arm(name, purifier)) for name, purifier in pairs]
    elif exhibit == "Figure 6":
        steps = sorted({*(figure6.QUICK if budget == QUICK else figure6.FULL), figure6.Diffusion().steps})
        found = [(arm.title, arm) for arm in launching.steps_sweep(steps).arms]
    else:
        found = []
    return [Line(title, arm) for title, arm in found]


def _key(title: str) -> str:
    """One name for a row, however it is written: `+RCE` is `+ RCE` is `RCE`."""
    bare = title.replace(" ", "").lstrip("+")
    return _ALSO.get(bare, bare)


def _arm(method: str, purifier: str | None, settings: launching.Settings | None = None) -> Arm | None:
    if method not in METHODS or (purifier is not None and purifier not in PURIFIERS):
        return None
    return Arm(method, purifier or launching.crossed([method], [launching.OWN])[0].purifier, settings or {})


def specs(found: Iterable[Line], dataset: str, budget: str, max_len: int, seeds: Sequence[int]) -> dict[str, list[RunSpec]]:
    """Row → its runs, one a seed: those of the studies, so that command line and app mean the same. Raises BadInput."""
    from engine.studies import ask

    asked = ask.asked("table3", dataset=dataset, budget=budget, seeds=seeds, sets=[f"world.max_len={max_len}"])
    return {
        line.title: asked.repeated(ask.Arm(line.title, line.arm.method, line.arm.purifier, line.arm.settings))
        for line in found
        if line.arm is not None
    }


def keys(wanted: Iterable[RunSpec]) -> list[str]:
    """Groups that the runs may belong to, on any device."""
    return list(dict.fromkeys(replace(spec, device=device).group() for spec in wanted for device in DEVICES))


def standings(found: Sequence[Line], wanted: Mapping[str, list[RunSpec]], runs: Sequence[Run]) -> list[Standing]:
    """What there is of each row. runs: all of `keys`, newest first; the newest that is done counts."""
    made = []
    for line in found:
        own = wanted.get(line.title, [])
        groups = set(keys(own[:1]))
        mine = [run for run in reversed(runs) if run.group_key in groups and run.seed in {spec.seed for spec in own}]
        done = {run.seed: run for run in mine if run.state == "done"}
        waiting = {run.seed: run for run in mine if run.state == "queued" or run.active}
        lost = {run.seed: run for run in mine if run.state in ("failed", "diverged", "stopped")}
        waiting = {seed: run for seed, run in waiting.items() if seed not in done}
        lost = {seed: run for seed, run in lost.items() if seed not in done and seed not in waiting}
        made.append(Standing(line, tuple(own), done, waiting, lost))
    return made


def value(run: Run, measure: str) -> float | None:
    """A number of a done run; seconds come from its stages."""
    if measure not in ("seconds", "before"):
        return results.result(run, measure)
    seconds = (run.summary or {}).get("seconds")
    parts = ("train",) if measure == "seconds" else ("pretrain", "purifier")
    if not isinstance(seconds, Mapping) or not all(isinstance(seconds.get(part), int | float) for part in parts):
        return None
    return float(sum(seconds[part] for part in parts))


def rows_of(name: str) -> list[dict[str, str]]:
    """Lines of one of the paper's files."""
    with (PRINTED / name).open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def printed(name: str, dataset: str, max_len: int) -> dict[str, dict[str, Spread]]:
    """`Line.key` → measure → mean and deviation as printed; an interval is not known."""
    found: dict[str, dict[str, Spread]] = {}
    for row in rows_of(name):
        if name == "table4.csv":
            found[_key(row["method"])] = {"seconds": Spread(float(row["seconds"]), math.nan, math.nan, math.nan, 1)}
        elif row["dataset"] == dataset and int(row["max_len"]) == max_len:
            cell = Spread(float(row["mean"]), float(row["std"]), math.nan, math.nan, PAPER_SEEDS)
            found.setdefault(_key(row["method"]), {})[row["metric"]] = cell
    return found


def table(
    exhibit: Exhibit, standing: Sequence[Standing], published: Mapping[str, Mapping[str, Spread]], caption: str, *, span: bool
) -> Table:
    """Paper and here side by side, a pair of columns for each measure. span: intervals in place of deviations, here."""
    columns: list[Column] = []
    cells: dict[str, dict[str, Cell]] = {own.line.title: {} for own in standing}
    known = [name for name in exhibit.measures if name in OUTCOMES or any(own.spread(name) for own in standing)]
    for name in known or exhibit.measures:
        base = COLUMNS[name]
        if any(name in own for own in published.values()):
            columns.append(replace(base, name=f"{name}_paper", title=f"{base.title}, paper"))
        columns.append(replace(base, name=f"{name}_here", title=f"{base.title}, here", span=span))
        for own in standing:
            cells[own.line.title][f"{name}_paper"] = published.get(own.line.key, {}).get(name)
            cells[own.line.title][f"{name}_here"] = own.spread(name)
    if "seconds" in exhibit.measures:
        columns += [Column("ratio_paper", "× A2C, paper", -1, 2), Column("ratio_here", "× A2C, here", -1, 2)]
        for side in ("paper", "here"):
            first = cells.get("A2C", {}).get(f"seconds_{side}")
            for row in cells.values():
                mine = row.get(f"seconds_{side}")
                both = isinstance(first, Spread) and isinstance(mine, Spread)
                row[f"ratio_{side}"] = mine.mean / first.mean if both else None  # type: ignore[union-attr]
    return Table(
        "",
        caption,
        "Steps" if exhibit.study == "figure6" else "Method",
        columns,
        [Row(own.line.title, cells[own.line.title]) for own in standing],
    )


def frame(found: Table, standing: Sequence[Standing]) -> list[dict[str, str]]:
    """A table as it is shown: a cell without runs says so by a dash, and how many runs there are is beside the name."""
    shown = []
    for row, own in zip(found.rows, standing, strict=True):
        there = "not in this version" if own.line.arm is None else f"{len(own.done)} of {len(own.specs)}"
        there += f", {len(own.waiting)} on the way" if own.waiting else ""
        told = {column.heading: column.text(row.cells.get(column.name)) for column in found.columns}
        shown.append({found.corner: row.title, **told, "Runs here": there})
    return shown


def dots(
    standing: Sequence[Standing], published: Mapping[str, Mapping[str, Spread]], measure: str, *, span: bool
) -> list[dict[str, Any]]:
    """row, where, mean, low, high, told, n: what charts.paper draws of one measure; rows without a value are left out."""
    rows = []
    column = COLUMNS[measure]
    for own in standing:
        for where, cell in (("paper", published.get(own.line.key, {}).get(measure)), ("here", own.spread(measure))):
            if cell is None:
                continue
            inner = span and where == "here"
            low, high = (cell.low, cell.high) if inner else (cell.mean - cell.std, cell.mean + cell.std)
            line = replace(column, span=inner)
            rows.append({"row": own.line.title, "where": where, "mean": cell.mean, "low": low, "high": high,
                         "told": line.text(cell), "n": cell.n})  # fmt: skip
    return rows


def agreement(
    standing: Sequence[Standing], published: Mapping[str, Mapping[str, Spread]], measures: Iterable[str]
) -> dict[str, tuple[int, int]]:
    """Measure → (pairs of rows in the same order in the paper's means and here, pairs that both have)."""
    found = {}
    for name in measures:
        both = [
            (published[own.line.key][name].mean, here.mean)
            for own in standing
            if name in published.get(own.line.key, {}) and (here := own.spread(name)) is not None
        ]
        pairs = list(combinations(both, 2))
        if pairs:
            found[name] = sum((a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs), len(pairs)
    return found


def named(standing: Sequence[Standing], of: Callable[[Standing], Iterable[int]]) -> str:
    """`HRL (seed 11), + RCE (seeds 11, 15 and 19)` for the rows that have any. Markdown."""
    parts = []
    for own in standing:
        seeds = list(of(own))
        if seeds:
            told = words.listed(map(str, seeds))
            parts.append(f"**{words.plain(own.line.title)}** ({'seed' if len(seeds) == 1 else 'seeds'} {told})")
    return words.listed(parts)


def command(study: str, dataset: str, budget: str, seeds: Sequence[int], max_len: int) -> str:
    """The line that makes the page of a study."""
    line = f"python -m engine study {study} --dataset {dataset} --budget {budget}"
    if tuple(seeds) != (11, 15, 19):
        line += f" --seeds {','.join(map(str, seeds))}"
    return line + (f" --set world.max_len={max_len}" if max_len != 30 and study not in ("figure2", "figure4") else "")


def kept_page(study: str, dataset: str) -> tuple[str, Path | None] | None:
    """Where the kept page of a study is, below the code's folder, and its picture; None where there is none."""
    page = KEPT / f"{study}-{dataset}.md"
    if not (ROOT / page).is_file():
        return None
    picture = (ROOT / page).with_suffix(".png")
    return str(page), picture if picture.is_file() else None
