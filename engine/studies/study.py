"""A study from beginning to end: its runs, what it measures, and the page, picture and tables that it leaves."""

from __future__ import annotations

import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine import catalog, checkpoint
from engine.options import Stopped
from engine.statistics import Estimate, Spread
from engine.studies import draw, running, tables
from engine.studies.ask import Ask, Report, Runs
from engine.studies.tables import Table

Say = Callable[[str], None]


@dataclass(frozen=True)
class Page:
    """What the page says of how it was made. commits: the code's commit → runs that it finished."""

    command: str
    commit: str
    commits: Mapping[str, int]
    seconds: float


def run_study(ask: Ask, jobs: int, out: Path, command: str, say: Say) -> dict[str, Any]:
    """Does what is asked and writes the files; the JSON object of docs/cli.md. Raises BadInput, RunFailed or Stopped."""
    specs = ask.module.specs(ask)
    runs: Runs = {}
    torch.set_num_threads(1)
    try:
        with _interruptible():
            runs = running.complete(specs, jobs, lambda text: say(f"{ask.study}: {text}"))
            measured = ask.module.measure(ask, runs, _telling(say, ask.study))
    except KeyboardInterrupt:
        raise Stopped("what is finished is kept; the same command goes on from there") from None
    report = ask.module.read(ask, runs, measured)
    commits = Counter(run.commit for run in runs.values())
    page = Page(command, running.commit(), commits, sum(float(run.metrics["seconds"]["total"]) for run in runs.values()))
    files = write(ask, report, page, out)
    return {
        "study": ask.study,
        "dataset": ask.dataset,
        "budget": ask.budget,
        "seeds": list(ask.seeds),
        "runs": len(runs),
        "commit": page.commit,
        "findings": list(report.findings),
        "tables": {table.name or ask.study: _values(table) for table in report.tables},
        "files": [str(file) for file in files],
    }


def write(ask: Ask, report: Report, page: Page, out: Path) -> list[Path]:
    """The page (.md), the picture (.png, .html), and each table (.csv, .tex) in folder `out`."""
    stem = f"{ask.study}-{_name(ask.dataset)}"
    content = {
        f"{stem}.md": markdown(ask, report, page, stem).encode(),
        f"{stem}.png": draw.png(report.chart),
        f"{stem}.html": draw.html(report.chart).encode(),
    }
    for table in report.tables:
        own = f"{stem}-{table.name}" if table.name else stem
        content |= {f"{own}.csv": tables.csv_text(table).encode(), f"{own}.tex": tables.latex(table).encode()}
    for name, text in content.items():
        checkpoint.write_whole(out / name, text)
    return [out / name for name in content]


def markdown(ask: Ask, report: Report, page: Page, stem: str) -> str:
    """The page."""
    others = {made_by: count for made_by, count in page.commits.items() if made_by != page.commit}
    told = [f"{count} at `{made_by}`" for made_by, count in sorted(others.items())]
    count = sum(page.commits.values())
    sessions = f"{ask.episodes:,} training sessions and at most {ask.evaluation_episodes:,} test users a run"
    facts = {
        "Dataset": f"`{Path(ask.dataset).name if catalog.is_path(ask.dataset) else ask.dataset}`",
        "Command": f"`{page.command}`",
        "Commit": f"`{page.commit}`" + (f"; runs: {tables.listed(told)}" if told else ""),
        "Seeds": ", ".join(map(str, ask.seeds)),
        "Budget": f"{ask.budget}: {sessions}" if count else ask.budget,
        "Runs": f"{count} ({_time(page.seconds)} of one core)" if count else "none",
    }
    parts = [
        f"# {ask.module.TITLE}: {facts['Dataset'].strip('`')}",
        ask.module.QUESTION,
        "| | |\n|---|---|\n" + "\n".join(f"| {name} | {value} |" for name, value in facts.items()),
        "## What it says",
        "\n".join(f"- {sentence}" for sentence in report.findings),
        f"![{report.alt}]({stem}.png)",
        f"The command also writes the chart with values under the pointer, `{stem}.html`, too large for the repository.",
    ]
    for table in report.tables:
        own = f"{stem}-{table.name}" if table.name else stem
        parts += [f"## {table.caption}", tables.markdown(table), f"[CSV]({own}.csv) · [LaTeX]({own}.tex)"]
    parts += [*filter(None, report.notes), "Every number and sentence above is worked out by the command; edits would be lost."]
    return "\n\n".join(parts) + "\n"


def _telling(say: Say, study: str) -> Any:
    def kept(what: str, key: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        def told() -> Any:
            say(f"{study}: measuring {what}{''.join(f', {name} {value}' for name, value in key.items() if _short(value))}")
            return make()

        return running.kept(what, key, told)

    return kept


def _short(value: Any) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and len(value) < 30)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM as Ctrl-C, where this thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _name(dataset: str) -> str:
    """A dataset in a file's name."""
    return re.sub(r"[^\w.-]+", "-", Path(dataset).stem if catalog.is_path(dataset) else dataset)


def _values(table: Table) -> dict[str, dict[str, Any]]:
    def plain(cell: Any) -> Any:
        return asdict(cell) if isinstance(cell, Spread | Estimate) else cell

    return {row.title: {column.name: plain(row.cells.get(column.name)) for column in table.columns} for row in table.rows}


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
