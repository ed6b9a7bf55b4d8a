"""Name → lazily imported module, for methods, purifiers, datasets and studies. An unknown name lists the known ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.data import DATASETS, LOG
from engine.methods import METHODS
from engine.options import BadInput, describe, suggest
from engine.purify import PURIFIERS
from engine.studies import STUDIES

TABLES = {"methods": METHODS, "purifiers": PURIFIERS, "datasets": DATASETS, "studies": STUDIES}


def find(table: str, name: str) -> ModuleType:
    """The module behind a name of a table; for datasets also a path to a log."""
    rows = TABLES[table]
    if name in rows:
        return importlib.import_module(rows[name])
    if table == "datasets" and is_path(name):
        return importlib.import_module(LOG)
    extra = ", or a path to a .csv or .parquet log" if table == "datasets" else ""
    kind = "study" if table == "studies" else table[:-1]
    raise BadInput(f"{kind} {name!r} is unknown{suggest(name, rows)}{extra}")


def is_path(name: str) -> bool:
    """Whether a dataset name means a file of the user's own."""
    return Path(name).suffix.lower() in (".csv", ".parquet", ".tsv") or "/" in name


def default_purifier(method: str) -> str:
    """CLI.md: `diffusion` for `dsrm_hrl`, `identity` for all others."""
    return "diffusion" if method == "dsrm_hrl" else "identity"


def summary(module: ModuleType) -> str:
    """The first line of a module's docstring, without its full stop."""
    return (module.__doc__ or "").strip().split("\n")[0].rstrip(".")


def listing(table: str) -> list[dict[str, Any]]:
    """Every row of a table with its summary and its options."""
    rows = [(name, find(table, name)) for name in TABLES[table]]
    if table == "datasets":
        rows.append(("PATH.csv | PATH.parquet", importlib.import_module(LOG)))
    return [{"name": name, "summary": summary(module), "config": describe(module.Config)} for name, module in rows]
