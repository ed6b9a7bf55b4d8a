"""The shape of the app: its table of views, what it may import, its settings, and habits that keep it safe."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.views import VIEWS

ROOT = Path(__file__).parents[2]
APP = ROOT / "app"
FILES = sorted(APP.rglob("*.py"))
READ_ONLY = {
    "arguments", "catalog", "data", "evaluate", "frontier", "maps", "methods", "metrics", "options", "overview", "purify",
    "report", "run", "spec", "statistics", "studies",
}  # fmt: skip
# Maps and the report are there to be read and measured with: drawing maps is a chore, a whole report fits purifiers.
NEVER = {"train", "run_study", "fit", "purify", "fit_responses", "purify_report", "umap", "tsne"}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_every_view_has_its_file_and_every_file_its_line() -> None:
    files = {path.stem for path in (APP / "views").glob("*.py")} - {"__init__"}
    assert {view.file for view in VIEWS} == files
    assert VIEWS[0].file == "home"
    assert not (APP / "pages").exists(), "Streamlit would take it for views of its own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_the_app_reads_the_engine_and_never_trains(path: Path) -> None:
    for module in imports(path):
        parts = module.split(".")
        if parts[0] == "engine" and len(parts) > 1:
            assert parts[1] in READ_ONLY, f"{path.name} imports {module}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            assert name not in NEVER, f"{path.name} uses {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(APP)))
def test_nothing_is_shown_as_raw_html(path: Path) -> None:
    text = path.read_text()
    assert "unsafe_allow_html" not in text
    assert "unsafe_allow_javascript" not in text
    assert not re.search(r"st\.(html|components|iframe)\b", text)


def test_charts_know_neither_streamlit_nor_the_database() -> None:
    for path in (APP / "charts").glob("*.py"):
        assert not {module.split(".")[0] for module in imports(path)} & {"streamlit", "runs_db", "engine", "torch"}, path.name


def test_no_widget_key_is_used_by_two_views() -> None:
    """Keys that live in the address are shared by all views: two widgets with one key would fill each other in."""
    owner: dict[str, str] = {}
    for view in VIEWS:
        for node in ast.walk(ast.parse((APP / "views" / f"{view.file}.py").read_text())):
            if isinstance(node, ast.keyword) and node.arg == "key" and isinstance(node.value, ast.Constant):
                key = str(node.value.value)
                assert owner.setdefault(key, view.file) == view.file, f"{key} is used by {owner[key]} and {view.file}"
    assert len(owner) > 30


def test_no_file_hides_a_module_of_python() -> None:
    """Streamlit puts the folder of its main script in front of the path."""
    assert not {path.stem for path in APP.glob("*.py")} & set(sys.stdlib_module_names)


def test_views_that_draw_numbers_do_not_wait_for_torch() -> None:
    views = ", ".join(f"app.views.{name}" for name in ("home", "runs", "curves"))
    code = f"import sys, app.state, app.live, {views}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_settings_are_safe_and_known_to_this_streamlit() -> None:
    from streamlit import config

    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    known = config.get_config_options()
    for section in ("server", "browser", "client"):
        for name in settings[section]:
            assert f"{section}.{name}" in known
    for name in set(settings["theme"]) - {"light", "dark"}:
        assert f"theme.{name}" in known
    for scheme in ("light", "dark"):
        for name in set(settings["theme"][scheme]) - {"sidebar"}:
            assert f"theme.{scheme}.{name}" in known
        for name in settings["theme"][scheme]["sidebar"]:
            assert f"theme.{scheme}.sidebar.{name}" in known
    server = settings["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"localhost", "127.0.0.1"}
    assert server["enableXsrfProtection"]
    assert server["enableCORS"]
    assert not server["enableStaticServing"]
    assert server["maxUploadSize"] <= 50
    assert server["fileWatcherType"] == "none"
    assert not settings["browser"]["gatherUsageStats"]
    assert settings["client"]["showErrorDetails"] == "none"
    assert settings["client"]["disableDataExport"], "the built-in export would write cells that a spreadsheet executes"
