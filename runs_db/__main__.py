"""The command line of the queue: `python -m runs_db …` (worker, enqueue, list, show, stop, resume, clone, delete, prune, …).

`--json` prints one JSON value as the last line of stdout. Exit status: 0 done, 1 failed (a run, the database or the disk),
2 bad input, told in one line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.arguments import Parser, add_spec_options, guarded, say, seeds_of, spec_from
from engine.options import BadInput
from engine.spec import RunSpec, from_json, make
from runs_db import files
from runs_db.database import Database, Unavailable
from runs_db.migrate import migrate
from runs_db.store import SORTS, Run, Store


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of one command."""
    try:
        args = _parser().parse_args(argv)
        return int(args.command(args))
    except Unavailable as error:
        say(f"error: {error}")
    except BrokenPipeError:
        raise
    except OSError as error:
        say(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m runs_db", description="The queue of runs. RUNS_DB_URL and RUNS_DIR say where it is.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    def add(name: str, command: Any, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(command=command)
        if name not in ("worker", "migrate"):
            sub.add_argument("--json", action="store_true", help="print one JSON value as the last line")
        return sub

    worker = add("worker", _worker, "run what is queued, until Ctrl-C; the database is made or brought up to date first")
    worker.add_argument("--slots", type=int, help="runs at once on this machine (default: its cores)")
    worker.add_argument("--once", action="store_true", help="leave when the queue is empty")

    enqueue = add("enqueue", _enqueue, "put runs into the queue")
    enqueue.add_argument("--spec", metavar="FILE", help="a JSON file with a spec, or a list of specs; - reads stdin")
    enqueue.add_argument("--study", metavar="NAME", help="all runs of a table or figure, see `python -m engine list studies`")
    enqueue.add_argument("--budget", default="quick", help="of a study: quick or full")
    enqueue.add_argument("--seeds", metavar="11,15,19", help="of a study")
    enqueue.add_argument("--name", help="a name for people")
    enqueue.add_argument("--tag", action="append", default=[], dest="tags", metavar="TAG")
    add_spec_options(enqueue)

    listing = add("list", _list, "the runs, newest first")
    for name in ("state", "method", "purifier", "dataset", "tag"):
        listing.add_argument(f"--{name}", action="append", default=[], help="only these; may be given several times")
    listing.add_argument("--sort", default="-id", help=f"one of {', '.join(SORTS)}; --sort=-NAME for descending")
    listing.add_argument("--limit", type=int, default=50, help="at most so many (default 50)")

    add("show", _show, "all that is known of a run").add_argument("run", type=int, metavar="ID")
    for name, command, help in (
        ("stop", _stop, "stop runs; they keep a checkpoint"),
        ("resume", _resume, "put stopped, failed or diverged runs back into the queue"),
        ("delete", _delete, "remove runs with all they have written"),
    ):
        add(name, command, help).add_argument("runs", type=int, nargs="+", metavar="ID")
    clone = add("clone", _clone, "queue the spec of a run again")
    clone.add_argument("run", type=int, metavar="ID")
    clone.add_argument("--seed", type=int)
    prune = add("prune", _prune, "say what could be removed from RUNS_DIR: orphan folders, checkpoints of done runs, old cache")
    prune.add_argument("--yes", action="store_true", help="remove it")
    prune.add_argument("--days", type=float, default=30.0, help="age of a stale cache file (default 30)")
    add("import", _import, "show a run made by `python -m engine train --out DIR`").add_argument("folder", metavar="DIR")
    add("migrate", _migrate, "make the database, or bring it to the newest schema")
    return parser


def _worker(args: argparse.Namespace) -> int:
    from runs_db.worker import Worker

    if args.slots is not None and args.slots < 1:
        raise BadInput(f"--slots {args.slots} is not legal: it must be 1 or more")
    database = Database()
    migrate(database)
    worker = Worker(database, slots=args.slots)
    worker.listen()
    worker.serve(once=args.once)
    return 0


def _enqueue(args: argparse.Namespace) -> int:
    specs = _wanted_specs(args)
    database = Database()
    if database.version() is None:  # nothing there yet: the first run makes the database; an old one is never touched here
        migrate(database)
    ids = Store().enqueue_all(specs, name=args.name, tags=args.tags)
    many = f"runs {ids[0]} to {ids[-1]} are" if len(ids) > 1 else f"run {ids[0]} is"
    return _answer(args, {"id": ids[0], "ids": ids}, f"{many} queued")


def _wanted_specs(args: argparse.Namespace) -> list[RunSpec]:
    if args.spec and args.study:
        raise BadInput("--spec and --study exclude each other")
    if args.study:
        return _study(args)
    if not args.spec:
        return [spec_from(args)]
    try:
        text = sys.stdin.read() if args.spec == "-" else Path(args.spec).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise BadInput(f"--spec {args.spec} cannot be read: {reason}") from None
    try:
        values = json.loads(text)
        if isinstance(values, list) and values:
            return [make(**value) for value in values]
        return [from_json(text)]
    except (json.JSONDecodeError, TypeError) as error:
        raise BadInput(f"--spec {args.spec} is not a spec or a list of specs: {error}") from None


def _study(args: argparse.Namespace) -> list[RunSpec]:
    from engine import studies

    seeds = seeds_of(args.seeds) if args.seeds is not None else None
    found = studies.specs(args.study, dataset=args.dataset, budget=args.budget, seeds=seeds, sets=args.sets)
    if not found:
        raise BadInput(f"--study {args.study} has no runs to queue: python -m engine study {args.study} makes it without")
    return found


def _list(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise BadInput(f"--limit {args.limit} is not legal: it must be 1 or more")
    found = Store().runs(
        states=args.state,
        methods=args.method,
        purifiers=args.purifier,
        datasets=args.dataset,
        tags=args.tag,
        sort=args.sort,
        limit=args.limit,
    )
    if args.json:
        return _answer(args, [asdict(run) for run in found], "")
    if not found:
        say("no runs; `python -m runs_db enqueue` queues one")
    for line in _table([("id", "state", "progress", "run", "dataset", "seed", "name"), *map(_row, found)]):
        print(line)
    return 0


def _show(args: argparse.Namespace) -> int:
    store = Store()
    run, spec = store.get(args.run), store.spec(args.run)
    shown = {**asdict(run), "spec": json.loads(spec.to_json()), "folder": str(store.folder(args.run))}
    if args.json:
        return _answer(args, shown, "")
    for name, value in shown.items():
        if value not in (None, "", ()):
            print(f"{name:15} {_words(name, value)}")
    tail = store.log_tail(args.run, 10)
    if tail:
        print(f"\nlog, last lines:\n{tail}")
    return 0


def _stop(args: argparse.Namespace) -> int:
    store = Store()
    states = {run: store.request_stop(run) for run in args.runs}
    return _answer(args, states, "\n".join(f"run {run} is {state}" for run, state in states.items()))


def _resume(args: argparse.Namespace) -> int:
    store = Store()
    for run in args.runs:
        store.resume(run)
    return _answer(args, dict.fromkeys(args.runs, "queued"), "\n".join(f"run {run} is queued" for run in args.runs))


def _delete(args: argparse.Namespace) -> int:
    gone = Store().delete(args.runs)
    return _answer(args, {"deleted": gone}, f"deleted {', '.join(map(str, gone))}")


def _clone(args: argparse.Namespace) -> int:
    run = Store().clone(args.run, args.seed)
    return _answer(args, {"id": run, "parent": args.run}, f"run {run} is queued, a clone of {args.run}")


def _prune(args: argparse.Namespace) -> int:
    if args.days < 0:
        raise BadInput(f"--days {args.days:g} is not legal: it must be 0 or more")
    store = Store()
    waste = store.waste(args.days)
    size = files.remove_waste(store.database.folder, waste) if args.yes else sum(item.bytes for item in waste)
    lines = [f"{item.bytes / 1e6:10.1f} MB  {item.path}  ({item.why})" for item in waste]
    lines.append(
        f"{size / 1e6:10.1f} MB {'freed' if args.yes else 'could be freed: add --yes'}" if waste else "nothing to remove"
    )
    found = [{"path": str(item.path), "why": item.why, "bytes": item.bytes} for item in waste]
    return _answer(args, {"removed": args.yes, "bytes": size, "found": found}, "\n".join(lines))


def _import(args: argparse.Namespace) -> int:
    from runs_db.imports import import_folder

    database = Database()
    if database.version() is None:
        migrate(database)
    imported = import_folder(Store(), args.folder)
    words = f"was already imported as run {imported.run}" if imported.again else f"is run {imported.run}"
    return _answer(args, {"id": imported.run, "again": imported.again}, f"{args.folder} {words}")


def _migrate(args: argparse.Namespace) -> int:
    database = Database()
    changed = migrate(database)
    print(f"the database at {database.place} {'is now' if changed else 'was already'} up to date")
    return 0


def _answer(args: argparse.Namespace, value: Any, words: str) -> int:
    print(json.dumps(value) if args.json else words)
    return 0


def _row(run: Run) -> tuple[str, ...]:
    progress = f"{100 * run.progress:.0f} %" if run.progress is not None and run.active else ""
    if run.active and run.eta_seconds is not None:
        progress += f", {run.eta_seconds:.0f} s left"
    return str(run.id), run.state, progress, run.label, run.dataset, str(run.seed), run.name


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _words(name: str, value: Any) -> str:
    if name.endswith("_at"):
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


if __name__ == "__main__":
    sys.exit(guarded(main))
