"""The command line of the engine: `python -m engine …`. Its names and outputs are a contract (docs/cli.md)."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.arguments import Parser, add_spec_options, guarded, say, seeds_of, spec_from
from engine.data import FETCHED
from engine.options import BadInput, Diverged, Stopped


def main(argv: list[str] | None = None) -> int:
    """Run a command; the exit status is 0 done, 1 failed, 2 bad input."""
    parser = _parser()
    return guarded(lambda: _dispatch(parser.parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m engine", description="Train, evaluate and measure; results of runs in the app: runs_db.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    listing = commands.add_parser("list", help="what there is, with every option")
    listing.add_argument("what", choices=("methods", "purifiers", "datasets", "studies"))
    listing.set_defaults(act=_list)

    train = commands.add_parser("train", help="train and evaluate one run")
    add_spec_options(train)
    train.add_argument("--out", type=Path, help="folder to keep the run in (default: a new one under RUNS_DIR/cli)")
    train.add_argument("--resume", type=Path, metavar="DIR", help="go on with a stopped run; its spec is used")
    train.set_defaults(act=_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a finished run again")
    evaluate.add_argument("--run", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--episodes", type=int, default=1000, help="distinct test users, at most all (default 1000)")
    evaluate.add_argument("--lam", type=float, help="λ told to a λ-conditioned manager")
    evaluate.add_argument("--steps", type=int, help="reverse diffusion steps, 0 to the number trained with")
    evaluate.add_argument("--seed", type=int, default=0, help="which users and luck (default 0, as in training's evaluation)")
    evaluate.set_defaults(act=_evaluate)

    exported = commands.add_parser("export", help="a finished run's policy as one file for services without this project")
    exported.add_argument("--run", type=Path, required=True, metavar="DIR")
    exported.add_argument("--out", type=Path, required=True, metavar="FILE.pt2", help="the file to write")
    exported.add_argument("--lam", type=float, help="λ where the service tells none (default: that of the run)")
    exported.add_argument("--steps", type=int, help="reverse diffusion steps, 0 to the number trained with")
    exported.set_defaults(act=_export)

    drawn = commands.add_parser("map", help="draw UMAP and t-SNE maps of a finished run's test users, for the app")
    drawn.add_argument("--run", type=Path, required=True, metavar="DIR")
    drawn.set_defaults(act=_map)

    report = commands.add_parser("purify-report", help="raw, purified and clean states, measured on unseen users")
    add_spec_options(report, evaluates=False)
    report.add_argument("--seeds", help="comma-separated; each value then has mean, low and high")
    report.set_defaults(act=_purify_report)

    posterior = commands.add_parser("posterior-report", help="what the diffusion's draws are worth beside a regression")
    add_spec_options(posterior, evaluates=False)
    posterior.add_argument("--seeds", help="comma-separated; each value then has mean, low and high")
    posterior.set_defaults(act=_posterior_report)

    data = commands.add_parser("data", help="fetch or inspect a dataset")
    actions = data.add_subparsers(dest="action", required=True, metavar="ACTION", parser_class=Parser)
    fetch = actions.add_parser("fetch", help="get a dataset's files")
    fetch.add_argument("name", choices=FETCHED)
    fetch.add_argument("--to", type=Path, help="folder (default DATA_DIR, else data/)")
    fetch.set_defaults(act=_fetch)
    inspect = actions.add_parser("inspect", help="numbers of a dataset")
    inspect.add_argument("name", help="a name, or a path to a .csv or .parquet log")
    inspect.add_argument(
        "--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", dest="sets",
        help="dataset.OPTION=VALUE; world.train=fitted holds a world fitted to a generated log against the truth",
    )  # fmt: skip
    inspect.set_defaults(act=_inspect)

    study = commands.add_parser("study", help="a table or figure: its runs, and a page with what they say")
    study.add_argument("name", help="see `python -m engine list studies`")
    study.add_argument("--dataset", default="synthetic", help="a name, or a path to a .csv or .parquet log")
    study.add_argument("--budget", default="quick", help="quick (minutes, small worlds) or full (the paper's 20,000 sessions)")
    study.add_argument("--seeds", help="comma-separated (default 11,15,19)")
    study.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each (default 2)")
    study.add_argument("--out", type=Path, default=Path("docs/results"), help="folder of the pages (default docs/results)")
    study.add_argument("--set", action="append", default=[], metavar="SECTION.OPTION=VALUE", dest="sets")
    study.set_defaults(act=_study)

    tuned = commands.add_parser("tune", help="try points of a method's own grid of options (20,000 episodes each unless told)")
    add_spec_options(tuned, evaluates=False)  # trials are judged by training users whom training leaves out
    tuned.add_argument("--trials", type=int, default=20, help="points of the grid (default 20)")
    tuned.add_argument(
        "--grid", action="append", default=[], metavar="OPTION=V,V,…", help="in place of the method's own grid; repeat for more"
    )
    tuned.add_argument("--final-seeds", metavar="SEEDS", help="train the best three with these seeds too, as in 15,19")
    tuned.add_argument("--storage", metavar="URL", help="database of the trials (default: tuning.db under RUNS_DIR)")
    tuned.add_argument("--out", type=Path, help="folder to write the trials to, as a page and a table")
    tuned.set_defaults(act=_tune)

    for command in (listing, train, evaluate, exported, drawn, report, posterior, fetch, inspect, study, tuned):
        command.add_argument("--json", action="store_true", help="one JSON value as the last line of stdout")
    return parser


def _dispatch(args: argparse.Namespace) -> int:
    try:
        status: int = args.act(args)
        return status
    except Stopped as error:
        say(f"stopped: {error}")
        return 1
    except Diverged as error:
        say(f"failed: {error}")
        return 1


def _print(args: argparse.Namespace, value: Any, text: str) -> int:
    print(json.dumps(value) if args.json else text)
    return 0


def _list(args: argparse.Namespace) -> int:
    from engine.catalog import listing

    rows = listing(args.what)
    lines = []
    for row in rows:
        lines.append(f"{row['name']:15} {row['summary']}")
        for name, field in row["config"].items():
            lines.append(f"    {name} = {field['default']}: {field['doc']} ({field['range']}; {field['source']})")
    return _print(args, rows, "\n".join(lines))


def _train(args: argparse.Namespace) -> int:
    from engine import run, spec
    from engine.cache import folder as cache_folder
    from engine.recorder import FolderRecorder

    if args.resume is not None:
        if not (args.resume / run.SPEC).is_file():
            raise BadInput(f"--resume {str(args.resume)!r} is not legal: it holds no {run.SPEC}; it must be a run's folder")
        wanted, folder = spec.from_json((args.resume / run.SPEC).read_text()), args.resume
    else:
        wanted = spec_from(args)
        folder = args.out
        if folder is None:
            root = cache_folder().parent / "cli"
            _writable(root)
            folder = Path(tempfile.mkdtemp(prefix=f"{wanted.method}-{wanted.seed}-", dir=root))
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BadInput(
                f"--out {str(folder)!r} is not legal: it exists already; give a new or empty folder, or use --resume"
            )
    _writable(folder)
    recorder = FolderRecorder(folder)
    recorder.listen()
    try:
        result = run.run(wanted, recorder, folder)
    except Stopped as error:
        say(f"stopped: {error}; go on with: python -m engine train --resume {folder}")
        return 1
    finally:
        recorder.flush()
    say(f"kept in {folder}")
    return _print(args, result.metrics, _table({wanted.label(): result.metrics}))


def _evaluate(args: argparse.Namespace) -> int:
    from engine.run import evaluate_run

    if args.episodes < 1:
        raise BadInput(f"--episodes {args.episodes} is not legal: it must be 1 or more")
    if args.seed < 0:
        raise BadInput(f"--seed {args.seed} is not legal: it must be 0 or more")
    measured = evaluate_run(args.run, episodes=args.episodes, lam=args.lam, steps=args.steps, luck=args.seed)
    return _print(args, measured, _table({str(args.run): measured}))


def _export(args: argparse.Namespace) -> int:
    from engine.export import export

    _writable(args.out.parent)
    made = export(args.run, args.out, lam=args.lam, steps=args.steps)
    checked = made["checked"]
    text = f"{made['file']}: {made['method']}, {made['bytes'] / 2**20:.1f} MiB"
    return _print(args, made, f"{text}; {checked['equal']} of {checked['slates']} slates as the policy's in test sessions")


def _map(args: argparse.Namespace) -> int:
    from engine.maps import make

    made = make(args.run, say)
    text = f"maps of {made['users']} users are in {made['file']}{', as they were' if made['again'] else ''}"
    return _print(args, made, text)


def _purify_report(args: argparse.Namespace) -> int:
    from engine.report import purify_report

    seeds = seeds_of(args.seeds) if args.seeds is not None else None
    table = purify_report(spec_from(args), seeds, say)
    return _print(args, table, _table(table))


def _posterior_report(args: argparse.Namespace) -> int:
    from engine.posterior import posterior_report

    seeds = seeds_of(args.seeds) if args.seeds is not None else None
    found = posterior_report(spec_from(args), seeds, say)
    lines = []
    for part, by_length in found.items():
        for length, rows in (by_length or {}).items():
            named = rows if part != "coverage" else {"diffusion": rows}
            lines += ["", f"{part}, {length} interactions known", _table(named) if len(named) > 1 else "\n".join(_lines(rows))]
    return _print(args, found, "\n".join(lines[1:]))


def _fetch(args: argparse.Namespace) -> int:
    from engine import catalog
    from engine.data.fetch import data_folder

    module = catalog.find("datasets", args.name)
    folder = (args.to or data_folder()) / args.name
    if not module.present(folder):
        _writable(folder)
    rows = module.fetched(folder, say)
    return _print(args, {"name": args.name, "folder": str(folder), "rows": rows}, f"{args.name} is in {folder}")


def _inspect(args: argparse.Namespace) -> int:
    from engine.report import inspect
    from engine.spec import make, parse_sets

    row = inspect(make(dataset=args.name, method="random", settings=parse_sets(args.sets)), say)
    told = row["fidelity"]
    lines = _lines({name: value for name, value in row.items() if name != "fidelity"})
    if told is None:
        lines.append(
            "fidelity: its clicks are generated; --set world.train=fitted holds a fitted train world against the truth"
        )
    for part, own in (told or {}).items():
        lines += ["", f"The {part} world, fitted to {row[f'{part}_interactions']} interactions", *_trust(own)]
    return _print(args, row, "\n".join(lines))


def _trust(told: dict[str, Any]) -> list[str]:
    """A Fidelity for people: single numbers, then a table by predicted probability and one by popularity."""
    lines = _lines(told)
    for title, bins in (
        ("held-out responses by predicted probability", told["calibration"]),
        ("held-out responses by popularity of the item", told["popularity"]),
        ("pairs drawn from all users and items, by popularity; observed: the truth", (told["truth"] or {}).get("popularity")),
    ):
        if bins:
            lines += [f"{title}:", _table({str(number): dict(own) for number, own in enumerate(bins, 1)})]
    return lines


def _study(args: argparse.Namespace) -> int:
    from engine.studies.ask import asked
    from engine.studies.running import RunFailed
    from engine.studies.study import run_study

    seeds = seeds_of(args.seeds) if args.seeds is not None else None
    ask = asked(args.name, dataset=args.dataset, budget=args.budget, seeds=seeds, sets=args.sets)
    if args.jobs < 1:
        raise BadInput(f"--jobs {args.jobs} is not legal: it must be 1 or more")
    ask.module.specs(ask)  # says what is wrong with the rest before a folder is made
    _writable(args.out)
    line = ["python", "-m", "engine", "study", args.name, "--dataset", args.dataset, "--budget", args.budget]
    line += ["--seeds", args.seeds] if args.seeds is not None else []
    for text in args.sets:
        line += ["--set", text]
    try:
        made = run_study(ask, args.jobs, args.out, shlex.join(line), say)
    except RunFailed as error:
        say(f"failed: {error}")
        return 1
    return _print(args, made, "\n".join([*made["findings"], "", *made["files"]]))


def _tune(args: argparse.Namespace) -> int:
    from engine.cache import folder as cache_folder
    from engine.studies.tune import default_storage, page, shown, tune

    if args.trials < 1:
        raise BadInput(f"--trials {args.trials} is not legal: it must be 1 or more")
    spec = spec_from(args)
    final_seeds = seeds_of(args.final_seeds, "--final-seeds") if args.final_seeds is not None else []
    if args.storage is None:
        _writable(cache_folder().parent)
    if args.out is not None:
        _writable(args.out)
    try:
        found = tune(spec, args.trials, args.storage or default_storage(), say, final_seeds, args.grid)
    except KeyboardInterrupt:
        raise Stopped("finished trials are kept; the same command goes on from there") from None
    for file in page(found, args.out) if args.out is not None else []:
        say(f"written: {file}")
    rows = {shown(row["settings"]): row for row in sorted(found["trials"], key=lambda row: -(row["r_cum"] or 0))}
    return _print(args, found, _table({name: {**row, "settings": None} for name, row in rows.items()}))


def _lines(row: dict[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for name, value in row.items():
        if isinstance(value, dict):
            lines += _lines(value, f"{prefix}{name}.")
        elif not isinstance(value, list | tuple):
            lines.append(f"{prefix}{name}: {_number(value)}")
        elif len(value) == 2 and all(isinstance(end, float) for end in value):
            lines.append(f"{prefix}{name}: {_number(value[0])} to {_number(value[1])}")
    return lines


def _writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadInput(
            f"folder {str(folder)!r} cannot be written: {error.strerror}; it must be a folder you may write"
        ) from None


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and {"mean", "low", "high"} <= set(value):
        return "–" if value["mean"] is None else f"{value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    return "–" if value is None else str(value)


def _table(rows: dict[str, dict[str, Any]]) -> str:
    """Rows of numbers for people; nested values are left to --json."""
    columns = list(dict.fromkeys(name for row in rows.values() for name, value in row.items() if _flat(value)))
    body = [["", *columns], *([name, *(_number(row.get(column)) for column in columns)] for name, row in rows.items())]
    if len(rows) == 1:
        body = [list(pair) for pair in zip(*body, strict=True)]
    widths = [max(len(line[place]) for line in body) for place in range(len(body[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in body)


def _flat(value: Any) -> bool:
    return value is None or isinstance(value, int | float) or (isinstance(value, dict) and "mean" in value)


if __name__ == "__main__":
    sys.exit(main())
