"""The tables, and nothing else. Times are seconds since 1970 by the database's clock; JSON is kept as text.

A change here needs a migration in `migrations/versions` and a new last entry of VERSIONS; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Integer, MetaData, String, Table, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

VERSIONS = ("0001", "0002")

QUEUED, STARTING, RUNNING, STOPPING = "queued", "starting", "running", "stopping"
DONE, FAILED, STOPPED, DIVERGED = "done", "failed", "stopped", "diverged"
ACTIVE = (STARTING, RUNNING, STOPPING)
FINISHED = (DONE, FAILED, STOPPED, DIVERGED)
STATES = (QUEUED, *ACTIVE, *FINISHED)

metadata = MetaData()

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(80), nullable=False),
    Column("spec", Text, nullable=False),
    Column("group_key", String(64), nullable=False, index=True),
    Column("dataset", Text, nullable=False),
    Column("method", String(64), nullable=False),
    Column("purifier", String(64), nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("label", Text, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("stop_requested", String(16), nullable=False),
    # Who runs it. epoch counts claims; attempts counts the claims that did not end politely, for the cap on crashes.
    Column("epoch", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("worker", Integer),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer),
    Column("pid_started", Text, nullable=False),
    Column("lease_until", Double),
    # How far it is.
    Column("progress", Double),
    Column("stage", Text, nullable=False),
    Column("stage_done", Double),
    Column("stage_total", Double),
    Column("eta_seconds", Double),
    Column("created_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("seconds", Double, nullable=False),
    # What came of it.
    Column("error", Text, nullable=False),
    Column("summary", Text),
    # What people add.
    Column("tags", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("parent", Integer),
    Column("source", String(64), unique=True),
    sqlite_autoincrement=True,  # the id of a deleted run never comes back, so its folder cannot be mistaken for a new run's
)

metric_names = Table(
    "metric_names",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
)

metrics = Table(
    "metrics",
    metadata,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("name", ForeignKey("metric_names.id"), primary_key=True, autoincrement=False),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("value", Double, nullable=False),
    sqlite_with_rowid=False,
)

episodes = Table(
    "episodes",
    metadata,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("user", BigInteger, primary_key=True, autoincrement=False),
    Column("len", Double),
    Column("r_cum", Double),
    Column("r_each", Double),
    Column("ad", Double),
    Column("head_share", Double),
    Column("utility", Double),
    sqlite_with_rowid=False,
)

workers = Table(
    "workers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("pid_started", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("threads", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

chores = Table(
    "chores",
    metadata,
    Column("run", ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("kind", String(16), primary_key=True),
    Column("state", String(16), nullable=False, index=True),
    Column("epoch", Integer, nullable=False),
    Column("worker", Integer),
    Column("host", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pid", Integer),
    Column("pid_started", Text, nullable=False),
    Column("lease_until", Double),
    Column("asked_at", Double, nullable=False),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("error", Text, nullable=False),
)


class now(FunctionElement[float]):
    """The database's clock, in seconds since 1970: the same for all hosts, whatever their own clocks say."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite_now(element: now, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _postgresql_now(element: now, compiler: Any, **options: Any) -> str:
    return "cast(extract(epoch from clock_timestamp()) as double precision)"
