"""The state machine of a run. Each function is one transaction; each write of a claimed run is fenced by its epoch.

queued → starting → running → stopping → done | failed | stopped | diverged, and back to queued when a run is interrupted.
A fenced write names (run, epoch) and an active state; if no row matches, someone else owns the run by now, the function
returns None, and the caller must leave without writing anything.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, case, delete, func, insert, or_, select, text, update
from sqlalchemy.sql.elements import ColumnElement

from runs_db.database import Database, upsert
from runs_db.identity import Identity
from runs_db.models import (
    ACTIVE,
    DIVERGED,
    DONE,
    FAILED,
    FINISHED,
    QUEUED,
    RUNNING,
    STARTING,
    STOPPED,
    STOPPING,
    chores,
    episodes,
    metric_names,
    metrics,
    now,
    runs,
    workers,
)

STOP, REQUEUE = "stop", "requeue"  # values of stop_requested; "" asks nothing
LEASE = 60.0  # seconds without a sign of life after which another machine may take a run over
ATTEMPTS = 3  # deaths without a word that a run may cost before it counts as failed
FORCED = "ended by force, for it did not stop by itself in time"
EPISODE_COLUMNS = ("len", "r_cum", "r_each", "ad", "head_share", "utility")


@dataclass(frozen=True)
class Claim:
    """A run that a worker has taken and must start."""

    run: int
    epoch: int
    threads: int
    attempts: int


@dataclass(frozen=True)
class Active:
    """A claimed run as a supervisor sees it. lease_left: seconds, negative when the owner has been silent for too long.
    process: who owns it, the worker while `starting`, the trainer from `running` on."""

    run: int
    epoch: int
    state: str
    stop_requested: str
    threads: int
    worker: int | None
    lease_left: float
    process: Identity


@dataclass(frozen=True)
class Begun:
    """What a trainer learns when it takes a claimed run over."""

    spec: str
    stop_requested: str
    attempts: int


@dataclass(frozen=True)
class Standing:
    """How far a run is. progress 0..1 of the whole run and seconds left where they can be told."""

    stage: str = ""
    done: float = 0.0
    total: float = 0.0
    progress: float | None = None
    eta_seconds: float | None = None


def claim(
    database: Database, worker: int, process: Identity, *, threads: int, slots: int, lease: float = LEASE
) -> Claim | None:
    """Take the oldest queued run, or None if there is none or no room for it on this machine.

    Room: fewer than `slots` runs and chores are active on this machine, whoever started them, and their threads and the
    run's fit into `threads`; a run that wants more than the machine has may run alone. The order is strict, so that a wide
    run is not overtaken by narrow ones for ever. GPUs would be one more such sum, over a table of devices, in the same
    statement.
    """
    waiting = runs.alias("waiting")
    used, count = room_taken(process.boot_id)
    oldest = (
        select(waiting.c.id)
        .where(waiting.c.state == QUEUED)
        .order_by(waiting.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    statement = (
        update(runs)
        .where(runs.c.id == oldest, runs.c.state == QUEUED)
        .where(or_(used + runs.c.threads <= threads, used == 0), count < slots)
        .values(
            state=STARTING,
            stop_requested="",
            epoch=runs.c.epoch + 1,
            attempts=runs.c.attempts + 1,
            worker=worker,
            lease_until=now() + lease,
            started_at=func.coalesce(runs.c.started_at, now()),
            **_owner(process),
        )
        .returning(runs.c.id, runs.c.epoch, runs.c.threads, runs.c.attempts)
    )

    def work(connection: Connection) -> Claim | None:
        one_at_a_time(connection, process.boot_id)
        row = connection.execute(statement).one_or_none()
        return None if row is None else Claim(*row)

    return database.write(work)


def room_taken(boot_id: str) -> tuple[Any, Any]:
    """(threads, slots) in use on a machine, as subqueries for the statement of a claim. A chore takes one of each."""
    busy, busy_chores = runs.alias("busy"), chores.alias("busy_chores")
    here = busy.c.state.in_(ACTIVE) & (busy.c.boot_id == boot_id)
    threads = select(func.coalesce(func.sum(busy.c.threads), 0)).where(here).scalar_subquery()
    slots = select(func.count()).select_from(busy).where(here).scalar_subquery()
    running = (busy_chores.c.state == RUNNING) & (busy_chores.c.boot_id == boot_id)
    taken = select(func.count()).select_from(busy_chores).where(running).scalar_subquery()
    return threads + taken, slots + taken


def one_at_a_time(connection: Connection, boot_id: str) -> None:
    """In a claim's transaction: two workers of one machine must not both see the same room. SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:boot))"), {"boot": boot_id})


def begin(database: Database, run: int, epoch: int, process: Identity, lease: float = LEASE) -> Begun | None:
    """The trainer says that it lives: starting → running (or stopping, if a stop was asked for meanwhile)."""
    statement = (
        update(runs)
        .where(runs.c.id == run, runs.c.epoch == epoch, runs.c.state == STARTING)
        .values(
            state=case((runs.c.stop_requested == "", RUNNING), else_=STOPPING),
            lease_until=now() + lease,
            **_owner(process),
        )
        .returning(runs.c.spec, runs.c.stop_requested, runs.c.attempts)
    )

    def work(connection: Connection) -> Begun | None:
        row = connection.execute(statement).one_or_none()
        return None if row is None else Begun(*row)

    return database.write(work)


def record(
    database: Database,
    run: int,
    epoch: int,
    points: Mapping[tuple[str, int], float],
    standing: Standing,
    *,
    lease: float = LEASE,
    seconds: float = 0.0,
) -> str | None:
    """Commit metrics {(name, step): value} and progress, and renew the lease, all or nothing.

    seconds: worked since the last call. Returns what was asked of the run ("" | "stop" | "requeue"), None when fenced.
    """

    def work(connection: Connection) -> str | None:
        asked = connection.execute(
            update(runs)
            .where(*_fence(run, epoch))
            .values(
                lease_until=now() + lease,
                seconds=runs.c.seconds + seconds,
                stage=standing.stage,
                stage_done=standing.done,
                stage_total=standing.total,
                progress=standing.progress,
                eta_seconds=standing.eta_seconds,
            )
            .returning(runs.c.stop_requested)
        ).scalar_one_or_none()
        if asked is not None and points:
            write_points(connection, run, points)
        return asked

    return database.write(work)


def rewind(database: Database, run: int, epoch: int, sent: Mapping[str, int]) -> bool | None:
    """Drop what an interrupted attempt wrote past its checkpoint: all steps after `sent[name]`, all of names not in `sent`.

    What is dropped will be written again; where attempts are not bit-identical (GPUs), no curve mixes two of them.
    """

    def work(connection: Connection) -> bool | None:
        if connection.execute(select(runs.c.id).where(*_fence(run, epoch)).with_for_update()).one_or_none() is None:
            return None
        rows = connection.execute(select(metric_names.c.name, metric_names.c.id)).all()
        past = [(metrics.c.name == key) & (metrics.c.step > sent[name]) for name, key in rows if name in sent]
        for condition in [*past, metrics.c.name.not_in([key for name, key in rows if name in sent])]:
            connection.execute(delete(metrics).where(metrics.c.run == run, condition))
        return True

    return database.write(work)


def finish(
    database: Database,
    run: int,
    epoch: int,
    state: str,
    *,
    error: str = "",
    summary: Mapping[str, Any] | None = None,
    table: Mapping[str, Sequence[float]] | None = None,
    seconds: float = 0.0,
) -> str | None:
    """The trainer's last word: done, failed, stopped, diverged, or queued (to be continued later, no attempt is counted).

    summary and table: metrics and per-user evaluation rows of a done run, written in the same transaction. Returns the state
    that was reached (`stopped` where someone asked to stop a run that was about to go back to the queue), None when fenced.
    """
    if state == QUEUED:
        reached: Any = case((runs.c.stop_requested == STOP, STOPPED), else_=QUEUED)
    elif state in FINISHED:
        reached = state
    else:
        raise ValueError(f"a run cannot finish as {state!r}")
    values: dict[str, Any] = {
        **_released(reached),
        "error": error,
        "seconds": runs.c.seconds + seconds,
        "attempts": runs.c.attempts - (1 if state == QUEUED else 0),
    }
    if state == DONE:
        values |= {"progress": 1.0, "summary": json.dumps(dict(summary or {}), allow_nan=False)}

    def work(connection: Connection) -> str | None:
        end = connection.execute(
            update(runs).where(*_fence(run, epoch)).values(values).returning(runs.c.state)
        ).scalar_one_or_none()
        if end is not None and table:
            write_episodes(connection, run, table)
        return end

    return database.write(work)


def lost(database: Database, active: Active, reason: str, *, attempts: int = ATTEMPTS, expired: bool = False) -> str | None:
    """A supervisor found that the owner of a run is gone. Back to the queue, unless it was asked to stop or died too often.

    Nothing happens (None) if the run has moved on since `active` was read, or, with `expired`, if its lease was renewed.
    """
    fence = [
        *_fence(active.run, active.epoch),
        runs.c.pid == active.process.pid,
        runs.c.pid_started == active.process.started,
    ]
    if expired:
        fence.append(runs.c.lease_until < now())
    reached = case(
        (runs.c.stop_requested == STOP, STOPPED),
        (runs.c.stop_requested == REQUEUE, QUEUED),
        (runs.c.attempts >= attempts, FAILED),
        else_=QUEUED,
    )
    statement = (
        update(runs)
        .where(*fence)
        .values(
            **_released(reached),
            attempts=runs.c.attempts - case((runs.c.stop_requested == REQUEUE, 1), else_=0),
            error=case(
                ((runs.c.stop_requested == STOP) & (runs.c.state != STARTING), FORCED),
                (runs.c.stop_requested == REQUEUE, ""),
                (runs.c.stop_requested == STOP, ""),
                (runs.c.attempts >= attempts, f"{reason}; it happened {attempts} times, the log may say more"),
                else_="",
            ),
        )
        .returning(runs.c.state)
    )
    return database.write(lambda connection: connection.execute(statement).scalar_one_or_none())


def ask(database: Database, run: int, what: str) -> str | None:
    """Ask a run to stop, or to go back to the queue; returns its state now, None if it is not queued or active.

    A queued run stops at once. A stop is never weakened to a requeue.
    """
    queued = runs.c.state == QUEUED
    values: dict[str, Any] = {
        "state": case((runs.c.state == RUNNING, STOPPING), else_=runs.c.state),
        "stop_requested": case((runs.c.stop_requested == STOP, STOP), else_=what),
    }
    if what == STOP:
        values["state"] = case((queued, STOPPED), (runs.c.state == RUNNING, STOPPING), else_=runs.c.state)
        values["stop_requested"] = case((queued, ""), else_=STOP)
        values["ended_at"] = case((queued, now()), else_=runs.c.ended_at)
    states = (QUEUED, *ACTIVE) if what == STOP else ACTIVE
    statement = update(runs).where(runs.c.id == run, runs.c.state.in_(states)).values(values).returning(runs.c.state)
    return database.write(lambda connection: connection.execute(statement).scalar_one_or_none())


def resume(database: Database, run: int) -> bool:
    """Put a stopped, failed or diverged run back into the queue, with all its attempts; False if it is in another state."""
    statement = (
        update(runs)
        .where(runs.c.id == run, runs.c.state.in_((STOPPED, FAILED, DIVERGED)))
        .values(**_released(QUEUED), attempts=0, error="")
        .returning(runs.c.id)
    )
    return database.write(lambda connection: connection.execute(statement).scalar_one_or_none()) is not None


def adopt(database: Database, active: Active, worker: int) -> bool:
    """Become the supervisor of a run whose worker is gone."""
    statement = (
        update(runs)
        .where(*_fence(active.run, active.epoch), runs.c.worker.is_not_distinct_from(active.worker))
        .values(worker=worker)
        .returning(runs.c.id)
    )
    return database.write(lambda connection: connection.execute(statement).scalar_one_or_none()) is not None


def active(database: Database) -> list[Active]:
    """All claimed runs."""
    c = runs.c
    owner = (c.host, c.boot_id, c.pid, c.pid_started)
    wanted = select(c.id, c.epoch, c.state, c.stop_requested, c.threads, c.worker, c.lease_until - now(), *owner)
    with database.read() as connection:
        rows = connection.execute(wanted.where(c.state.in_(ACTIVE)).order_by(c.id)).all()
    return [Active(*row[:7], Identity(row[7], row[8], row[9], row[10])) for row in rows]


def anything_queued(database: Database) -> bool:
    """Whether a run waits. A read: workers ask it several times a second and must not lock the database for it."""
    with database.read() as connection:
        return connection.execute(select(runs.c.id).where(runs.c.state == QUEUED).limit(1)).first() is not None


def states(database: Database, ids: Sequence[int]) -> dict[int, str]:
    """Run id → state."""
    with database.read() as connection:
        rows = connection.execute(select(runs.c.id, runs.c.state).where(runs.c.id.in_(list(ids)))).all()
    return {row[0]: row[1] for row in rows}


def sign_on(database: Database, process: Identity, slots: int, threads: int) -> int:
    """A new row in `workers`; its id."""
    values = {
        "host": process.host,
        "boot_id": process.boot_id,
        "pid": process.pid,
        "pid_started": process.started,
        "slots": slots,
        "threads": threads,
        "started_at": now(),
        "heartbeat_at": now(),
    }
    statement = insert(workers).values(values).returning(workers.c.id)
    return int(database.write(lambda connection: connection.execute(statement).scalar_one()))


def beat(database: Database, worker: int) -> None:
    """The worker is alive."""
    statement = update(workers).where(workers.c.id == worker).values(heartbeat_at=now())
    database.write(lambda connection: connection.execute(statement))


def sign_off(database: Database, gone: Sequence[int]) -> None:
    """Forget workers that have ended."""
    statement = delete(workers).where(workers.c.id.in_(list(gone)))
    database.write(lambda connection: connection.execute(statement))


def signed_on(database: Database) -> dict[int, tuple[Identity, float]]:
    """Worker id → (process, seconds since its last heartbeat)."""
    c = workers.c
    with database.read() as connection:
        rows = connection.execute(select(c.id, c.host, c.boot_id, c.pid, c.pid_started, now() - c.heartbeat_at)).all()
    return {key: (Identity(host, boot, pid, started), age) for key, host, boot, pid, started, age in rows}


def write_points(connection: Connection, run: int, points: Mapping[tuple[str, int], float]) -> None:
    """Insert or overwrite metrics {(name, step): value} of a run."""
    ids = _name_ids(connection, sorted({name for name, _ in points}))
    statement = upsert(connection, metrics)
    statement = statement.on_conflict_do_update(
        index_elements=["run", "name", "step"], set_={"value": statement.excluded.value}
    )
    connection.execute(
        statement,
        [{"run": run, "name": ids[name], "step": step, "value": value} for (name, step), value in points.items()],
    )


def write_episodes(connection: Connection, run: int, table: Mapping[str, Sequence[float]]) -> None:
    """Replace the per-user evaluation rows of a run; a column that is absent, or a NaN, becomes NULL."""
    connection.execute(delete(episodes).where(episodes.c.run == run))
    rows = []
    for index, user in enumerate(table["user"]):
        values = {name: _number(table[name][index]) if name in table else None for name in EPISODE_COLUMNS}
        rows.append({"run": run, "user": int(user), **values})
    if rows:
        connection.execute(insert(episodes), rows)


def _number(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else float(value)


def _name_ids(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    wanted = select(metric_names.c.name, metric_names.c.id).where(metric_names.c.name.in_(names))
    known: dict[str, int] = {row[0]: row[1] for row in connection.execute(wanted)}
    new = [{"name": name} for name in names if name not in known]
    if new:
        connection.execute(upsert(connection, metric_names).on_conflict_do_nothing(), new)
        known = {row[0]: row[1] for row in connection.execute(wanted)}
    return known


def _fence(run: int, epoch: int) -> list[ColumnElement[bool]]:
    return [runs.c.id == run, runs.c.epoch == epoch, runs.c.state.in_(ACTIVE)]


def _owner(process: Identity) -> dict[str, Any]:
    return {"host": process.host, "boot_id": process.boot_id, "pid": process.pid, "pid_started": process.started}


def _released(reached: Any) -> dict[str, Any]:
    """Column values of a run that nobody owns any more. The host stays: it says where the work was done."""
    ended: Any = None
    if not isinstance(reached, str):
        ended = case((reached == QUEUED, None), else_=now())
    elif reached != QUEUED:
        ended = now()
    return {
        "state": reached,
        "ended_at": ended,
        "stop_requested": "",
        "worker": None,
        "boot_id": "",
        "pid": None,
        "pid_started": "",
        "lease_until": None,
        "eta_seconds": None,
    }
