"""The shape of the code: who may import whom, and that tables and modules match row by row."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import catalog
from engine.data import LOG
from engine.options import BadInput, Config, describe

ROOT = Path(__file__).parents[2]
HELPERS = {"options", "contracts", "factors", "nets", "rows", "luck", "metrics", "checkpoint", "cache", "spec"}
MAY_IMPORT = {  # folder of engine → what of engine it may import, itself and its helpers aside
    "data": {"options", "contracts", "checkpoint", "cache"},
    "world": {"options", "contracts", "factors", "rows", "luck", "spec", "data"},
    "state": {"options", "contracts", "factors", "rows", "cache", "spec"},
    "purify": {"options", "contracts", "factors", "nets", "rows", "spec", "state"},
    "learn": {"options", "contracts", "factors", "nets", "metrics", "luck"},
    "methods": {"options", "contracts", "nets", "metrics", "luck", "learn"},
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_parts_of_the_engine_import_only_what_they_may(folder: str) -> None:
    for file in (ROOT / "engine" / folder).glob("*.py"):
        for module in imports(file):
            parts = module.split(".")
            if parts[0] in ("runs_db", "app"):
                pytest.fail(f"{file.name} imports {module}")
            if parts[0] != "engine" or len(parts) < 2 or parts[1] == folder:
                continue
            assert parts[1] in MAY_IMPORT[folder], f"engine/{folder}/{file.name} imports {module}"


def test_methods_import_neither_purifiers_nor_each_other() -> None:
    for file in (ROOT / "engine" / "methods").glob("*.py"):
        for module in imports(file):
            assert not module.startswith(("engine.methods", "engine.purify", "engine.state", "engine.world")), (
                file.name,
                module,
            )


def test_nothing_that_a_run_needs_imports_a_study() -> None:
    for file in (ROOT / "engine").rglob("*.py"):
        if file.parent.name != "studies" and file.name not in ("__main__.py", "catalog.py"):
            assert not any(module.startswith("engine.studies") for module in imports(file)), file


def test_the_engine_knows_neither_database_nor_app() -> None:
    for file in (ROOT / "engine").rglob("*.py"):
        assert not any(module.split(".")[0] in ("runs_db", "app", "streamlit", "sqlalchemy") for module in imports(file)), file


@pytest.mark.parametrize(
    ("table", "folder"), [("methods", "methods"), ("purifiers", "purify"), ("datasets", "data"), ("studies", "studies")]
)
def test_every_row_has_its_module_and_every_module_its_row(table: str, folder: str) -> None:
    needed = {"methods": "train", "purifiers": "fit", "datasets": "load", "studies": "QUESTION"}[table]
    rows = set(catalog.TABLES[table].values()) | ({LOG} if table == "datasets" else set())
    modules = {f"engine.{folder}.{file.stem}" for file in (ROOT / "engine" / folder).glob("*.py") if file.stem != "__init__"}
    with_entry = {name for name in modules if hasattr(importlib.import_module(name), needed)}
    assert with_entry == rows


@pytest.mark.parametrize("table", catalog.TABLES)
def test_every_row_has_a_summary_and_documented_options(table: str) -> None:
    for name in catalog.TABLES[table]:
        module = catalog.find(table, name)
        assert issubclass(module.Config, Config)
        assert 10 < len(catalog.summary(module)) < 130, name
        for field, described in describe(module.Config).items():
            assert described["doc"], (name, field)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(BadInput, match=r"method 'a2d' is unknown \(did you mean a2c\?\); known: random, popular"):
        catalog.find("methods", "a2d")
    with pytest.raises(BadInput, match=r"dataset 'movies' is unknown.*or a path to a \.csv or \.parquet log"):
        catalog.find("datasets", "movies")
