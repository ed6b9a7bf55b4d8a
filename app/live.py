"""Bounded caches of what live views load and play, shared by all visitors. Everything is keyed by the run's own files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from app import state
from app.replay import Crowd, Session, Theatre
from app.spaces import Spaces
from engine.options import BadInput
from runs_db.files import MAPS
from runs_db.store import Run

Key = tuple[str, int, int]  # folder, time of its policy, threads


def key(run: Run) -> Key:
    """What names a finished run's files. Raises BadInput where it has none."""
    folder = state.store().folder(run.id)
    try:
        return str(folder), (folder / "policy.pt").stat().st_mtime_ns, run.threads
    except OSError:
        raise BadInput(f"run {run.id} has kept no policy, so its sessions cannot be played: clone it to run it again") from None


@st.cache_resource(max_entries=4, show_spinner="Loading the run …")
def theatre(run: Key) -> Theatre:
    """A loaded run; the four used last are kept. Raises BadInput for files that this version cannot read."""
    try:
        return Theatre(Path(run[0]), run[2])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        number = Path(run[0]).name
        raise BadInput(
            f"run {number} was made by another version of the code, which cannot load its policy: clone it to run it again"
        ) from error


@st.cache_data(max_entries=256, show_spinner=False)
def session(run: Key, user: int, lam: float | None, steps: int | None) -> Session:
    """One session, played once."""
    return theatre(run).session(user, lam, steps)


@st.cache_data(max_entries=16, show_spinner="Asking other users …")
def crowd(run: Key) -> Crowd:
    """The users around on the map."""
    return theatre(run).crowd()


@st.cache_data(max_entries=64, show_spinner="Playing sessions with some hundred users …")
def outcomes(run: Key, lam: float | None, steps: int | None) -> pd.DataFrame:
    """How the sessions of the crowd end."""
    return theatre(run).outcomes(lam, steps)


@st.cache_data(max_entries=1024, show_spinner=False)
def measured(run: Key, lam: float | None, steps: int | None) -> dict[str, float]:
    """The measures of a run over the crowd, at another λ or number of steps."""
    return theatre(run).measured(lam, steps)


@st.cache_resource(max_entries=8, show_spinner="Looking at the users …")
def spaces(run: Key, count: int) -> Spaces:
    """Where the users of a run stand."""
    return Spaces(theatre(run), count)


Maps = tuple[np.ndarray, dict[str, dict[str, np.ndarray]]]  # users, kind → space → (n,2)


def maps(run: Key) -> Maps | None:
    """The maps that a worker has drawn of a run; None where there are none."""
    path = Path(run[0]) / MAPS
    try:
        return _maps(str(path), path.stat().st_mtime_ns)
    except OSError:
        return None


@st.cache_data(max_entries=16, show_spinner=False)
def _maps(path: str, written: int) -> Maps | None:
    from engine import maps

    kept = maps.read(Path(path).parent)
    if kept is None:
        return None
    users, drawn = kept
    return users.numpy(), {kind: {space: xy.numpy() for space, xy in own.items()} for kind, own in drawn.items()}
