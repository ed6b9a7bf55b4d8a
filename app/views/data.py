"""Data: what a dataset looks like, and a log of one's own, checked line by line."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import launching, logs, parts, state, words
from app.charts import dataset as charts
from app.launching import OWN_LOG
from engine import catalog
from engine.data.table import ITEMS, KINDS, Checked
from engine.options import BadInput

if TYPE_CHECKING:
    from engine.overview import Overview

DATASETS = {words.dataset_title(name): name for name in catalog.TABLES["datasets"]}
SESSION = 300  # items that a session of the default size shows: 10 a slate, 30 slates
UPLOAD_MB = 50
EXAMPLE = """\
user,item,reward,time
anna,film-12,1,2024-05-01T18:30:00
anna,film-7,0,2024-05-01T18:31:10
ben,film-12,1,2024-05-02T09:00:00"""


def show() -> None:
    """The page."""
    st.title("Data")
    title = st.selectbox(
        "Dataset", [*DATASETS, OWN_LOG], key="data", bind="query-params", width=360,
        help="Synthetic: the platform that every first run trains on, with its default options.",
    )  # fmt: skip
    if title == OWN_LOG:
        chosen = _own()
        if chosen is None:
            return
        dataset, options = chosen
        link = {"dataset": OWN_LOG, "log": dataset}
        link |= {} if options["threshold"] is None else {"dataset.threshold": words.short(options["threshold"])}
    else:
        dataset, options, link = DATASETS[title], {}, {"dataset": title}
        if parts.absent(dataset):
            return
    found = logs.overview(dataset, options)
    _numbers(found, link)
    _popularity(found)
    _spread(found)
    _worlds(dataset, options, found)


def _own() -> tuple[str, dict[str, Any]] | None:
    """(path, options) of a log that can be used; None, with the reason on the page, as long as there is none."""
    st.markdown(
        "A log is a table with the columns **user**, **item**, **reward** (0 to 1) and **time** (seconds or ISO 8601), and "
        "optionally **randomised** (1 where the exposure was random). It is checked line by line and stays on this machine."
    )
    grid = st.grid(3, min_column_width=220, gap=("small", "medium"))
    with grid.cell():
        file = st.file_uploader(
            "The log", type=[kind[1:] for kind in KINDS], key="own_file", max_upload_size=UPLOAD_MB,
            help="CSV, TSV or Parquet. Kept under a name that the server makes, once for each content.",
        )  # fmt: skip
    with grid.cell():
        items = st.file_uploader(
            f"{ITEMS}, if there is one", type=["csv"], key="own_items", max_upload_size=10,
            help="Columns item, title and tags; tags are separated by spaces or |.",
        )  # fmt: skip
    with grid.cell():
        text = st.text_input(
            "Ratings from here on are responses", key="own_threshold", bind="query-params", placeholder="rewards are 0 to 1",
            help="For logs of ratings: with 4, ratings of 4 and 5 count as 1 and others as 0. Empty: rewards are from 0 to 1.",
        )  # fmt: skip
        threshold = _threshold(text)
    if file is not None:
        kept = logs.keep(file.name, file.getvalue(), None if items is None else items.getvalue(), threshold)
        if kept.path is None:
            _problems(kept.checked)
            return None
        if st.session_state.get("_own_kept") != str(kept.path):
            st.session_state["_own_kept"] = st.session_state["own"] = str(kept.path)
    path = st.text_input(
        "Path of a log on this machine", key="own", bind="query-params", placeholder="path/to/log.csv", max_chars=500,
        help=f"An uploaded log shows its own path here. {ITEMS} is looked for beside it.",
    )  # fmt: skip
    path = (path or "").strip()
    if not path:
        with st.container(border=True):
            st.markdown("Choose a file above, or give a path. A log begins like this:")
            st.code(EXAMPLE, language=None)
        return None
    checked = logs.check(path, threshold)
    if checked.problems:
        _problems(checked)
        return None
    st.success(f"Nothing is wrong with this log: {logs.understood(checked)}", icon=":material/check_circle:")
    _preview(checked)
    return path, {"threshold": threshold}


def _threshold(text: str | None) -> float | None:
    found = launching.numbers((text or "").strip(), "dataset.threshold")
    if len(found) > 1:
        raise BadInput(f"dataset.threshold = {text!r} is not legal: it must be one number or empty")
    return found[0] if found else None


def _problems(checked: Checked) -> None:
    wrong, shown = checked.wrong_rows, len(checked.problems)
    many = f"{words.count(wrong, 'row')} of {checked.rows:,} cannot be used" if wrong else "this log cannot be used"
    first = f"; the first {shown} problems" if wrong > shown else ""
    st.error(f"{many[0].upper()}{many[1:]}{first}:", icon=":material/rule:")
    st.dataframe(logs.problem_rows(checked), hide_index=True, width="stretch", alt="Problems of the log, with their lines")
    if any("threshold" in problem.legal for problem in checked.problems):
        st.caption("If these are ratings, say above from which rating on they count as a response.")
    st.caption(f"Understood so far: {logs.understood(checked)} Nothing was kept.")
    _preview(checked)


def _preview(checked: Checked) -> None:
    with st.expander("The first rows, as they were understood", icon=":material/table_rows:"):
        st.dataframe(checked.preview, hide_index=True, width="stretch", alt="The first rows of the log")


def _numbers(found: Overview, link: dict[str, str]) -> None:
    row = found.row
    grid = st.grid(4, min_column_width=140)
    grid.metric("Users", f"{row['users']:,}")
    grid.metric("Items", f"{row['items']:,}")
    grid.metric("Interactions", f"{row['interactions']:,}", help="Logged exposures, with or without a response.")
    grid.metric("Density", _percent(row["density"]), help="Interactions over users × items.")
    grid.metric("Mean reward", f"{row['mean_reward']:.3f}", help="Mean response to an exposure, from 0 to 1.")
    grid.metric(
        "Head share", _percent(row["head_share"]), help="Exposure of the most exposed 20 % of items, by the training log."
    )
    grid.metric("Gini", f"{row['gini']:.3f}", help="Inequality of exposure over all items: 0 is equal, 1 is one item alone.")
    grid.metric("Tags", f"{row['tags']:,}")
    told = [f"{row['train_interactions']:,} interactions train, {row['test_interactions']:,} are held out"]
    if row["randomised_share"] is not None:
        told.append(f"{_percent(row['randomised_share'])} of the training exposures were random")
    mended = [f"{name} {count:,}" for name, count in row["repairs"].items() if count]
    if mended:
        told.append("mended: " + words.listed(mended))
    st.caption(words.plain("; ".join(told)) + "\\.")
    if row["items"] < SESSION:
        link = {**link, "world.repeats": "true"}
        st.caption(
            f"A session of 30 slates with 10 items needs {SESSION} items and this catalogue has {row['items']:,}: the link "
            "below lets an item be shown again. Smaller slates or a smaller Max Len do as well."
        )
    state.link("launch", "Launch on this dataset", ":material/rocket_launch:", **link)


def _popularity(found: Overview) -> None:
    st.subheader("Is what is shown more liked more?")
    frame = logs.items_frame(found)
    drawn = charts.sample(frame)
    counts, rates = (found.row[f"popularity_reward_r2_{name}"] for name in ("counts", "rates"))
    grid = st.grid(2, min_column_width=330, gap=("small", "large"))
    for axis, heading, r2, key in (
        (charts.COUNTS, "In counts", counts, "data_counts"),
        (charts.RATES, "In rates", rates, "data_rates"),
    ):
        with grid.cell():
            st.markdown(f"**{heading}**: R² = {r2:.3f}")
            chart = charts.scatter(drawn, logs.line(frame, axis[0]), axis)
            st.altair_chart(chart, width="stretch", key=key, alt=f"Exposures of items against {axis[1].lower()}")
    some = f" Drawn: {len(drawn):,} of {len(frame):,} items; R² and line are over all." if len(drawn) < len(frame) else ""
    st.caption(
        "In counts, R² is high on any platform: both axes count exposures, and an item shown twice as often collects about "
        "twice the responses whether it is liked or not. Divided by exposures, what is left is whether popular items are "
        f"liked more: here r = {_signed(found.row['popularity_reward_r_rates'])}. Dashed: least squares; it bends because the "
        f"axis runs over decades.{some}"
    )


def _spread(found: Overview) -> None:
    st.subheader("Who gets exposure, and who gives it")
    several = len(set(found.lengths.tolist())) > 1
    grid = st.grid(3 if several else 2, min_column_width=260, gap=("small", "large"))
    with grid.cell():
        st.markdown(f"**Exposure**: Gini {found.row['gini']:.3f}")
        st.altair_chart(
            charts.lorenz(found.lorenz), width="stretch", key="data_lorenz", alt="Lorenz curve of exposure over the catalogue"
        )
    with grid.cell():
        st.markdown(f"**Response rate of users**: {found.liking.mean():.2f} ± {found.liking.std():.2f}")
        chart = charts.histogram(found.liking, "Share of exposures with a response", (0.0, 1.0))
        st.altair_chart(chart, width="stretch", key="data_liking", alt="Histogram of users' response rates")
    if several:
        with grid.cell():
            st.markdown(f"**History length**: median {sorted(found.lengths)[len(found.lengths) // 2]:,}")
            st.altair_chart(
                charts.histogram(found.lengths, "Interactions of a user"), width="stretch", key="data_lengths",
                alt="Histogram of users' history lengths",
            )  # fmt: skip
    head = _percent(1 - found.lorenz[80])
    same = "" if several else f" Every user has {words.count(int(found.lengths[0]), 'interaction')}."
    st.caption(
        f"The orange end of the curve: the 20 % of items that the whole log shows most take {head} of the exposure. On the "
        f"dashed line all items would be shown alike.{same}"
    )


def _worlds(dataset: str, options: dict[str, Any], found: Overview) -> None:
    st.subheader("How far worlds on it can be trusted")
    told = logs.fidelity(dataset, options, found)
    if not found.fitted:
        st.markdown(
            "Worlds on this platform answer by the truth that generated the log, so there is nothing to measure. A train world "
            "that is fitted to the log all the same (`world.train = fitted`, as for a real log) "
            + ("is held against that truth here:" if told else "is held against that truth by this command:")
        )
    if told is None:
        if found.fitted:
            st.markdown(
                "A log says nothing of pairs that were not shown, so runs fit a model of responses to it. None has been fitted "
                "yet: the first run on this dataset does, or this command, which also prints how good they are:"
            )
        _command(dataset, options, found)
        return
    popularity, users, truth = logs.popularity_frame(told), logs.shares_frame(told), logs.truth_frame(told)
    grid = st.grid(3 if len(popularity) else 2, min_column_width=270, gap=("small", "large"))
    with grid.cell():
        st.markdown("**Are its probabilities rates?**")
        st.altair_chart(
            charts.calibration(logs.calibration_frame(told)), width="stretch", key="data_calibration",
            alt="Predicted against observed response rates of held-out rows",
        )  # fmt: skip
    if len(popularity):
        with grid.cell():
            st.markdown("**Are popular items answered as in the log?**")
            st.altair_chart(
                charts.by_popularity(popularity), width="stretch", key="data_by_popularity",
                alt="Observed and simulated response rates of held-out rows by popularity",
            )  # fmt: skip
    if len(users):
        with grid.cell():
            st.markdown("**Do users differ as in the log?**")
            st.altair_chart(
                charts.shares(users), width="stretch", key="data_shares",
                alt="Users by the share of head items among their positives, in the log and simulated",
            )  # fmt: skip
    if len(truth):
        with grid.cell():
            st.markdown("**And where nobody was shown anything?**")
            st.altair_chart(
                charts.by_popularity(truth, "True rate, fitted rate"), width="stretch", key="data_truth",
                alt="True and fitted response rates by popularity over all pairs",
            )  # fmt: skip
    rows = [
        {
            "World": part,
            "AUC": own["auc"],
            "Log-loss": own["log_loss"],
            "of the mean": own["log_loss_of_the_mean"],
            "Calibration error": own["calibration_error"],
            "Held-out rows": own["held_out"],
        }
        for part, own in told.parts.items()
    ]
    number = st.column_config.NumberColumn(format="%.3f")
    shown = dict.fromkeys(("AUC", "Log-loss", "of the mean", "Calibration error"), number)
    st.dataframe(rows, hide_index=True, width="stretch", column_config=shown, alt="Fidelity of the fitted worlds")
    source = f" From {told.source}." if told.source else ""
    said = [
        "Dots: held-out rows, which neither the fit nor the choice of its options has seen, with 95 % intervals; lines: what "
        "the world answers to the same. A log-loss below that of the mean says that the model knows people apart; on the "
        f"dashed line it also knows how sure it is.{source}",
        *logs.leaning(told),
    ]
    if len(users):
        said.append(
            "Users: all rows of the log, most of them fitted to, so agreement is the least to ask; head items among a user's "
            "positives, simulated answers as steps."
        )
    for own in told.parts.values():
        if own.get("truth"):
            near, far = own["truth"]["exposures"], own["truth"]["anywhere"]
            said.append(
                f"Against the truth: a probability is wrong by {near['error']:.3f} where the feed went and by "
                f"{far['error']:.3f} over all pairs, where it is also {_signed(far['bias'])} on average."
            )
    st.caption(" ".join(said))
    if not len(popularity):
        st.markdown("By popularity and by user this command measures them:")
        _command(dataset, options, found)


def _command(dataset: str, options: dict[str, Any], found: Overview) -> None:
    command = f"python -m engine data inspect {shlex.quote(dataset)}"
    more = "".join(f" --set dataset.{name}={value:g}" for name, value in options.items() if value is not None)
    st.code(command + more + ("" if found.fitted else " --set world.train=fitted"), language="bash", wrap_lines=True)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


if __name__ == "__main__":
    show()
