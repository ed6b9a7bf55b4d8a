"""The paper's tables and figures: printed numbers, the runs that rebuild them, what is missing; the pictures; the view."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pandas as pd
import pytest

from app import paper
from app.charts import paper as charts
from app.measures import MEASURES
from app.paper import EXHIBITS, Line, Standing
from drawn import Page
from engine import studies
from engine.methods import METHODS
from engine.spec import RunSpec
from engine.studies import table3, tables
from filled import add, result
from runs_db.store import Store
from test_views import words

SEEDS = (11, 15, 19)
REBUILT = [title for title, own in EXHIBITS.items() if own.runs]


def wanted(exhibit: str, budget: str = "quick", max_len: int = 30) -> tuple[list[Line], dict[str, list[RunSpec]]]:
    lines = paper.lines(exhibit, budget)
    return lines, paper.specs(lines, "synthetic", budget, max_len, SEEDS)


def standing(lab: Store, exhibit: str) -> list[Standing]:
    lines, made = wanted(exhibit)
    groups = paper.keys(own[0] for own in made.values())
    return paper.standings(lines, made, lab.runs(groups=groups, sort="-id"))


def test_printed_numbers_are_the_papers() -> None:
    assert paper.printed("table2.csv", "KuaiRec", 30)["A2C"]["len"].mean == 13.433
    assert paper.printed("table2.csv", "KuaiRec", 50)["A2C"]["ad"].std == 0.137
    assert paper.printed("table3.csv", "KuaiRec", 30)["DSRM"]["len"].mean == 26.6
    assert paper.printed("table4.csv", "", 0)["RCE"]["seconds"].mean == 29919.296
    assert paper.printed("table2.csv", "KuaiRec", 10) == {}
    whole = table3.printed(30)["KuaiRec"]["+ RCE"]["ad"]
    assert paper.printed("table3.csv", "KuaiRec", 30)["RCE"]["ad"].mean == whole.mean


@pytest.mark.parametrize("exhibit", ["Table 2", "Table 3", "Table 4"])
def test_every_printed_row_has_a_line(exhibit: str) -> None:
    for data, max_len in (("KuaiRec", 30), ("KuaiRand-Pure", 50)):
        printed = paper.printed(EXHIBITS[exhibit].printed, data, max_len)
        assert list(printed) == [line.key for line in paper.lines(exhibit, "full")]


@pytest.mark.parametrize("exhibit", REBUILT)
def test_lines_have_runs_where_this_version_has_the_method(exhibit: str) -> None:
    lines, made = wanted(exhibit)
    assert len({line.title for line in lines}) == len(lines) > 1
    for line in lines:
        assert (line.arm is not None) == (line.title in made)
        assert line.arm is None or line.arm.method in METHODS
    assert all([spec.seed for spec in own] == list(SEEDS) for own in made.values())


@pytest.mark.parametrize("exhibit", ["Table 3", "Figure 3", "Figure 6"])
def test_runs_are_those_of_the_study(exhibit: str) -> None:
    theirs = {spec.to_json() for spec in studies.specs(EXHIBITS[exhibit].study, sets=["world.max_len=50"])}
    ours = {spec.to_json() for own in wanted(exhibit, max_len=50)[1].values() for spec in own}
    assert ours <= theirs
    assert len(ours) > 2


def test_what_is_there_counts_and_only_the_rest_is_missing(lab: Store) -> None:
    _, made = wanted("Table 3")
    first = made["HRL"]
    add(lab, first[0], summary=result(0.1))
    newest = add(lab, first[0], summary=result(0.9))
    add(lab, replace(first[1], device="auto"), summary=result(0.5))
    add(lab, first[2], "failed")
    add(lab, made["+ DSRM"][0], "queued")
    add(lab, replace(made["+ DSRM"][1], episodes=7), summary=result(1.0))
    found = {own.line.title: own for own in standing(lab, "Table 3")}
    own = found["HRL"]
    assert {seed: run.id for seed, run in own.done.items()} == {11: newest, 15: newest + 1}
    assert [spec.seed for spec in own.missing] == [19] == list(own.lost)
    assert own.spread("len").mean == pytest.approx((19 + 15) / 2)  # type: ignore[union-attr]
    assert [spec.seed for spec in found["+ DSRM"].missing] == [15, 19], "another budget is another experiment"
    assert list(found["+ DSRM"].waiting) == [11]
    assert paper.named([own], lambda each: each.lost) == "**HRL** (seed 19)"


def test_cells_without_runs_stay_empty(lab: Store) -> None:
    _, made = wanted("Table 3")
    for spec, level in zip(made["HRL"], (0.2, 0.4, 0.9), strict=True):
        add(lab, spec, summary=result(level))
    found = standing(lab, "Table 3")
    printed = paper.printed("table3.csv", "KuaiRec", 30)
    exhibit = EXHIBITS["Table 3"]
    table = paper.table(exhibit, found, printed, "c", span=False)
    shown = {row["Method"]: row for row in paper.frame(table, found)}
    assert shown["FLAT"]["Len, here ↑"] == "–"
    assert shown["FLAT"]["Len, paper ↑"] == "24.33 ± 0.74"
    assert shown["HRL"]["Len, here ↑"] == "15.00 ± 2.94"
    assert shown["HRL"]["Runs here"] == "3 of 3"
    lines = {row["method"]: row for row in csv.DictReader(io.StringIO(tables.csv_text(table)))}
    assert lines["FLAT"]["len_here_mean"] == lines["FLAT"]["len_paper_low"] == ""
    assert 12 <= float(lines["HRL"]["len_here_low"]) < 15 < float(lines["HRL"]["len_here_high"]) <= 19
    spans = tables.latex(paper.table(exhibit, found, printed, "c", span=True))
    assert f"{{[}}{float(lines['HRL']['len_here_low']):.2f}" in spans
    assert r"24.33 $\pm$ 0.74" in spans, "the paper prints no interval"


def test_seconds_are_compared_by_how_many_times_a2c(lab: Store) -> None:
    _, made = wanted("Table 4")
    for title, seconds in (("A2C", 10.0), ("HRL", 25.0)):
        add(lab, made[title][0], summary={**result(), "seconds": {"train": seconds, "pretrain": 1.0, "purifier": 2.0}})
    found = standing(lab, "Table 4")
    table = paper.table(EXHIBITS["Table 4"], found, paper.printed("table4.csv", "", 0), "c", span=False)
    cells = {row.title: row.cells for row in table.rows}
    assert cells["HRL"]["ratio_here"] == 2.5
    assert cells["HRL"]["ratio_paper"] == pytest.approx(8462.525 / 7512.144)
    assert cells["RCE"]["ratio_here"] is None
    assert cells["HRL"]["before_here"].mean == 3.0  # type: ignore[union-attr]


def test_agreement_counts_pairs_in_the_same_order(lab: Store) -> None:
    _, made = wanted("Table 3")
    for title, level in (("FLAT", 0.9), ("HRL", 0.5), ("+ DSRM", 0.7)):
        add(lab, made[title][0], summary=result(level))
    agreed = paper.agreement(standing(lab, "Table 3"), paper.printed("table3.csv", "KuaiRec", 30), ["len"])
    assert agreed == {"len": (2, 3)}, "the paper has + DSRM above FLAT above HRL"
    assert paper.agreement(standing(lab, "Figure 6"), {}, ["len"]) == {}


def test_pages_and_commands_of_studies_exist() -> None:
    assert paper.command("figure3", "synthetic", "full", SEEDS, 30) == (
        "python -m engine study figure3 --dataset synthetic --budget full"
    )
    assert paper.command("table3", "synthetic", "quick", (1,), 50).endswith("--budget quick --seeds 1 --set world.max_len=50")
    assert [EXHIBITS[name].study for name in ("Table 1", "Table 3", "Figure 5", "Figure 6")] == ["", "table3", "", "figure6"]
    page, picture = paper.kept_page("figure2", "synthetic") or ("", None)
    assert page == "docs/results/figure2-synthetic.md"
    assert picture is not None
    assert paper.kept_page("figure2", "nowhere") is None


def test_dots_keep_a_place_for_rows_without_runs() -> None:
    base = {"row": "a", "mean": 1.0, "low": 0.5, "high": 1.5, "told": "1", "n": 3}
    alone = charts.dots(pd.DataFrame([{**base, "where": "here"}]), ["a", "b"], MEASURES["len"]).to_dict()["layer"][1][
        "encoding"
    ]
    assert alone["y"]["scale"]["domain"] == ["a", "b"]
    assert alone["color"]["legend"] is None, "one kind of dot needs no legend"
    frame = pd.DataFrame([{**base, "where": "here"}, {**base, "where": "paper"}])
    both = charts.dots(frame, ["a", "b"], MEASURES["len"]).to_dict()["layer"][1]["encoding"]
    assert both["color"]["scale"]["domain"] == ["paper", "here"]
    assert "'s" not in both["color"]["legend"]["labelExpr"], "a quote would end the expression"


def test_steps_are_drawn_over_decades() -> None:
    frame = pd.DataFrame({"steps": [5, 50], "mean": [1.0, 2.0], "low": 0.0, "high": 3.0, "told": "", "n": 3})
    chart = charts.over_steps(frame, MEASURES["ad"]).to_dict()
    assert [layer["mark"]["type"] for layer in chart["layer"]] == ["rule", "line", "point"]
    assert chart["layer"][1]["encoding"]["x"]["axis"]["values"] == [5, 50]
    assert "NaN" not in json.dumps(chart)


# The view


@pytest.mark.parametrize("exhibit", list(EXHIBITS))
def test_every_exhibit_is_drawn_without_any_run(lab: Store, page: Page, exhibit: str) -> None:
    test = page("paper", exhibit=exhibit, budget="Quick")
    assert not test.error
    assert EXHIBITS[exhibit].runs == any(own.key == "paper_launch" for own in test.button)
    if EXHIBITS[exhibit].study:
        assert f"engine study {EXHIBITS[exhibit].study}" in "\n".join(own.value for own in test.code)


def test_the_button_launches_exactly_what_is_missing(lab: Store, page: Page) -> None:
    _, made = wanted("Table 3")
    for spec in made["HRL"]:
        add(lab, spec, summary=result(0.5))
    many = sum(map(len, made.values())) - 3
    test = page("paper", exhibit="Table 3", budget="Quick")
    button = test.button(key="paper_launch")
    assert button.label == f"Launch the {many} missing runs"
    assert "**FLAT** (seeds 11, 15 and 19)" in words(test)
    button.click().run()
    assert not test.error
    queued = lab.runs(states=["queued"], sort="id")
    expected = [spec.to_json() for title, own in made.items() for spec in own if title != "HRL"]
    assert sorted(spec.to_json() for spec in lab.specs([run.id for run in queued]).values()) == sorted(expected)
    assert {run.name for run in queued} == {"Table 3"}
    assert f"3 of {many + 3} runs are here, {many} on the way" in words(test)
    assert not any(own.key == "paper_launch" for own in test.button), "not twice"


def test_figure_7_draws_curves_and_figure_6_steps(lab: Store, page: Page) -> None:
    for exhibit in ("Figure 7", "Figure 6"):
        for own in wanted(exhibit)[1].values():
            add(lab, own[0], curve=6)
    assert "band: ± standard deviation" in words(page("paper", exhibit="Figure 7", budget="Quick"))
    table = page("paper", exhibit="Figure 6", budget="Quick").dataframe[0].value
    assert [text.startswith("–") for text in table["Len, here ↑"]] == [False] * len(table)


def test_seeds_that_are_no_numbers_are_told(lab: Store, page: Page) -> None:
    test = page("paper", paper_seeds="none")
    assert "seeds = 'none' is not legal" in words(test)


def test_table_1_counts_the_dataset_here(lab: Store, page: Page) -> None:
    frame = page("paper", exhibit="Table 1").dataframe[0].value
    assert frame.loc[0, "Interactions"] == 12_530_800
    assert math.isclose(frame.loc[0, "Density"], 12_530_800 / (7176 * 10_728))
    here = frame[frame["From"] == "counted here"].set_index("Part")["Interactions"]
    assert here["train"] + here["test"] == here["both"] > 0
