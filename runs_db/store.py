"""What pages and the command line ask of the database, and the changes people make. Nothing here is called by a trainer.

Everything returned is a frozen copy, a list or a DataFrame. Reads fetch what is drawn, never everything. Bad input raises
BadInput, a locked database or a full disk Unavailable; both carry one sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, delete, func, insert, literal, select, true, update

from engine.options import BadInput, suggest
from engine.spec import RunSpec
from runs_db import chores, files, identity, queue, specs
from runs_db.database import Database
from runs_db.models import (
    ACTIVE,
    DONE,
    QUEUED,
    STATES,
    episodes,
    metric_names,
    metrics,
    now,
    runs,
    workers,
)

if TYPE_CHECKING:
    import pandas as pd

SORTS = (
    "id",
    "name",
    "state",
    "label",
    "dataset",
    "method",
    "purifier",
    "seed",
    "group_key",
    "created_at",
    "started_at",
    "ended_at",
    "seconds",
    "progress",
)
NAME_LENGTH, TAG_LENGTH, TAGS, NOTES_LENGTH = 80, 30, 20, 4000
WORKER_SILENCE = 20.0  # seconds after which a worker without a heartbeat counts as gone


@dataclass(frozen=True)
class Run:
    """A row of `runs` as it was when it was read, without the text of its spec (`Store.spec`).

    Times are seconds since 1970; seconds: worked, all attempts together; summary: `Result.metrics` of a done run;
    threads: CPU threads; epoch: how often it was started; lease_left: seconds, negative when its owner has been silent for
    too long and no worker has looked after it; imported: made elsewhere.
    """

    id: int
    name: str
    state: str
    label: str
    dataset: str
    method: str
    purifier: str
    seed: int
    group_key: str
    threads: int
    epoch: int
    stop_requested: str
    host: str
    lease_left: float | None
    progress: float | None
    stage: str
    stage_done: float | None
    stage_total: float | None
    eta_seconds: float | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    seconds: float
    error: str
    summary: Mapping[str, Any] | None
    tags: tuple[str, ...]
    notes: str
    parent: int | None
    imported: bool

    @property
    def active(self) -> bool:
        """Whether a process owns it now."""
        return self.state in ACTIVE


@dataclass(frozen=True)
class WorkerInfo:
    """A worker that is alive. heartbeat_seconds: how long ago it last said so."""

    id: int
    host: str
    pid: int
    slots: int
    threads: int
    started_at: float
    heartbeat_seconds: float


class Store:
    """Opens the database and checks its schema. Raises BadInput, naming the command that mends it.

    url, folder: RUNS_DB_URL and RUNS_DIR when None. busy: seconds to wait for another writer (SQLite).
    """

    def __init__(self, url: str | None = None, folder: Path | str | None = None, *, busy: float = 30.0) -> None:
        self.database = Database(url, folder, busy=busy)
        self.database.check()

    # Reading

    def get(self, run: int) -> Run:
        """One run. Raises BadInput if there is none."""
        with self.database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(runs.c.id == run)).one_or_none()
        if row is None:
            raise BadInput(f"run {run} does not exist")
        return _run(row)

    def runs(
        self,
        *,
        ids: Iterable[int] | None = None,
        states: Iterable[str] = (),
        methods: Iterable[str] = (),
        purifiers: Iterable[str] = (),
        datasets: Iterable[str] = (),
        tags: Iterable[str] = (),
        group: str | None = None,
        groups: Iterable[str] | None = None,
        sort: str = "-id",
        limit: int = 1000,
        offset: int = 0,
    ) -> list[Run]:
        """Runs that satisfy all filters given (any of its values each, all of `tags`). sort: a column, `-` for descending.
        ids, groups: none at all where they are empty.

        One query, whatever the number of runs. Raises BadInput for an unknown state or sort.
        """
        wanted = select(*_COLUMNS).where(*_conditions(ids, states, methods, purifiers, datasets, tags, group))
        if groups is not None:
            wanted = wanted.where(runs.c.group_key.in_(list(groups)))
        name = sort.removeprefix("-")
        if name not in SORTS:
            raise BadInput(f"sort = {sort!r} is not legal{suggest(name, SORTS)}, with - in front for descending")
        column = runs.c[name]
        order = [column.desc().nulls_last(), runs.c.id.desc()] if sort.startswith("-") else [column.nulls_last(), runs.c.id]
        with self.database.read() as connection:
            return [_run(row) for row in connection.execute(wanted.order_by(*order).limit(limit).offset(offset))]

    def counts(self) -> dict[str, int]:
        """State → number of runs, all states present."""
        with self.database.read() as connection:
            rows = connection.execute(select(runs.c.state, func.count()).group_by(runs.c.state)).all()
        found = {row[0]: row[1] for row in rows}
        return {state: found.get(state, 0) for state in STATES}

    def tags(self) -> list[str]:
        """All tags in use, sorted."""
        with self.database.read() as connection:
            texts = connection.execute(select(runs.c.tags).where(runs.c.tags != "[]").distinct()).scalars().all()
        return sorted({tag for text in texts for tag in json.loads(text)})

    def spec(self, run: int) -> RunSpec:
        """What a run was asked to do. Raises BadInput if it does not exist."""
        found = self.specs([run])
        if run not in found:
            raise BadInput(f"run {run} does not exist")
        return found[run]

    def specs(self, ids: Iterable[int]) -> dict[int, RunSpec]:
        """Run id → spec, for those that exist."""
        with self.database.read() as connection:
            rows = connection.execute(select(runs.c.id, runs.c.spec).where(runs.c.id.in_(list(ids)))).all()
        return {row[0]: specs.stored_spec(row[1]) for row in rows}

    def metric_names(self, ids: Iterable[int]) -> list[str]:
        """Names of the metrics that any of the runs has written, sorted."""
        has = select(literal(1)).where(metrics.c.run.in_(list(ids)), metrics.c.name == metric_names.c.id).exists()
        with self.database.read() as connection:
            return list(connection.execute(select(metric_names.c.name).where(has).order_by(metric_names.c.name)).scalars())

    def series(self, ids: Iterable[int], names: Iterable[str], after_step: int | None = None) -> pd.DataFrame:
        """Columns run, name, step, value, ordered by these; with `after_step` only what came after, for live pages."""
        import pandas as pd

        columns = [metrics.c.run, metric_names.c.name, metrics.c.step, metrics.c.value]
        wanted = select(*columns).join(metric_names, metrics.c.name == metric_names.c.id)
        wanted = wanted.where(metrics.c.run.in_(list(ids)), metric_names.c.name.in_(list(names)))
        if after_step is not None:
            wanted = wanted.where(metrics.c.step > after_step)
        with self.database.read() as connection:
            rows = connection.execute(wanted.order_by(metrics.c.run, metric_names.c.name, metrics.c.step)).all()
        return pd.DataFrame(rows, columns=["run", "name", "step", "value"])

    def last_values(self, ids: Iterable[int], names: Iterable[str]) -> dict[int, dict[str, float]]:
        """Run id → {metric: its value at the last step}."""
        newest = (
            select(metrics.c.value)
            .where(metrics.c.run == runs.c.id, metrics.c.name == metric_names.c.id)
            .order_by(metrics.c.step.desc())
            .limit(1)
            .scalar_subquery()
        )
        wanted = select(runs.c.id, metric_names.c.name, newest).select_from(runs.join(metric_names, true()))
        wanted = wanted.where(runs.c.id.in_(list(ids)), metric_names.c.name.in_(list(names)))
        found: dict[int, dict[str, float]] = {}
        with self.database.read() as connection:
            for run, name, value in connection.execute(wanted):
                if value is not None:
                    found.setdefault(run, {})[name] = value
        return found

    def episodes(self, run: int) -> pd.DataFrame:
        """The per-user evaluation rows of a done run: user, len, r_cum, r_each, ad, head_share, utility (NaN if unknown)."""
        import pandas as pd

        columns = [column for column in episodes.c if column.name != "run"]
        with self.database.read() as connection:
            rows = connection.execute(select(*columns).where(episodes.c.run == run).order_by(episodes.c.user)).all()
        frame = pd.DataFrame(rows, columns=[column.name for column in columns])
        return frame.astype(dict.fromkeys(queue.EPISODE_COLUMNS, float))

    def workers(self) -> list[WorkerInfo]:
        """Workers that are alive."""
        c = workers.c
        columns = [c.id, c.host, c.pid, c.slots, c.threads, c.started_at, now() - c.heartbeat_at, c.boot_id, c.pid_started]
        with self.database.read() as connection:
            rows = connection.execute(select(*columns).order_by(c.id)).all()
        found = []
        for *values, boot_id, started in rows:
            info = WorkerInfo(*values)
            known = identity.alive(identity.Identity(info.host, boot_id, info.pid, started))
            if known or (known is None and info.heartbeat_seconds < WORKER_SILENCE):
                found.append(info)
        return found

    def seconds_per_episode(self, method: str, purifier: str, dataset: str) -> float | None:
        """See `specs.seconds_per_episode`."""
        return specs.seconds_per_episode(self.database, method, purifier, dataset)

    def expected_seconds(self, spec: RunSpec) -> float | None:
        """See `specs.expected_seconds`."""
        return specs.expected_seconds(self.database, spec)

    # Changing

    def enqueue(self, spec: RunSpec, name: str | None = None, tags: Iterable[str] = (), parent: int | None = None) -> int:
        """Put a run into the queue; its id. Raises BadInput for a name or tag that is not legal."""
        return self.enqueue_all([spec], name, tags, parent)[0]

    def enqueue_all(
        self, wanted: Sequence[RunSpec], name: str | None = None, tags: Iterable[str] = (), parent: int | None = None
    ) -> list[int]:
        """Put runs into the queue, all or none; their ids in the same order."""
        extra = {"name": legal_name(name or ""), "tags": _tags_text(legal_tags(tags)), "parent": parent}

        def work(connection: Connection) -> list[int]:
            return [insert_run(connection, self.database.folder, spec, {**extra, "state": QUEUED}) for spec in wanted]

        return self.database.write(work)

    def clone(self, run: int, seed: int | None = None) -> int:
        """Queue the same spec again, with another seed if given; the id of the new run."""
        original = self.get(run)
        spec = self.spec(run)
        if seed is not None:
            if isinstance(seed, bool) or seed < 0:
                raise BadInput(f"seed = {seed!r} is not legal: it must be a whole number, 0 or more")
            spec = replace(spec, seed=seed)
        return self.enqueue(spec, original.name, original.tags, parent=run)

    def request_stop(self, run: int) -> str:
        """Ask a run to stop: a queued one at once, an active one within seconds. Its state now. Raises BadInput."""
        state = queue.ask(self.database, run, queue.STOP)
        if state is None:
            raise BadInput(f"run {run} is {self.get(run).state}: only a run that is queued or running can be stopped")
        return state

    def resume(self, run: int) -> None:
        """Put a stopped, failed or diverged run back into the queue; it goes on from its checkpoint. Raises BadInput."""
        if not queue.resume(self.database, run):
            found = self.get(run)
            way = "clone it to run it again" if found.state == DONE else "only stopped, failed and diverged runs can"
            raise BadInput(f"run {run} is {found.state}, it cannot be resumed: {way}")

    def ask_chore(self, run: int, kind: str = chores.MAPS) -> str:
        """Ask a worker for something that a done run can have, such as its maps; the chore's state now. Raises BadInput."""
        return chores.ask(self.database, run, kind)

    def chore(self, run: int, kind: str = chores.MAPS) -> chores.Chore | None:
        """How a chore stands; None where nobody has asked for it."""
        return chores.find(self.database, run, kind)

    def set_name(self, run: int, name: str) -> None:
        """Raises BadInput for more than 80 characters or one that does not print."""
        self._set(run, name=legal_name(name))

    def set_tags(self, run: int, tags: Iterable[str]) -> None:
        """Replace the tags. Raises BadInput for a tag that is not legal."""
        self._set(run, tags=_tags_text(legal_tags(tags)))

    def set_notes(self, run: int, notes: str) -> None:
        """Raises BadInput for more than 4000 characters or one that does not print."""
        if len(notes) > NOTES_LENGTH:
            raise BadInput(f"notes have {len(notes)} characters, they may have {NOTES_LENGTH}")
        if not notes.replace("\n", "").replace("\t", "").isprintable():
            raise BadInput("notes hold a character that does not print: they may hold text, spaces and line ends")
        self._set(run, notes=notes)

    def delete(self, ids: Iterable[int]) -> list[int]:
        """Remove runs, all or none, with their metrics and folders. Raises BadInput if one is active or does not exist."""
        wanted = sorted({int(run) for run in ids})

        def work(connection: Connection) -> None:
            chosen = select(runs.c.id, runs.c.state).where(runs.c.id.in_(wanted)).with_for_update()
            found = {row[0]: row[1] for row in connection.execute(chosen)}
            missing = [str(run) for run in wanted if run not in found]
            if missing:
                raise BadInput(f"run {', '.join(missing)} does not exist")
            busy = [f"{run} is {state}" for run, state in found.items() if state in ACTIVE]
            if busy:
                raise BadInput(f"run {', '.join(busy)}: stop it first, then delete it")
            connection.execute(delete(runs).where(runs.c.id.in_(wanted)))

        self.database.write(work)
        for run in wanted:
            files.remove_run_folder(self.database.folder, run)
        return wanted

    # Folders

    def folder(self, run: int) -> Path:
        """The folder of a run: its log, checkpoints, policy and states."""
        return files.run_folder(self.database.folder, run)

    def log_path(self, run: int) -> Path:
        """The log of a run; the file exists once the run has started."""
        return self.folder(run) / files.LOG

    def log_tail(self, run: int, lines: int = 100) -> str:
        """The last lines of the log, at most 64 KB; empty before the run has started."""
        return files.tail(self.log_path(run), lines)

    def chore_tail(self, run: int, kind: str = chores.MAPS) -> str:
        """The last line that a chore has said; empty before it has started."""
        return files.tail(self.folder(run) / chores.log_name(kind), 1)

    def waste(self, cache_days: float = 30.0) -> list[files.Waste]:
        """What `prune` would remove: orphan folders, checkpoints of done runs, stale cache files."""
        with self.database.read() as connection:
            found = connection.execute(select(runs.c.id, runs.c.state)).all()
        done = [run for run, state in found if state == DONE]
        return files.find_waste(self.database.folder, [run for run, _ in found], done, cache_days)

    def _set(self, run: int, **values: str) -> None:
        statement = update(runs).where(runs.c.id == run).values(values).returning(runs.c.id)
        if self.database.write(lambda connection: connection.execute(statement).scalar_one_or_none()) is None:
            raise BadInput(f"run {run} does not exist")


def insert_run(connection: Connection, folder: Path, spec: RunSpec, extra: Mapping[str, Any]) -> int:
    """A new row, and no leftover folder in its way; its id. `extra`: columns beyond those that follow from the spec."""
    values: dict[str, Any] = {
        "name": "",
        "spec": spec.to_json(),
        "group_key": spec.group(),
        "dataset": spec.dataset,
        "method": spec.method,
        "purifier": spec.purifier,
        "seed": spec.seed,
        "label": spec.label(),
        "threads": spec.threads,
        "stop_requested": "",
        "epoch": 0,
        "attempts": 0,
        "host": "",
        "boot_id": "",
        "pid_started": "",
        "stage": "",
        "created_at": now(),
        "seconds": 0.0,
        "error": "",
        "tags": "[]",
        "notes": "",
        **extra,
    }
    run = int(connection.execute(insert(runs).values(values).returning(runs.c.id)).scalar_one())
    files.set_aside(folder, run)
    return run


def legal_name(name: str) -> str:
    """`name` without spaces around it. Raises BadInput."""
    name = name.strip()
    if len(name) > NAME_LENGTH or not name.isprintable():
        raise BadInput(f"name = {name[:40]!r} is not legal: it must be at most {NAME_LENGTH} printable characters")
    return name


def legal_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """Tags without repetition, in the order given. Raises BadInput."""
    if isinstance(tags, str):
        raise BadInput(f"tags = {tags!r} is not legal: it must be a list of texts")
    unique = tuple(dict.fromkeys(tag.strip() for tag in tags))
    for tag in unique:
        if not re.fullmatch(rf"[\w.:+/-][\w.:+/ -]{{0,{TAG_LENGTH - 1}}}", tag):
            raise BadInput(
                f"tag = {tag[:40]!r} is not legal: it must be 1 to {TAG_LENGTH} letters, digits, spaces or one of _ . : + / -"
            )
    if len(unique) > TAGS:
        raise BadInput(f"{len(unique)} tags are too many: a run may have {TAGS}")
    return unique


_COMPUTED = {"imported": runs.c.source.is_not(None), "lease_left": runs.c.lease_until - now()}
_COLUMNS = [_COMPUTED[name].label(name) if name in _COMPUTED else runs.c[name] for name in Run.__dataclass_fields__]


def _run(row: Any) -> Run:
    values = dict(row._mapping)
    values["tags"] = tuple(json.loads(values["tags"]))
    values["summary"] = None if values["summary"] is None else json.loads(values["summary"])
    values["imported"] = bool(values["imported"])
    return Run(**values)


def _tags_text(tags: tuple[str, ...]) -> str:
    return json.dumps(tags, ensure_ascii=False)


def _conditions(
    ids: Iterable[int] | None,
    states: Iterable[str],
    methods: Iterable[str],
    purifiers: Iterable[str],
    datasets: Iterable[str],
    tags: Iterable[str],
    group: str | None,
) -> list[ColumnElement[bool]]:
    states = list(states)
    for state in states:
        if state not in STATES:
            raise BadInput(f"state = {state!r} is not legal{suggest(state, STATES)}")
    found: list[ColumnElement[bool]] = []
    for column, values in (("state", states), ("method", methods), ("purifier", purifiers), ("dataset", datasets)):
        chosen = list(values)
        if chosen:
            found.append(runs.c[column].in_(chosen))
    if ids is not None:
        found.append(runs.c.id.in_(list(ids)))
    if group is not None:
        found.append(runs.c.group_key == group)
    for tag in tags:
        found.append(runs.c.tags.contains(json.dumps(tag, ensure_ascii=False), autoescape=True))
    return found
