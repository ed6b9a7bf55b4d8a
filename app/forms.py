"""Widgets generated from a config dataclass: a new field of the engine appears in the form by itself.

Numbers are text fields, so that any legal way of writing them works (`1e-4`, `none`) and an illegal one gets the engine's
own sentence; an empty field means the default, which it shows. Every widget lives in the address bar.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import streamlit as st

from app import words
from engine.options import Config, describe


def fields(prefix: str, config: type[Config], skip: Container[str] = ()) -> dict[str, Any]:
    """Draw a widget for every option; the values that were changed, as text or as chosen. Keys are `prefix.option`."""
    described = {name: about for name, about in describe(config).items() if name not in skip}
    changed: dict[str, Any] = {}
    grid = st.grid(3, min_column_width=150)
    for name, about in described.items():
        with grid.cell():
            value = _widget(f"{prefix}.{name}", name, about)
        if value is not None and value != about["default"]:
            changed[name] = value
    return changed


def touched(prefix: str) -> bool:
    """Whether an option below `prefix` was ever changed in this session or by the address: its fields should be in sight."""
    mark = f"_touched_{prefix}"
    if any(name.startswith(f"{prefix}.") for name in st.query_params):
        st.session_state[mark] = True
    return bool(st.session_state.get(mark))


def _widget(key: str, name: str, about: dict[str, Any]) -> Any:
    """The chosen value, None for the default."""
    title, default = name.replace("_", " "), about["default"]
    if about["type"] == "bool":
        return st.toggle(title, default, key=key, help=_help(about), bind="query-params")
    if about["choices"]:
        options = [*about["choices"], *(["none"] if about["optional"] else [])]
        at = options.index(default if default is not None else "none")
        return st.selectbox(title, options, at, key=key, help=_help(about), bind="query-params")
    text = st.text_input(title, key=key, help=_help(about), placeholder=words.short(default), bind="query-params")
    return (text or "").strip() or None


def _help(about: dict[str, Any]) -> str:
    doc, default = about["doc"], words.short(about["default"]) or "empty"
    legal = f"It must be {about['range']}; the default is {default}. From: {about['source']}."
    return words.plain(f"{doc[:1].upper()}{doc[1:]}. {legal}")
