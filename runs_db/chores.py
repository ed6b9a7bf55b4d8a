"""Chores: small works that a view asks a worker to do for a finished run, such as drawing its maps.

One row for each (run, kind): queued → running → done | failed, and back to queued when it is asked for again. A claim is one
transaction that counts room as `queue.claim` does, so runs and chores together never oversubscribe a machine; whoever asks
waits in front of a page, so a free slot goes to a chore first. Each later write names (run, kind, epoch). The process itself
knows nothing of the database: its worker writes how it ended, by its exit status or, where a worker has died, by what lies
in the run's folder. A failed chore is not tried again by itself: it says why, and whoever wants it asks again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from engine.options import BadInput, suggest
from runs_db import files, identity, queue
from runs_db.database import Database
from runs_db.identity import Identity
from runs_db.models import DONE, FAILED, QUEUED, RUNNING, chores, now, runs

if TYPE_CHECKING:
    from runs_db.executors import Executor

MAPS = "maps"
MADE = {MAPS: files.MAPS}  # kind → the file that it leaves in the run's folder
LONGEST = 1800.0  # seconds that a chore may take
OPEN = (QUEUED, RUNNING)


@dataclass(frozen=True)
class Chore:
    """A row of `chores` as it was when it was read. process: who runs it, its worker until the process is started; None
    while nobody does. lease_left, age: seconds, age since it was started; None where it is not running."""

    run: int
    kind: str
    state: str
    epoch: int
    worker: int | None
    lease_left: float | None
    age: float | None
    error: str
    process: Identity | None

    @property
    def open(self) -> bool:
        """Whether it waits or runs."""
        return self.state in OPEN


def log_name(kind: str) -> str:
    """The log of a chore, in the folder of its run."""
    return f"{kind}.log"


def ask(database: Database, run: int, kind: str) -> str:
    """Ask for a chore; its state now. One that waits or runs is left alone. Raises BadInput unless the run is done."""
    if kind not in MADE:
        raise BadInput(f"chore = {kind!r} is not legal{suggest(kind, MADE)}")

    def work(connection: Connection) -> str:
        state = connection.execute(select(runs.c.state).where(runs.c.id == run).with_for_update()).scalar_one_or_none()
        if state != DONE:
            raise BadInput(f"run {run} does not exist" if state is None else f"run {run} is {state}: it must be done first")
        row = connection.execute(select(chores.c.state).where(_is(run, kind))).scalar_one_or_none()
        if row in OPEN:
            return str(row)
        if row is None:
            new = {"run": run, "kind": kind, "state": QUEUED, "epoch": 0, "asked_at": now(), "error": ""}
            connection.execute(insert(chores).values({**new, "host": "", "boot_id": "", "pid_started": ""}))
        else:
            again = {"asked_at": now(), "started_at": None, "ended_at": None, "error": ""}
            connection.execute(update(chores).where(_is(run, kind)).values(**_released(QUEUED), **again))
        return QUEUED

    return database.write(work)


def find(database: Database, run: int, kind: str) -> Chore | None:
    """One chore; None where nobody has asked."""
    found = _read(database, _is(run, kind))
    return found[0] if found else None


def open_ones(database: Database) -> list[Chore]:
    """All that wait or run, the oldest first."""
    return _read(database, chores.c.state.in_(OPEN))


def claim(
    database: Database, worker: int, process: Identity, *, threads: int, slots: int, lease: float = queue.LEASE
) -> Chore | None:
    """Take the chore that waits longest, or None if there is none or no room for one more on this machine."""
    waiting = chores.alias("waiting")
    used, count = queue.room_taken(process.boot_id)
    first = (
        select(waiting.c.run, waiting.c.kind)
        .where(waiting.c.state == QUEUED)
        .order_by(waiting.c.asked_at, waiting.c.run)
        .limit(1)
        .with_for_update(skip_locked=True)
    )

    def work(connection: Connection) -> tuple[int, str] | None:
        queue.one_at_a_time(connection, process.boot_id)
        row = connection.execute(first).one_or_none()
        if row is None:
            return None
        taken = connection.execute(
            update(chores)
            .where(_is(*row), chores.c.state == QUEUED, or_(used + 1 <= threads, used == 0), count < slots)
            .values(
                state=RUNNING, epoch=chores.c.epoch + 1, worker=worker, lease_until=now() + lease, started_at=now(),
                **_owner(process),
            )
            .returning(chores.c.run, chores.c.kind)
        ).one_or_none()  # fmt: skip
        return None if taken is None else (taken[0], taken[1])

    taken = database.write(work)
    return None if taken is None else find(database, *taken)


def started(database: Database, chore: Chore, process: Identity) -> bool:
    """Note who does a claimed chore; False if it is somebody else's by now."""
    return _write(database, chore, **_owner(process))


def renew(database: Database, worker: int, lease: float = queue.LEASE) -> None:
    """The worker still looks after its chores."""
    mine = update(chores).where(chores.c.worker == worker, chores.c.state == RUNNING).values(lease_until=now() + lease)
    database.write(lambda connection: connection.execute(mine))


def adopt(database: Database, chore: Chore, worker: int) -> bool:
    """Look after a chore whose worker is gone."""
    return _write(database, chore, worker=worker)


def end(database: Database, chore: Chore, state: str, error: str = "") -> bool:
    """Write how a running chore ended: done, failed, or queued to be done later. False if it is somebody else's by now."""
    ended = {} if state == QUEUED else {"ended_at": now()}
    return _write(database, chore, **_released(state), **ended, error=error)


class Keeper:
    """A worker's hands for chores: starts them where there is room, watches those of its machine, writes how they end."""

    def __init__(
        self,
        database: Database,
        executor: Executor,
        worker: int,
        *,
        slots: int,
        threads: int,
        lease: float,
        tell: Callable[[str], None],
        longest: float = LONGEST,
    ) -> None:
        self._database, self._executor, self._worker = database, executor, worker
        self._slots, self._threads, self._lease, self._tell, self._longest = slots, threads, lease, tell, longest
        self._me = identity.mine()
        self._started: dict[tuple[int, str, int], Identity] = {}

    def turn(self, active: Sequence[int], *, start: bool = True) -> list[Chore]:
        """One look at everything; what still waits or runs. active: the threads of each run that is active on this machine."""
        found = open_ones(self._database)
        running = [chore for chore in found if chore.state == RUNNING and self._watch(chore)]
        self._stop_orphans(found)
        waiting = [chore for chore in found if chore.state == QUEUED]
        while start and waiting and self._room(active, running) and (claimed := self._start_one()) is not None:
            waiting = [chore for chore in waiting if (chore.run, chore.kind) != (claimed.run, claimed.kind)]
            running.append(claimed)
        return running + waiting

    def here(self, found: Sequence[Chore]) -> int:
        """How many of these run on this machine."""
        return sum(chore.process is not None and chore.process.boot_id == self._me.boot_id for chore in found)

    def _room(self, active: Sequence[int], running: Sequence[Chore]) -> bool:
        """Whether there may be room for one more; else a claim would only lock the database for nothing."""
        here = self.here(running)
        return len(active) + here < self._slots and sum(active) + here < self._threads

    def busy(self, open_chores: Sequence[Chore]) -> bool:
        """Whether any of these waits, or is this worker's own."""
        return any(chore.state == QUEUED or chore.worker == self._worker for chore in open_chores)

    def renew(self) -> None:
        """Called every few seconds."""
        if self._started:
            renew(self._database, self._worker, self._lease)

    def send_back(self) -> None:
        """Stop what this worker has started; it is done by the next worker."""
        for chore in open_ones(self._database):
            process = self._started.get(_key(chore))
            if process is not None and end(self._database, chore, QUEUED):
                self._executor.stop(process, force=True)

    def _start_one(self) -> Chore | None:
        chore = claim(self._database, self._worker, self._me, threads=self._threads, slots=self._slots, lease=self._lease)
        if chore is None:
            return None
        try:
            process = self._executor.start_chore(chore)
        except (OSError, BadInput) as error:
            self._end(chore, FAILED, f"it could not be started: {error}")
            return chore
        self._started[_key(chore)] = process
        if not started(self._database, chore, process):
            self._executor.stop(process, force=True)
        self._tell(f"run {chore.run}: {chore.kind} started")
        return chore

    def _watch(self, chore: Chore) -> bool:
        """Look after a running chore, unless the worker that started it does. True if it goes on."""
        if not self._responsible(chore):
            return True
        process = self._started.get(_key(chore), chore.process)
        assert process is not None, "a running chore has an owner"
        alive = self._executor.alive(process)
        late = chore.lease_left is not None and chore.lease_left < 0
        if alive is None:
            return not (late and self._end(chore, FAILED, f"its machine {process.host} was not heard of"))
        if not alive:
            self._executor.stop(process, force=True)  # what it may have left behind
            return not self._judge(chore, process)
        if process == self._me:  # claimed by this worker, and never started: the database went away in between
            return not self._end(chore, FAILED, "it could not be started")
        if chore.worker != self._worker and adopt(self._database, chore, self._worker):
            self._started[_key(chore)] = process
        if chore.age is not None and chore.age > self._longest:
            self._executor.stop(process, force=True)
            return not self._end(chore, FAILED, f"it took longer than {self._longest / 60:.0f} minutes and was ended")
        return True

    def _responsible(self, chore: Chore) -> bool:
        """Only the parent of a process is told how it ended, so others wait until that worker is gone."""
        if chore.worker == self._worker or (chore.lease_left is not None and chore.lease_left < 0):
            return True
        others = queue.signed_on(self._database)
        return chore.worker not in others or identity.alive(others[chore.worker][0]) is False

    def _judge(self, chore: Chore, process: Identity) -> bool:
        """Write how a process ended that is no more."""
        try:
            folder = files.run_folder(self._database.folder, chore.run)
        except BadInput as error:
            return self._end(chore, FAILED, str(error)[:500])
        status = self._executor.status(process)
        if status == 0 or (status is None and files.whole(folder / MADE[chore.kind])):
            return self._end(chore, DONE)
        last = files.tail(folder / log_name(chore.kind), 1)
        told = last.removeprefix("error: ") if last.startswith("error: ") else self._executor.ending(process)
        return self._end(chore, FAILED, told[:500])

    def _end(self, chore: Chore, state: str, error: str = "") -> bool:
        ended = end(self._database, chore, state, error)
        if ended:
            self._tell(f"run {chore.run}: {chore.kind} {state}{': ' if error else ''}{error}")
        self._started.pop(_key(chore), None)
        return True

    def _stop_orphans(self, found: Sequence[Chore]) -> None:
        """End processes whose row is gone (the run was deleted) or belongs to somebody else by now."""
        known = {_key(chore) for chore in found if chore.state == RUNNING}
        for key in [key for key in self._started if key not in known]:
            self._executor.stop(self._started.pop(key), force=True)


def _key(chore: Chore) -> tuple[int, str, int]:
    return chore.run, chore.kind, chore.epoch


def _is(run: int, kind: str) -> ColumnElement[bool]:
    return (chores.c.run == run) & (chores.c.kind == kind)


def _read(database: Database, condition: ColumnElement[bool]) -> list[Chore]:
    c = chores.c
    columns = [c.run, c.kind, c.state, c.epoch, c.worker, c.lease_until - now(), now() - c.started_at, c.error]
    wanted = select(*columns, c.host, c.boot_id, c.pid, c.pid_started).where(condition).order_by(c.asked_at, c.run)
    with database.read() as connection:
        rows = connection.execute(wanted).all()
    return [Chore(*row[:8], None if row[10] is None else Identity(row[8], row[9], row[10], row[11])) for row in rows]


def _write(database: Database, chore: Chore, **values: Any) -> bool:
    fence = (_is(chore.run, chore.kind), chores.c.epoch == chore.epoch, chores.c.state == RUNNING)
    statement = update(chores).where(*fence).values(values).returning(chores.c.run)
    return database.write(lambda connection: connection.execute(statement).scalar_one_or_none()) is not None


def _owner(process: Identity) -> dict[str, Any]:
    return {"host": process.host, "boot_id": process.boot_id, "pid": process.pid, "pid_started": process.started}


def _released(state: str) -> dict[str, Any]:
    """Column values of a chore that nobody works at."""
    nobody = {"worker": None, "boot_id": "", "pid": None, "pid_started": "", "lease_until": None}
    return {"state": state, **nobody}
