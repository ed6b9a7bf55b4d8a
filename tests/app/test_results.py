"""Groups of seeds, names, differences, sentences and the export."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pandas as pd
import pytest

from app import results, tables
from app.measures import MEASURES
from filled import HOSTILE, add, result, spec
from runs_db.store import Run, Store


def groups_of(lab: Store, **levels: float) -> list[results.Group]:
    """A done run of each method, `level` better and fairer."""
    for method, level in levels.items():
        add(lab, spec(method), level=level)
    runs = lab.runs(sort="id")
    return results.grouped(runs, lab.specs([run.id for run in runs]))


def test_a_spread_has_the_papers_standard_deviation() -> None:
    found = results.spread([1.0, 2.0, 6.0])
    assert found is not None
    assert (found.mean, found.n) == (3.0, 3)
    assert found.std == pytest.approx((14 / 3) ** 0.5)  # ddof 0
    assert results.spread([]) is None


def test_runs_that_differ_in_the_seed_alone_are_one_group(lab: Store) -> None:
    base = spec()
    for seed in (15, 11, 19):
        add(lab, replace(base, seed=seed), level=seed / 20)
    add(lab, replace(base, episodes=800))
    groups = results.grouped(lab.runs(sort="id"))
    assert [len(group.runs) for group in groups] == [3, 1]
    assert groups[0].seeds == (11, 15, 19)


def test_groups_of_one_method_are_named_by_what_differs(lab: Store) -> None:
    for lam in (0.25, 1.0):
        add(lab, spec("dsrm_hrl", settings={"method": {"lam": lam}}))
    add(lab, spec("a2c"))
    runs = lab.runs(sort="id")
    names = [group.name for group in results.grouped(runs, lab.specs([run.id for run in runs]))]
    assert names == ["DSRM-HRL + diffusion · λ 0.25", "DSRM-HRL + diffusion · λ 1", "A2C + identity"]
    without_specs = [group.name for group in results.grouped(runs)]
    assert without_specs[:2] == ["DSRM-HRL + diffusion", "DSRM-HRL + diffusion (2)"], "names never coincide"


def test_a_difference_shows_only_what_differs() -> None:
    one, other = spec("a2c", seed=11), spec("a2c", seed=15, settings={"method": {"entropy": 0.02}})
    assert results.differences({1: one, 2: other}) == {"seed": {1: 11, 2: 15}, "method.entropy": {1: 0.5, 2: 0.02}}
    assert results.differences({1: one, 2: one}) == {}


def test_options_that_another_method_does_not_have_are_no_difference() -> None:
    found = results.differences({1: spec("a2c"), 2: spec("balanced")})
    assert set(found) == {"method", "episodes"}


def test_findings_follow_the_results(lab: Store) -> None:
    groups = groups_of(lab, a2c=0.2, balanced=0.9)
    said = results.findings(groups, 30)
    assert said[0] == (
        r"**Balanced \+ identity** kept people longest: 19.00 steps of at most 30, against 12.00 of A2C \+ identity."
    )
    assert any(r"**Balanced \+ identity** shared exposure most evenly: AD 0.085" in sentence for sentence in said)
    turned = results.findings(groups_of_turned(lab), 30)
    assert turned[0].startswith(r"**A2C \+ identity** kept people longest")


def groups_of_turned(lab: Store) -> list[results.Group]:
    """The same methods with the results the other way round."""
    lab.delete([run.id for run in lab.runs()])
    return groups_of(lab, a2c=0.9, balanced=0.2)


def test_findings_call_a_tie_a_tie_and_say_nothing_of_one_run(lab: Store) -> None:
    both = groups_of(lab, a2c=0.5, balanced=0.5)
    assert (
        results.findings(both)[0] == r"**A2C \+ identity** and **Balanced \+ identity** kept people longest: 15.00 steps, both."
    )
    assert results.findings(both[:1]) == []


@pytest.mark.parametrize("metric", ["len", "ad"])
def test_best_knows_the_direction(metric: str) -> None:
    values = {"low": 0.1, "high": 0.9}
    assert results.best(values, MEASURES[metric]) == ["high" if metric == "len" else "low"]


def test_the_export_cannot_become_a_formula(lab: Store) -> None:
    number = add(lab, spec(), summary=result(0.5), name=HOSTILE[:80], notes="+1", tags=["x"])
    add(lab, spec("balanced"), notes="\t=1")
    runs = lab.runs()
    text = results.csv_text(tables.export(runs, lab.specs([run.id for run in runs])))
    rows = list(csv.DictReader(io.StringIO(text)))
    mine = next(row for row in rows if row["run"] == str(number))
    assert mine["name"] == "'" + HOSTILE[:80]
    assert mine["notes"] == "'+1"
    assert not any(cell.lstrip()[:1] in tuple("=+@") for row in rows for cell in row.values())
    assert float(mine["len"]) == 15.0, "numbers stay numbers"
    assert results.csv_text(pd.DataFrame({"a": [-1.5, None]})).split() == ["a", "-1.5", '""']


def test_the_table_shows_imported_runs_and_leaves_out_empty_columns(lab: Store) -> None:
    add(lab, spec(), source="abc")
    add(lab, spec("balanced"), "queued")
    frame = tables.run_rows(lab.runs(sort="id"))
    assert frame["State"].tolist() == [["done", "imported"], ["queued"]]
    assert "Name" not in frame
    assert "Tags" not in frame


def test_settings_mark_what_was_changed(lab: Store) -> None:
    frame = tables.setting_rows(spec("a2c"), {"dataset": {"users": 60}})
    assert frame[frame["Changed"]]["Setting"].tolist() == ["dataset.users"]


def test_a_result_that_is_not_a_number_is_none(lab: Store) -> None:
    run: Run = lab.get(add(lab, spec(), summary={"len": 1.0, "world": {"train": None}, "device": "cpu", "flag": True}))
    assert results.result(run, "len") == 1.0
    assert [results.result(run, name) for name in ("world", "device", "flag", "ad")] == [None] * 4
