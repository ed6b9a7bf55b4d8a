"""Datasets as the Data view meets them: read once, kept for all visitors, and logs that visitors bring."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st

from app import state, words
from app.charts import dataset as charts
from engine import catalog
from engine.data.own import Kept
from engine.data.table import Checked
from engine.options import BadInput
from runs_db.models import DONE

if TYPE_CHECKING:
    from engine.overview import Overview

RECENT = 50  # finished runs that are asked for their worlds
Stamp = tuple[tuple[str, int, int], ...]  # (file, size, time) of what a dataset was read from


@dataclass(frozen=True)
class Told:
    """How well the fitted worlds predict: part → fidelity, and where that was found."""

    parts: Mapping[str, Mapping[str, Any]]
    source: str


def overview(dataset: str, options: Mapping[str, Any]) -> Overview:
    """The numbers of a dataset. Raises BadInput where it cannot be used."""
    return _overview(dataset, json.dumps(options, sort_keys=True), _stamp(dataset), os.environ.get("DATA_DIR", ""))


@st.cache_data(max_entries=8, show_spinner="Reading the dataset …")
def _overview(dataset: str, options: str, stamp: Stamp, folder: str) -> Overview:
    from engine import overview as counting

    module = catalog.find("datasets", dataset)
    values = json.loads(options)
    if catalog.is_path(dataset):
        values["path"] = dataset
    try:
        return counting.overview(module.load(module.Config(**values)))
    except MemoryError:
        raise BadInput(f"dataset {dataset!r} does not fit into this machine's memory") from None


def check(path: str, threshold: float | None) -> Checked:
    """What is wrong with a log that lies on this machine. Raises BadInput where it cannot be looked at."""
    return _check(path, threshold, _stamp(path))


@st.cache_data(max_entries=8, show_spinner="Checking the log …")
def _check(path: str, threshold: float | None, stamp: Stamp) -> Checked:
    from engine.data import table

    return table.check(table.Config(path=path, threshold=threshold))


def keep(name: str, log: bytes, items: bytes | None, threshold: float | None) -> Kept:
    """An uploaded log, checked, and kept where nothing is wrong. Raises BadInput."""
    folder = os.environ.get("DATA_DIR", "")
    kept = _keep(name, log, items, threshold, folder)
    if kept.path is not None and not kept.path.is_file():  # removed since
        _keep.clear()
        kept = _keep(name, log, items, threshold, folder)
    return kept


@st.cache_data(max_entries=4, show_spinner="Checking the log …")
def _keep(name: str, log: bytes, items: bytes | None, threshold: float | None, folder: str) -> Kept:
    from engine.data import own

    return own.keep(name, log, items, threshold)


def _stamp(dataset: str) -> Stamp:
    """Changes when a file that a dataset is read from does."""
    if not catalog.is_path(dataset):
        return ()
    path = Path(dataset)
    files = [file for file in (path, path.with_name("items.csv")) if file.is_file()]
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def fidelity(dataset: str, options: Mapping[str, Any], found: Overview) -> Told | None:
    """How far the worlds of a dataset can be trusted, if a command or a run has found out; nothing is fitted for it."""
    from engine import candidates, run

    known = candidates.known(found.fingerprint, len(found.head), int(found.head.sum()))
    kept = {} if known is None else run.kept_fidelity(known)
    if len(kept) == len(run.PARTS):
        return Told(kept, "")
    runs = state.store().runs(states=[DONE], datasets=[dataset], limit=RECENT)
    with_world = {own.id: own for own in runs if any(((own.summary or {}).get("world") or {}).values())}
    wanted = {**asdict(catalog.find("datasets", dataset).Config(**options)), "path": None}
    specs = state.store().specs(with_world)
    for number, spec in specs.items():
        if {**spec.settings["dataset"], "path": None} == wanted:
            world = (with_world[number].summary or {})["world"]
            told = {part: own for part, own in world.items() if own}
            return Told({**told, **kept}, "" if set(told) <= set(kept) else f"run {number}")
    return Told(kept, "") if kept else None


def items_frame(found: Overview) -> pd.DataFrame:
    """Items that were shown: title, exposures, plays, rate, kind."""
    met = found.exposures > 0
    titles = np.array(found.titles, dtype=object)[met]
    return pd.DataFrame(
        {
            "title": [str(title)[:80] for title in titles],
            "exposures": found.exposures[met],
            "plays": found.plays[met],
            "rate": found.rate[met],
            "kind": np.where(found.head[met], "head", "tail"),
        }
    )


def line(frame: pd.DataFrame, column: str) -> tuple[float, float]:
    """(a, b) of the least-squares line column = a + b·exposures."""
    x, y = frame["exposures"].to_numpy(), frame[column].to_numpy()
    spread = float(((x - x.mean()) ** 2).sum())
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread else 0.0
    return float(y.mean() - slope * x.mean()), slope


def calibration_frame(told: Told) -> pd.DataFrame:
    """part, predicted, observed, low, high, rows: a row for each tenth of the held-out rows. Of runs from before there were
    intervals, low and high are the observed rate itself."""
    rows = []
    for part, own in _parts(told):
        for found in own["calibration"]:
            if not isinstance(found, Mapping):
                predicted, observed, share = found
                found = {"predicted": predicted, "observed": observed, "low": observed, "high": observed}
                found["rows"] = round(share * own["held_out"])
            rows.append({"part": part, **found})
    return pd.DataFrame(rows, columns=["part", "predicted", "observed", "low", "high", "rows"])


def popularity_frame(told: Told) -> pd.DataFrame:
    """part, popularity, predicted, observed, low, high, rows, items: a row for each tenth of the held-out rows, by the item's
    training exposures. No rows where nobody has measured it."""
    rows = [{"part": part, **found} for part, own in _parts(told) for found in own.get("popularity") or ()]
    return pd.DataFrame(rows, columns=["part", "popularity", "predicted", "observed", "low", "high", "rows", "items"])


def truth_frame(told: Told) -> pd.DataFrame:
    """part, popularity, predicted, observed: pairs drawn from all users and items, where the truth is known."""
    rows = [{"part": part, **found} for part, own in _parts(told) for found in (own.get("truth") or {}).get("popularity", ())]
    return pd.DataFrame(rows, columns=["part", "popularity", "predicted", "observed"])


def shares_frame(told: Told) -> pd.DataFrame:
    """part, low, high, real, simulated: how many of the users have which share of head items among their positives."""
    rows = [{"part": part, **found} for part, own in _parts(told) for found in (own.get("users") or {}).get("bins", ())]
    return pd.DataFrame(rows, columns=["part", "low", "high", "real", "simulated"])


def leaning(told: Told) -> list[str]:
    """A sentence for each world on how its answers to popular and rare items compare with the log's. Markdown."""
    found = []
    for part, own in _parts(told):
        heads = own.get("heads") or {}
        if {"head", "tail"} <= set(heads):
            head, tail = heads["head"], heads["tail"]
            gap, real = head["predicted"] - tail["predicted"], head["observed"] - tail["observed"]
            told_apart = [kind for kind, row in heads.items() if not row["low"] <= row["predicted"] <= row["high"]]
            chance = (
                f"more than chance for {words.listed(f'{kind} items' for kind in told_apart)}"
                if told_apart
                else "within chance"
            )
            found.append(
                f"The {part} world answers head items with {head['predicted']:.3f} (log {head['observed']:.3f}) and tail items "
                f"with {tail['predicted']:.3f} ({tail['observed']:.3f}): a gap of {gap:.3f} for {real:.3f}, {chance}."
            )
    return found


def _parts(told: Told) -> list[tuple[str, Mapping[str, Any]]]:
    return [(part, told.parts[part]) for part in charts.PARTS if part in told.parts]


def problem_rows(checked: Checked) -> pd.DataFrame:
    """The problems of a log, one a row."""
    rows = [(found.where, found.column or "–", found.value or "–", found.legal) for found in checked.problems]
    return pd.DataFrame(rows, columns=["Where", "Column", "What is there", "What it must be"])


def understood(checked: Checked) -> str:
    """A sentence about what a check found. Markdown."""
    parts = [words.count(checked.rows, "row"), words.count(checked.users, "user"), words.count(checked.items, "item")]
    text = f"{words.listed(parts)}. Columns used: {words.plain(', '.join(checked.used))}."
    if checked.ignored:
        several = f" and {len(checked.ignored) - 6} more" if len(checked.ignored) > 6 else ""
        text += f" Ignored: {words.plain(', '.join(name[:40] for name in checked.ignored[:6]))}{several}."
    return text + (" Titles and tags come from items\\.csv." if checked.described else "")
