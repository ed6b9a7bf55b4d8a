"""Numbers, times and names as people read them."""

from __future__ import annotations

import pytest

from app import words
from app.measures import MEASURES, OUTCOMES, curve_measure, measure


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min"), (200, "3 min 20 s"), (3599, "59 min"),
     (3600, "1 h"), (4320, "1 h 12 min")],
)  # fmt: skip
def test_durations_have_no_more_digits_than_people_want(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "just now"), (42.7, "42 s ago"), (61, "1 min ago"), (3500, "58 min ago"), (3 * 3600 + 1700, "3 h ago"),
     (86_400, "1 day ago"), (300_000, "3 days ago")],
)  # fmt: skip
def test_moments_are_told_roughly(seconds: float, text: str) -> None:
    assert words.ago(1000.0, 1000.0 + seconds) == text


def test_names_are_those_of_the_papers_and_unknown_ones_are_shown_as_they_are() -> None:
    assert words.label_title("dsrm_hrl (flat) + diffusion") == "DSRM-HRL (flat) + diffusion"
    assert words.label_title("a2c + identity") == "A2C + identity"
    assert words.label_title("my_method + my_purifier") == "My method + my purifier"
    assert words.dataset_title("/somewhere/deep/log.csv") == "log.csv"


def test_counts_and_lists() -> None:
    assert [words.count(1, "run"), words.count(1200, "run")] == ["1 run", "1,200 runs"]
    assert words.listed(["a"]) == "a"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed([]) == ""


def test_text_as_data_leaves_nothing_for_markdown_to_read() -> None:
    plain = words.plain("![x](http://evil) <b> :red[x] $a$ **b** `c`\n# h")
    assert "\n" not in plain
    for mark in "![](<>:$*`#":
        assert f"\\{mark}" in plain
        assert mark not in plain.replace(f"\\{mark}", "")


def test_every_outcome_says_its_unit_and_which_way_is_better() -> None:
    assert MEASURES["ad"].axis == "AD (0 = balanced, lower is better)"
    assert MEASURES["len"].axis == "Len (steps per session, higher is better)"
    for name in OUTCOMES:
        assert MEASURES[name].better
        assert MEASURES[name].unit
        assert MEASURES[name].help
    assert MEASURES["ad"].text(0.123456789) == "0.123"
    assert MEASURES["len"].text(12.3456, 0.5) == "12.35 ± 0.50"
    assert MEASURES["len"].text(float("nan")) == "–"


def test_metrics_that_no_table_knows_still_have_a_name() -> None:
    assert measure("critic_gap").title == "Critic gap"
    assert measure("train_len").title == "Len, exploring"
    assert curve_measure("entropy").title == "Entropy"
    assert curve_measure("entropy").unit != measure("entropy").unit
