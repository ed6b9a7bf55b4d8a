"""The Data view: numbers of datasets, logs that visitors bring, and that nothing is fitted or fetched by looking."""

from __future__ import annotations

import os
import re
import shutil
import urllib.parse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import logs
from app.charts import colours, dataset
from app.logs import Told
from benchmarks.kuai import Sizes, write_kuairec
from drawn import Page
from engine import run
from engine.data import fetch, movielens, own
from engine.options import BadInput
from engine.spec import make
from filled import HOSTILE, add, result
from runs_db.store import Store
from test_charts import marks, texts
from test_views import words

OWN = "A log of my own"
HEADER = "user,item,reward,time\n"
GOOD = HEADER + "".join(f"u{user},i{item},{(user + item) % 2},{user * 100 + item}\n" for user in range(6) for item in range(8))


def links(test: AppTest) -> list[str]:
    """Query strings of the links to Launch."""
    found = [element.proto.query_string for element in test.get("page_link") if "Launch" in element.proto.label]
    return [urllib.parse.unquote_plus(text) for text in found]


def upload(test: AppTest, key: str, *file: object) -> AppTest:
    """Choose a file: name, content, type."""
    test.file_uploader(key=key).set_value(file).run()
    assert not test.exception, [str(error.value) for error in test.exception]
    return test


# Datasets that are known


def test_the_synthetic_platform_is_described(lab: Store, page: Page) -> None:
    test = page("data")
    shown = {metric.label: metric.value for metric in test.metric}
    assert (shown["Users"], shown["Items"], shown["Interactions"]) == ("8,587", "3,327", "858,700")
    said = words(test)
    assert "**In counts**: R² = 0.9" in said
    assert "both axes count exposures" in said
    assert re.search(r"here r = \+0\.\d+", said)
    assert "Every user has 100 interactions" in said
    assert "fitted worlds" not in said, "its clicks are generated"
    assert links(test) == ["dataset=Synthetic"]


def test_a_dataset_that_is_not_there_is_not_fetched_by_looking(lab: Store, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "download", lambda *_: pytest.fail("the page fetched the dataset"))
    test = page("data", data="MovieLens-100K")
    assert "is not on this machine yet" in words(test)
    assert [code.value for code in test.code] == ["python -m engine data fetch ml-100k"]
    assert not test.metric


@pytest.mark.parametrize(
    ("name", "title"), [("kuairec", "KuaiRec"), ("kuairand-pure", "KuaiRand-Pure")], ids=["kuairec", "kuairand-pure"]
)
def test_kuaishous_datasets_say_how_to_get_them(name: str, title: str, lab: Store, page: Page) -> None:
    for view, field in (("data", "data"), ("launch", "dataset"), ("paper", "paper_here")):
        test = page(view, **{field: title}, **({"exhibit": "Table 1"} if view == "paper" else {}))
        said = words(test)
        assert f"{title} is not on this machine yet" in said, view
        assert f"python -m engine data fetch {name}" in [code.value for code in test.code], view
        assert "in a browser, and put it, as it is or unpacked, into" in said, view
        assert not test.error, view


def test_kuairec_where_it_is(lab: Store, page: Page) -> None:
    folder = fetch.data_folder() / "kuairec"
    folder.mkdir(parents=True)
    write_kuairec(folder, Sizes(80, 120, 2600, 30, 60, 1750, 150, 12))
    test = page("data", data="KuaiRec")
    shown = {metric.label: metric.value for metric in test.metric}
    assert (shown["Users"], shown["Items"], shown["Interactions"]) == ("80", "120", "4,200")
    assert "train rows that repeat a pair, the last kept 150" in words(test)
    assert "left out 0" not in words(test), "what did not occur is not told"
    table = page("paper", exhibit="Table 1", paper_here="KuaiRec").dataframe[0].value
    here = table[table["From"] == "counted here"].set_index("Part")
    assert here.loc["train", ["Users", "Items", "Interactions"]].tolist() == [80, 120, 2600]
    assert here.loc["test", ["Users", "Items", "Interactions"]].tolist() == [30, 60, 1750]
    (folder / "big_matrix.csv").write_text("user_id\n")
    st.cache_data.clear()
    test = page("data", data="KuaiRec")
    assert "big_matrix.csv: column video_id" in test.error[0].value.replace("\\", "")


def test_movielens_where_it_is(lab: Store, page: Page) -> None:
    source = Path(os.environ.get("FAIRSTATE_TEST_DATA", "")) / "ml-100k"
    if not movielens.present(source):
        pytest.skip("FAIRSTATE_TEST_DATA names no folder with ml-100k")
    shutil.copytree(source, fetch.data_folder() / "ml-100k")
    test = page("data", data="MovieLens-100K")
    shown = {metric.label: metric.value for metric in test.metric}
    assert (shown["Users"], shown["Items"], shown["Interactions"], shown["Tags"]) == ("943", "1,682", "100,000", "18")
    assert test.code[0].value == "python -m engine data inspect ml-100k", "nothing was fitted, and this would"
    world = {"calibration": [[0.2, 0.25, 0.5], [0.8, 0.7, 0.5]], "auc": 0.777, "log_loss": 0.55, "log_loss_of_the_mean": 0.69,
             "calibration_error": 0.07, "held_out": 5000}  # fmt: skip
    number = add(lab, make(dataset="ml-100k", method="a2c"), summary=result(0.5, world={"train": world, "test": world}))
    test.run()
    assert test.dataframe[0].value["AUC"].tolist() == [0.777, 0.777]
    assert f"From run {number}." in words(test)
    other = make(dataset="ml-100k", method="a2c", settings={"dataset": {"threshold": 3}})
    add(lab, other, summary=result(0.5, world={"train": world, "test": world}))
    test.run()
    assert f"From run {number}." in words(test), "the newer one turned ratings into responses in another way"


# Logs that visitors bring


def test_a_good_log_is_kept_described_and_one_click_from_launch(lab: Store, page: Page) -> None:
    test = upload(page("data", data=OWN), "own_file", "my log.csv", GOOD.encode(), "text/csv")
    said = words(test)
    assert "Nothing is wrong with this log: 48 rows, 6 users and 8 items" in said
    assert {metric.label: metric.value for metric in test.metric}["Interactions"] == "48"
    path = test.text_input(key="own").value
    assert Path(path).read_text() == GOOD
    assert Path(path).is_relative_to(own.folder().resolve())
    (link,) = links(test)
    assert {"dataset=A log of my own", f"log={path}", "world.repeats=true"} <= set(link.split("&"))
    assert "python -m engine data inspect" in test.code[0].value
    launch = page("launch", dataset=OWN, log=path, method=["A2C"], **{"world.repeats": "true"})
    assert not launch.error
    assert launch.button(key="launch").label == "Launch 3 runs"
    launch.button(key="launch").click().run()
    assert {run.dataset for run in lab.runs()} == {path}


def test_the_example_on_the_page_is_a_log(lab: Store, page: Page) -> None:
    example = page("data", data=OWN).code[0].value
    assert own.keep("log.csv", example.encode()).path is not None


def test_a_link_shows_a_log_again(lab: Store, page: Page, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    test = page("data", data=OWN, own=str(tmp_path / "log.csv"))
    assert "48 rows" in words(test)
    (tmp_path / "log.csv").write_text(GOOD + "u1,i1,1,999\n")
    test.run()
    assert "49 rows" in words(test), "a file that has changed is read again"


def test_titles_come_with_the_items(lab: Store, page: Page) -> None:
    test = page("data", data=OWN)
    upload(test, "own_items", "anything.csv", b"item,title,tags\ni1,One,red\ni2,Two,blue\n", "text/csv")
    upload(test, "own_file", "log.csv", GOOD.encode(), "text/csv")
    assert "Titles and tags come from items.csv" in words(test)
    assert {metric.label: metric.value for metric in test.metric}["Tags"] == "2"


def test_problems_are_told_line_by_line_and_nothing_is_kept(lab: Store, page: Page) -> None:
    text = GOOD + "u1,i1,good,1\n,i1,1,2\nu1,i1,4,soon\n"
    test = upload(page("data", data=OWN), "own_file", "log.csv", text.encode(), "text/csv")
    assert "3 rows of 51 cannot be used:" in words(test)
    table = test.dataframe[0].value
    assert table["Where"].tolist() == ["line 50", "line 51", "line 52", "line 52"]
    assert table["What is there"].tolist() == ["good", "–", "4", "soon"]
    assert table["What it must be"].tolist()[0] == "a number"
    assert not test.metric
    assert not own.folder().exists()


def test_ratings_become_usable_with_a_threshold(lab: Store, page: Page) -> None:
    text = "".join(f"u{user},i{item},{1 + (user + item) % 5},{item}\n" for user in range(6) for item in range(8))
    test = upload(page("data", data=OWN), "own_file", "log.csv", (HEADER + text).encode(), "text/csv")
    assert "say above from which rating on they count" in words(test)
    test.text_input(key="own_threshold").set_value("4").run()
    assert "Nothing is wrong with this log" in words(test)
    assert "dataset.threshold=4" in links(test)[0].split("&")
    assert test.code[0].value.endswith("--set dataset.threshold=4")
    test.text_input(key="own_threshold").set_value("many").run()
    assert "dataset.threshold = 'many' is not legal" in words(test)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("../../../etc/cron.d/x.csv", b"", "log.csv is empty"),
        ("log.csv", b"user,item,time\na,b,1\n", "column reward is missing; it has user, item, time"),
        ("log.csv", (HEADER + "a,x,nan,1\nb,y,nan,2\n").encode(), "This log cannot be used"),
        ("log.csv", b"\x89PNG\r\n\x1a\n" * 40, "is missing"),
        ("log.parquet", b"PAR1 not really", "log.parquet cannot be read as parquet"),
        ("log.csv", (HEADER + f"a,{'x' * 20_000},1,1\n").encode(), "a cell in line 2 has more than 10000 bytes"),
        ("log.csv", f"user,item,{HOSTILE.replace(',', ' ')},time\n1,2,3,4\n".encode(), "column reward is missing"),
    ],
)
def test_what_is_no_log_is_refused_in_words(lab: Store, page: Page, name: str, content: bytes, message: str) -> None:
    test = upload(page("data", data=OWN), "own_file", name, content, "text/csv")
    assert message in words(test)
    assert not test.metric
    for element in [*test.error, *test.caption, *test.markdown]:
        assert "<img" not in str(element.value).replace("\\<img", "")
    assert not own.folder().exists()


def test_an_upload_that_is_too_large_is_refused(lab: Store, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "MOST_BYTES", 100)
    test = upload(page("data", data=OWN), "own_file", "log.csv", GOOD.encode(), "text/csv")
    assert f"the log has {len(GOOD)} bytes: it must have 100 or less" in words(test)


@pytest.mark.parametrize("path", ["/nowhere/log.csv", "/etc/passwd", "log\x00.csv", "../../x.parquet"])
def test_a_path_that_cannot_be_used(lab: Store, page: Page, path: str) -> None:
    assert "is not legal" in words(page("data", data=OWN, own=path))


def test_a_log_that_was_removed_is_kept_again(lab: Store, page: Page) -> None:
    kept = logs.keep("log.csv", GOOD.encode(), None, None)
    assert kept.path is not None
    shutil.rmtree(kept.path.parent)
    assert logs.keep("log.csv", GOOD.encode(), None, None).path == kept.path
    assert kept.path.is_file()
    with pytest.raises(BadInput, match="it must end in"):
        logs.keep("log.pkl", GOOD.encode(), None, None)


# Charts


@pytest.fixture
def items() -> pd.DataFrame:
    exposures = np.array([1, 10, 100, 1000, 5000.0])
    rate = np.array([0.0, 0.2, 0.3, 0.25, 0.3])
    kinds = ["tail", "tail", "tail", "tail", "head"]
    return pd.DataFrame(
        {"title": list("abcde"), "exposures": exposures, "plays": exposures * rate, "rate": rate, "kind": kinds}
    )


def test_counts_and_rates_share_their_first_axis(items: pd.DataFrame) -> None:
    counts, rates = (dataset.scatter(items, (0, 0.3), axis).to_dict() for axis in (dataset.COUNTS, dataset.RATES))
    for spec_ in (counts, rates):
        assert marks(spec_) == ["circle", "line"]
        x = spec_["layer"][0]["encoding"]["x"]
        assert x["scale"]["type"] == "symlog"
        assert x["axis"]["values"] == [0, 1, 10, 100, 1000]
        colour = spec_["layer"][0]["encoding"]["color"]["scale"]
        assert dict(zip(colour["domain"], colour["range"], strict=True)) == {"head": colours.HEAD, "tail": colours.TAIL}
    assert counts["layer"][0]["encoding"]["y"]["field"] == "plays"
    assert rates["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0, 1]
    assert "Responses" in texts(counts)
    assert "Response rate" in texts(rates)


def test_the_line_is_least_squares_over_all_items(items: pd.DataFrame) -> None:
    slope, start = np.polyfit(items["exposures"], items["plays"], 1)
    assert logs.line(items, "plays") == pytest.approx((start, slope))
    assert logs.line(items.assign(exposures=5.0), "rate") == pytest.approx((0.21, 0.0))
    drawn = dataset.scatter(items, (start, slope), dataset.COUNTS).to_dict()
    rows = drawn["datasets"][drawn["layer"][1]["data"]["name"]]
    assert all(row["plays"] == pytest.approx(start + slope * row["exposures"]) for row in rows)
    assert all(0 <= row["plays"] <= items["plays"].max() for row in rows), "never outside the picture"


def test_large_catalogues_are_thinned_from_end_to_end() -> None:
    many = pd.DataFrame({"exposures": np.arange(50_000.0), "rate": 0.1})
    few = dataset.sample(many)
    assert len(few) == dataset.MOST_ITEMS
    assert (few["exposures"].min(), few["exposures"].max()) == (0, 49_999)
    assert len(dataset.sample(many.head(10))) == 10


def test_the_lorenz_curve_marks_the_head() -> None:
    spec_ = dataset.lorenz(np.linspace(0, 1, 101) ** 3).to_dict()
    assert marks(spec_) == ["area", "line", "line", "line"]
    head = spec_["layer"][3]
    assert head["mark"]["color"] == colours.HEAD
    assert [row["catalogue"] for row in spec_["datasets"][head["data"]["name"]]] == pytest.approx(np.linspace(0.8, 1, 21))


def test_histograms_count_everybody_once() -> None:
    for values, limits in (([0.0, 0.5, 1.0, 1.0], (0.0, 1.0)), ([3, 3, 4], None), (list(range(1000)), None), ([7, 7], None)):
        spec_ = dataset.histogram(values, "x", limits).to_dict()
        (rows,) = spec_["datasets"].values()
        assert sum(row["users"] for row in rows) == len(values)
        assert spec_["encoding"]["y2"]["field"] == "none", "bars stand on 0"
    whole = dataset.histogram([3, 3, 5], "x").to_dict()
    (rows,) = whole["datasets"].values()
    assert [(row["low"], row["users"]) for row in rows] == [(2.5, 2), (3.5, 0), (4.5, 1)]


def bins(*observed: float, **more: float) -> list[dict[str, float]]:
    """Bins of held-out rows whose predictions are 0.05 too high."""
    return [
        {"predicted": own + 0.05, "observed": own, "low": own - 0.1, "high": own + 0.1, "rows": 50, **more} for own in observed
    ]


def measured(**more: object) -> dict[str, object]:
    """What a fidelity looks like once everything was measured."""
    heads = {"head": bins(0.64)[0], "tail": {**bins(0.4)[0], "predicted": 0.55}}
    spread = {"bins": [{"low": 0.0, "high": 0.5, "real": 0.3, "simulated": 0.4},
                       {"low": 0.5, "high": 1.0, "real": 0.7, "simulated": 0.6}]}  # fmt: skip
    popularity = [{**own, "popularity": 10.0**place, "items": 5} for place, own in enumerate(bins(0.3, 0.5))]
    scores = {"auc": 0.777, "log_loss": 0.55, "log_loss_of_the_mean": 0.69, "calibration_error": 0.07, "held_out": 100}
    whole = {"calibration": bins(0.2, 0.6), "popularity": popularity, "heads": heads, "users": spread, "truth": None}
    return {**scores, **whole, **more}


def test_calibration_shows_both_worlds_against_the_diagonal() -> None:
    own = measured()
    frame = logs.calibration_frame(Told({"train": own, "test": own}, ""))
    assert frame["part"].tolist() == ["train", "train", "test", "test"]
    spec_ = dataset.calibration(frame).to_dict()
    assert marks(spec_) == ["line", "rule", "line", "circle"]
    assert spec_["layer"][0]["mark"]["clip"]
    assert {"Predicted rate", "Observed rate"} <= set(texts(spec_))
    assert (spec_["layer"][1]["encoding"]["y"]["field"], spec_["layer"][1]["encoding"]["y2"]["field"]) == ("low", "high")
    assert len(logs.calibration_frame(Told({"test": own}, ""))) == 2


def test_runs_from_before_there_were_intervals_are_still_drawn() -> None:
    table = {"calibration": ((0.1, 0.2, 0.5), (0.6, 0.5, 0.5)), "held_out": 200}
    told = Told({"train": table, "test": table}, "run 1")
    frame = logs.calibration_frame(told)
    assert frame["rows"].tolist() == [100] * 4
    assert (frame["low"] == frame["observed"]).all()
    assert marks(dataset.calibration(frame).to_dict()) == ["line", "rule", "line", "circle"]
    assert not len(logs.popularity_frame(told)) + len(logs.shares_frame(told)) + len(logs.truth_frame(told))
    assert logs.leaning(told) == []


def test_popularity_shows_the_log_with_intervals_and_the_world_as_a_line() -> None:
    told = Told({"train": measured(), "test": measured()}, "")
    frame = logs.popularity_frame(told)
    assert frame["popularity"].tolist() == [1, 10, 1, 10]
    spec_ = dataset.by_popularity(frame).to_dict()
    assert marks(spec_) == ["line", "rule", "circle"]
    assert [layer["encoding"]["y"]["field"] for layer in spec_["layer"]] == ["predicted", "low", "observed"]
    assert spec_["layer"][0]["encoding"]["x"]["scale"]["type"] == "symlog"
    colour = spec_["layer"][2]["encoding"]["color"]["scale"]
    assert dict(zip(colour["domain"], colour["range"], strict=True)) == dataset.PARTS
    truth = {"popularity": [{"popularity": 3.0, "predicted": 0.2, "observed": 0.1}]}
    known = logs.truth_frame(Told({"train": measured(truth=truth)}, ""))
    assert marks(dataset.by_popularity(known, "True rate, fitted rate").to_dict()) == ["line", "circle"], (
        "a truth has no interval"
    )


def test_shares_of_users_are_dots_for_the_log_and_steps_for_the_world() -> None:
    frame = logs.shares_frame(Told({"test": measured()}, ""))
    assert frame["real"].tolist() == [0.3, 0.7]
    spec_ = dataset.shares(frame).to_dict()
    assert marks(spec_) == ["line", "circle"]
    assert spec_["layer"][0]["mark"]["interpolate"] == "step"
    assert [layer["encoding"]["y"]["field"] for layer in spec_["layer"]] == ["simulated", "real"]
    assert [row["middle"] for row in spec_["datasets"][spec_["data"]["name"]]] == [0.25, 0.75]


def test_a_sentence_says_how_popular_and_rare_items_are_answered() -> None:
    (said,) = logs.leaning(Told({"train": measured()}, ""))
    assert "head items with 0.690 (log 0.640) and tail items with 0.550 (0.400): a gap of 0.140 for 0.240" in said
    assert said.endswith("more than chance for tail items.")
    close = measured(heads={"head": bins(0.64)[0], "tail": bins(0.4)[0]})
    assert logs.leaning(Told({"train": close}, ""))[0].endswith("within chance.")


# Worlds that were measured


def test_a_measured_world_is_drawn_and_an_older_run_says_how_to_measure_it(
    lab: Store, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log.csv").write_text(GOOD)
    path = str(tmp_path / "log.csv")
    older = {"calibration": [[0.2, 0.25, 0.5], [0.8, 0.7, 0.5]], "auc": 0.777, "log_loss": 0.5, "log_loss_of_the_mean": 0.6,
             "calibration_error": 0.07, "held_out": 50}  # fmt: skip
    add(lab, make(dataset=path, method="random", settings={"world": {"slate": 2, "max_len": 3}}),
        summary=result(0.5, world={"train": older, "test": older}))  # fmt: skip
    test = page("data", data=OWN, own=path)
    assert test.code[0].value == f"python -m engine data inspect {path}"
    assert "By popularity and by user this command measures them" in words(test)
    assert "Do users differ" not in words(test)
    monkeypatch.setattr(run, "kept_fidelity", lambda fingerprint: {"train": measured(), "test": measured()})
    test.run()
    said = words(test)
    assert "Are popular items answered as in the log?" in said
    assert "Do users differ as in the log?" in said
    assert "nobody was shown" not in said, "there is no truth to be held against"
    assert said.count("a gap of 0.140 for 0.240") == 2
    assert not test.code


def test_a_generated_platform_is_held_against_its_truth(lab: Store, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    test = page("data")
    assert "so there is nothing to measure" in words(test)
    assert [code.value for code in test.code] == ["python -m engine data inspect synthetic --set world.train=fitted"]
    near = {"error": 0.081, "bias": 0.001, "r": 0.9}
    truth = {"exposures": near, "anywhere": {**near, "error": 0.123, "bias": -0.045}}
    truth["popularity"] = [{"popularity": 3.0, "predicted": 0.2, "observed": 0.1}]  # type: ignore[assignment]
    monkeypatch.setattr(run, "kept_fidelity", lambda fingerprint: {"train": measured(truth=truth)})
    test.run()
    said = words(test)
    assert "wrong by 0.081 where the feed went and by 0.123 over all pairs, where it is also −0.045 on average" in said
    assert "And where nobody was shown anything?" in said
    assert not test.code
