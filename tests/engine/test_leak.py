"""The truth of the synthetic world is reachable by evaluation and reports only; nothing that trains can see it."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import catalog, run
from engine.contracts import Data
from engine.recorder import MemoryRecorder
from engine.world.simulator import Simulator
from small import small_spec
from test_structure import ROOT, imports

TRAINING = ("learn", "methods", "purify", "state")
SECRET = {"truth", "genuine", "click_probabilities", "responses", "_responses", "_session", "everything", "_temper"}


def names_in(path: Path) -> set[str]:
    """Every attribute and name that a file mentions."""
    tree = ast.walk(ast.parse(path.read_text()))
    return {n.attr if isinstance(n, ast.Attribute) else n.id for n in tree if isinstance(n, ast.Attribute | ast.Name)}


def test_nothing_that_trains_mentions_the_truth_or_reaches_into_the_world() -> None:
    for folder in TRAINING:
        for file in (ROOT / "engine" / folder).glob("*.py"):
            assert not names_in(file) & SECRET, file
            assert "engine.report" not in set(imports(file)), file


class Sealed:
    """A truth that says when it is opened."""

    def __init__(self, inner: Any, recorder: MemoryRecorder) -> None:
        self.inner, self.recorder, self.opened_at = inner, recorder, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.opened_at.add(self.recorder.stages[-1])
        return getattr(self.inner, name)


@pytest.mark.parametrize("name", list(catalog.TABLES["methods"]))
def test_the_truth_stays_sealed_until_evaluation(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorder = MemoryRecorder()
    spec = small_spec(method=name, purifier="diffusion", episodes=60, seed=23)
    data = run.load_data(spec)
    truth = Sealed(data.truth, recorder)
    monkeypatch.setattr(run, "load_data", lambda spec, watch=None: replace(data, truth=truth))  # type: ignore[arg-type]
    opened: list[str] = []
    inner = Simulator.click_probabilities

    def click_probabilities(self: Simulator) -> torch.Tensor:
        opened.append(recorder.stages[-1])
        return inner(self)

    monkeypatch.setattr(Simulator, "click_probabilities", click_probabilities)
    result = run.run(spec, recorder, tmp_path)
    assert "utility" in result.metrics
    assert truth.opened_at == {"evaluation"}
    assert set(opened) == ({"evaluation"} if name == "oracle" else set())


def test_training_does_not_change_when_the_truth_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clicks with another split into preference and conformity behind them: what is learnt must be equal."""
    spec = small_spec(method="dsrm_hrl", purifier="regression", episodes=80, seed=29)
    data = run.load_data(spec)
    honest = run.run(spec, MemoryRecorder(), tmp_path / "a")

    def lie(data: Data) -> Data:
        truth = replace(data.truth, preference=data.truth.preference * float("nan"), interest=data.truth.interest * 0)  # type: ignore[type-var]
        return replace(data, truth=truth)

    monkeypatch.setattr(run, "load_data", lambda spec, watch=None: lie(data))
    lied = run.run(spec, MemoryRecorder(), tmp_path / "b")
    assert honest.metrics["r_cum"] == lied.metrics["r_cum"]
    assert honest.metrics["utility"] == honest.metrics["utility"]
    assert lied.metrics["utility"] != lied.metrics["utility"]  # the report does ask


def test_the_test_log_is_never_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Destroy every row of the test users' log beyond what is known at the start: the policy must come out equal."""
    spec = small_spec(method="a2c", episodes=80, seed=31)
    data = run.load_data(spec)
    run.run(spec, MemoryRecorder(), tmp_path / "a")
    spoilt = replace(data, test=data.test.select(torch.zeros(len(data.test), dtype=torch.bool)))
    monkeypatch.setattr(run, "load_data", lambda spec, watch=None: spoilt)
    run.run(spec, MemoryRecorder(), tmp_path / "b")
    a, b = ((tmp_path / folder / run.POLICY).read_bytes() for folder in "ab")
    assert a == b
