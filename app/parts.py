"""Pieces of views that several of them show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app import launching, state, words
from app.charts import compare
from app.charts.style import legend, style
from app.measures import MEASURES
from app.results import Group
from engine import catalog
from engine.data import FETCHED

if TYPE_CHECKING:
    from engine.spec import RunSpec


def comparison(groups: Sequence[Group], measures: Sequence[str], key: str) -> None:
    """One small panel of bars for each measure that any of the groups has, under one legend."""
    of = style([group.name for group in groups], [g.first.method for g in groups], [g.first.purifier for g in groups])
    st.altair_chart(legend(of), width="stretch")
    found = {name: [(group.name, own) for group in groups if (own := group.spread(name)) is not None] for name in measures}
    shown = {name: rows for name, rows in found.items() if rows}
    if not shown:
        return
    grid = st.grid(len(shown), min_column_width=150)
    for name, rows in shown.items():
        frame = pd.DataFrame([{"series": title, "mean": own.mean, "std": own.std, "n": own.n} for title, own in rows])
        chart = compare.bars(frame, MEASURES[name], of)
        grid.altair_chart(chart, width="stretch", key=f"{key}_{name}", alt=MEASURES[name].axis)


def absent(dataset: str) -> bool:
    """Whether the files of a dataset are not on this machine; says how to get them if so. Nothing is fetched by looking."""
    if dataset not in FETCHED:
        return False
    from engine.data import fetch  # brings torch, which no view should wait for

    module, folder = catalog.find("datasets", dataset), fetch.data_folder() / dataset
    if module.present(folder):
        return False
    title = words.plain(words.dataset_title(dataset))
    st.info(
        f"{title} is not on this machine yet. This gets it ({module.SIZE}, checked by its content); then reload the page:",
        icon=":material/download:",
    )
    st.code(f"python -m engine data fetch {dataset}", language="bash")
    st.caption(words.plain(f"Where this machine is offline: {module.MANUAL} {folder}."))
    return True


def expectation(made: Sequence[RunSpec], seconds: Mapping[str, float | None]) -> str:
    """How long runs will take over the slots of this machine's workers, in words. seconds: group → of one run."""
    found = launching.expected(made, seconds)
    if not made or (found.unknown and not found.seconds):
        return "–" if not made else "unknown"
    slots = sum(worker.slots for worker in state.store().workers()) or 1
    whole = words.duration(found.seconds / min(slots, len(made)))
    return f"over {whole}" if found.unknown else whole
