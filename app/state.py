"""What every view needs: the store, parts that follow what is running, links, and errors in words."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import streamlit as st

from app import words
from engine.options import BadInput
from runs_db.database import Unavailable
from runs_db.models import ACTIVE, QUEUED
from runs_db.store import Store

T = TypeVar("T")
PACE, SLOW = 2.0, 5.0  # seconds between two looks: while something runs or is about to, and while no worker will start it


def store() -> Store:
    """The database named by the environment. Raises BadInput where it must be made or migrated first."""
    return _open(os.environ.get("RUNS_DB_URL", ""), os.environ.get("RUNS_DIR", ""))


@st.cache_resource(show_spinner=False, max_entries=4)
def _open(url: str, folder: str) -> Store:
    return Store(url or None, folder or None, busy=5.0)  # a page says that the database is locked rather than hang


def pace() -> float | None:
    """Seconds after which a page should look again; None when nothing is queued or running."""
    counts = store().counts()
    if any(counts[name] for name in ACTIVE):
        return PACE
    if not counts[QUEUED]:
        return None
    return PACE if store().workers() else SLOW


def live(show: Callable[[], None]) -> None:
    """Draw `show`, and draw it again every few seconds for as long as anything is queued or running."""

    @st.fragment(run_every=pace())
    def part() -> None:
        with told():
            show()

    part()


@contextmanager
def told() -> Iterator[None]:
    """Errors that a person can mend are told in their own sentence; the rest of the page goes on."""
    try:
        yield
    except BadInput as error:
        st.error(words.plain(str(error)), icon=":material/error:")
    except Unavailable as error:
        st.warning(f"{words.plain(str(error))}. The page tries again by itself, or reload it.", icon=":material/cloud_off:")


def badge() -> None:
    """How many runs are running and queued, kept up to date while there are any. Draw it in the sidebar."""

    def show() -> None:
        counts = store().counts()
        running, queued = sum(counts[name] for name in ACTIVE), counts[QUEUED]
        if not running and not queued:
            if st.session_state.pop("_was_active", False):
                st.rerun()  # the last run has ended: the whole page, once more, then no clock ticks
            st.badge("nothing running", icon=":material/bedtime:", color="gray")
            return
        st.session_state["_was_active"] = True
        if running:
            st.badge(f"{running} running", icon=":material/autorenew:", color="green")
        if queued:
            st.badge(f"{queued} queued", icon=":material/hourglass_empty:", color="orange")

    live(show)


def link(file: str, label: str, icon: str | None = None, **query: str | Sequence[str]) -> None:
    """A link to a view, with query parameters."""
    st.page_link(f"views/{file}.py", label=label, icon=icon, query_params=dict(query))


def linked(name: str, key: str, options: Sequence[T], default: list[T], several: bool = True) -> None:
    """Before a widget with `key` is made: take its value from `?name=…` if that is new, else keep what it had.

    Options are compared by their text. A value that is not an option any more is dropped. `several`: the widget's value is a
    list. Call `remember` after the widget.
    """
    by_text = {str(option): option for option in options}
    asked = st.query_params.get_all(name)
    if asked and asked != st.session_state.get(f"_url_{key}"):
        chosen = [by_text[text] for text in asked if text in by_text]
    elif key in st.session_state:
        held = st.session_state[key]
        chosen = [value for value in (held if several else [held]) if value in options]
    else:
        chosen = list(default)
    if several:
        st.session_state[key] = chosen
    elif chosen or default:
        st.session_state[key] = (chosen or default)[0]
    else:
        st.session_state.pop(key, None)


def remember(name: str, key: str, values: Sequence[object]) -> None:
    """After the widget: write its value into the address."""
    texts = [str(value) for value in values]
    st.session_state[f"_url_{key}"] = texts
    if st.query_params.get_all(name) != texts:
        if texts:
            st.query_params[name] = texts
        else:
            st.query_params.pop(name, None)


def start_here(text: str, *links: tuple[str, str, str]) -> None:
    """An empty view: what would be here, and the way to get it. links: (view, label, icon)."""
    with st.container(border=True):
        st.markdown(text)
        with st.container(horizontal=True):
            for file, label, icon in links:
                link(file, label, icon)


def worker_hint(*, queued: int) -> None:
    """If no worker is alive, say so and how to start one."""
    if store().workers():
        return
    waits = f"{words.count(queued, 'run')} {'waits' if queued == 1 else 'wait'} in the queue, but no" if queued else "No"
    st.warning(f"{waits} worker is alive, so nothing will start. Start one in a terminal:", icon=":material/power_off:")
    st.code("python -m runs_db worker", language="bash")


@st.cache_resource(show_spinner=False)
def warm() -> threading.Thread:
    """Import torch and the engine in the background, once, so that Launch and Sessions open at once."""

    def work() -> None:
        import torch

        from engine import catalog

        torch.set_num_threads(1)
        for table in ("methods", "purifiers", "datasets"):
            catalog.listing(table)

    thread = threading.Thread(target=work, name="warm", daemon=True)
    thread.start()
    return thread
