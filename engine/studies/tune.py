"""Fair tuning: an equal number of trials from each method's own small grid, judged where the test world is never asked.

A trial trains in the train world and is judged by R_cum of greedy sessions with the train world's held-out users, whom
training leaves out too (`learn.rollout.held_out_users`), each met under several lucks. Trials are kept by Optuna; the same
command goes on from those that are kept, and several processes may share them.

One seed can mislead, so the best FINALISTS are trained with further seeds too where these are given, and the best by the mean
over all seeds wins.

Trials train as long as the runs that the defaults are for: an actor–critic's best step size for 4,000 sessions is among its
worst for 20,000, where it has stopped exploring and shows what is popular (docs/methods.md).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock

from engine import cache, catalog, checkpoint, run
from engine.contracts import Budget, Policy
from engine.learn.curve import Curve
from engine.learn.rollout import play
from engine.metrics import summary
from engine.options import BadInput, Diverged, describe
from engine.recorder import MemoryRecorder, Progress
from engine.spec import RunSpec, make
from engine.state.stage import Stage
from engine.studies import tables
from engine.studies.tables import COLUMNS, Column, Row, Table
from engine.world.simulator import Simulator

BEAT = 20  # seconds between the signs of life of a running trial
LUCKS = 4  # sessions that each validation user has in a trial
FINALISTS = 3
MEASURES = ("r_cum", "r_each", "len", "ad")
Say = Callable[[str], None]


def default_storage() -> str:
    """`tuning.db` under RUNS_DIR: Optuna migrates its tables itself, so they have a file of their own."""
    return f"sqlite:///{(cache.folder().parent / 'tuning.db').as_posix()}"


def tune(
    spec: RunSpec, trials: int, storage: str, say: Say, final_seeds: Sequence[int] = (), own_grid: Sequence[str] = ()
) -> dict[str, Any]:
    """Runs what is missing of `trials` trials, and of the finalists' with `final_seeds`, and returns grid, trials and winner.
    Raises BadInput.

    spec: dataset, method, purifier, budget, seed and all settings that the grid does not touch. With a grid of fewer than
    `trials` points, each is tried once. own_grid: `OPTION=VALUE,VALUE,…` in place of the method's own grid.
    """
    grid = parse_grid(spec, own_grid) if own_grid else grid_of(spec)
    rows = _tried(spec, grid, _points(grid, _defaults(spec, grid), trials, spec.seed), storage, say)
    known = [row for row in rows if row["r_cum"] is not None]
    if not known:
        raise Diverged(f"all {len(rows)} trials of {spec.method} diverged")
    seeds = [seed for seed in dict.fromkeys(final_seeds) if seed != spec.seed]
    best = sorted(known, key=lambda row: -row["r_cum"])[: FINALISTS if seeds else 1]
    points = [row["settings"] for row in best]
    again = {seed: _tried(replace(spec, seed=seed), grid, points, storage, say) for seed in seeds}
    for row in best if seeds else ():
        own = [other["r_cum"] for others in again.values() for other in others if other["settings"] == row["settings"]]
        row["over_seeds"] = None if None in own else (row["r_cum"] + sum(own)) / (1 + len(own))
    defaults = _defaults(spec, grid)
    return {
        "method": spec.method,
        "dataset": spec.dataset,
        "purifier": spec.purifier,
        "episodes": spec.episodes,
        "seed": spec.seed,
        "final_seeds": seeds,
        "fixed": _changed(spec, grid),
        "grid": {name: list(values) for name, values in grid.items()},
        "trials": rows,
        "finals": {str(seed): own for seed, own in again.items()},
        "winner": max(best, key=lambda row: _or_least(row.get("over_seeds", row["r_cum"]))),
        "default": next((row for row in known if row["settings"] == defaults), {"settings": defaults}),
        "study": _name(spec, grid),
    }


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value


def _tried(
    spec: RunSpec, grid: Mapping[str, tuple[Any, ...]], points: list[dict[str, Any]], storage: str, say: Say
) -> list[dict[str, Any]]:
    """The finished trials of a spec, in the order they began, once all `points` are among them."""
    study = _study(spec, grid, storage)
    bench: list[_Bench] = []  # made when the first trial asks for it
    ticker = Progress()

    def objective(trial: optuna.Trial) -> float:
        settings = {name: trial.suggest_categorical(name, list(values)) for name, values in grid.items()}
        if not bench:
            bench.append(_Bench(spec, say))
        began, done = time.perf_counter(), len(_missing(study, points))
        try:
            stage = f"{len(points)} trials, seed {spec.seed}"
            measured = bench[0].measure(
                settings, lambda share: _tell(say, ticker, stage, len(points) - done + share, len(points))
            )
        except Diverged as error:
            say(f"trial {trial.number}: {error}")
            raise optuna.TrialPruned(str(error)) from error
        for name in MEASURES:
            trial.set_user_attr(name, measured[name])
        trial.set_user_attr("seconds", time.perf_counter() - began)
        return measured["r_cum"]

    waited = False
    while _missing(study, points):
        if _something_waits(study, points):
            study.optimize(objective, n_trials=1)
        else:
            if not waited:
                say("waiting for trials that another process runs, or left behind less than a minute ago")
            waited = True
            time.sleep(1)
    rows: list[dict[str, Any]] = []
    for trial in _finished(study):
        measured = {name: trial.user_attrs.get(name) for name in (*MEASURES, "seconds")}
        rows.append({"trial": trial.number, "settings": dict(trial.params), **measured})
    return rows


def _missing(study: optuna.Study, points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = [dict(trial.params) for trial in _finished(study)]
    return [point for point in points if point not in done]


def grid_of(spec: RunSpec) -> Mapping[str, tuple[Any, ...]]:
    """A method's grid, every value checked. Raises BadInput where there is nothing to tune."""
    module = catalog.find("methods", spec.method)
    grid: Mapping[str, tuple[Any, ...]] = getattr(module, "SEARCH", {})
    if not grid:
        tunable = [name for name in catalog.TABLES["methods"] if getattr(catalog.find("methods", name), "SEARCH", {})]
        raise BadInput(f"method = {spec.method!r} is not legal: it has nothing to tune; it must be one of {', '.join(tunable)}")
    for name, values in grid.items():
        for value in values:
            _with(spec, {name: value})
    return grid


def parse_grid(spec: RunSpec, texts: Sequence[str]) -> Mapping[str, tuple[Any, ...]]:
    """A grid of `OPTION=VALUE,VALUE,…`, one text an option, every value checked and each once. Raises BadInput."""
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip().removeprefix("method.")
        if not equals or not values.strip(" ,") or not name:
            raise BadInput(f"--grid {text!r} is not legal: it must be OPTION=VALUE,VALUE,… as in learning_rate=1e-4,1e-3")
        if name in grid:
            raise BadInput(f"--grid {text!r} is not legal: {name} was given before; put all its values into one --grid")
        parts = [part.strip() for part in values.split(",") if part.strip()]
        grid[name] = tuple(dict.fromkeys(_with(spec, {name: part}).settings["method"][name] for part in parts))
    return grid


def _changed(spec: RunSpec, grid: Mapping[str, Any]) -> dict[str, Any]:
    """`section.option` → value of what the spec sets otherwise than by default, beside the grid."""
    usual = make(dataset=spec.dataset, method=spec.method, purifier=spec.purifier).settings
    return {
        f"{section}.{name}": value
        for section, values in spec.settings.items()
        for name, value in values.items()
        if value != usual[section][name] and not (section == "method" and name in grid)
    }


class _Bench:
    """What all trials share: the data, the world, the states and the users who judge."""

    def __init__(self, spec: RunSpec, say: Say) -> None:
        torch.set_num_threads(spec.threads)
        self.spec, ticker = spec, Progress()

        def watch(stage: str, done: float) -> None:
            line = ticker.line(stage, done, 1)
            if line:
                say(line)

        self.data = run.load_data(spec, watch)
        device = run.device_of(spec)
        self.world: Simulator = run.make_world(spec, self.data, "train", device, watch)[0]
        view = run.purify(spec, Stage(self.data, spec.config("state"), spec.seed, watch)).to(device)
        self.view, self.lessons = run.choosing(view, self.data), self.data.lessons()

    def measure(self, settings: Mapping[str, Any], watch: Callable[[float], None]) -> dict[str, float]:
        """Train once, and meet the validation users."""
        spec = _with(self.spec, settings)
        recorder = _Watched(watch)
        policy: Policy = catalog.find("methods", spec.method).train(
            self.world, self.view, self.lessons, spec.config("method"), Budget(spec.episodes, spec.user_steps), recorder,
            torch.Generator().manual_seed(spec.seed),
        )  # fmt: skip
        users = Curve(self.world, recorder).users
        parts = [
            summary(play(self.world, users, luck, lambda obs: (policy.act(obs), {})), self.world.items) for luck in range(LUCKS)
        ]
        return {name: sum(part[name] for part in parts) / LUCKS for name in MEASURES}


class _Watched(MemoryRecorder):
    """Keeps no checkpoints; a trial that is torn down is tried again."""

    def __init__(self, watch: Callable[[float], None]) -> None:
        super().__init__()
        self.watch = watch

    def progress(self, stage: str, done: float, total: float) -> None:
        if stage == "training":
            self.watch(min(done / total, 1.0))

    def checkpoint(self, state: dict[str, Any]) -> None:
        pass


def _with(spec: RunSpec, settings: Mapping[str, Any]) -> RunSpec:
    merged = {section: dict(values) for section, values in spec.settings.items()}
    merged["method"] = {**merged.get("method", {}), **settings}
    fields = ("dataset", "method", "purifier", "seed", "episodes", "user_steps", "evaluation_episodes", "device", "threads")
    return make(**{name: getattr(spec, name) for name in fields}, settings=merged)


def _study(spec: RunSpec, grid: Mapping[str, tuple[Any, ...]], storage: str) -> optuna.Study:
    """The study that holds this spec's trials: made, or taken up again, also where the grid's own options have other defaults
    by now."""
    _refuse_runs_database(storage)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with _alone(storage), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            kept = optuna.storages.RDBStorage(storage, heartbeat_interval=BEAT)
    except Exception as error:
        # Optuna lets the errors of its database layer through, which the engine does not import.
        if not type(error).__module__.startswith(("sqlalchemy", "optuna")) and not isinstance(
            error, ImportError | RuntimeError
        ):
            raise
        url = re.sub(r"(?<=:)[^:@/]+(?=@)", "***", storage)
        reason = str(getattr(error, "orig", None) or error).split("\n")[0].split("Please")[0].replace(storage, url).rstrip(". ")
        raise BadInput(f"--storage {url!r} is not legal: {reason}; it must be a URL as sqlite:///tuning.db") from None
    sampler = optuna.samplers.RandomSampler(seed=spec.seed)  # never asked: all trials are enqueued points of the grid
    return optuna.create_study(
        study_name=_name(spec, grid), storage=kept, sampler=sampler, direction="maximize", load_if_exists=True
    )


def _name(spec: RunSpec, grid: Mapping[str, tuple[Any, ...]]) -> str:
    anywhere = _with(replace(spec, evaluation_episodes=1), {name: values[0] for name, values in grid.items()})
    text = f"{anywhere.to_json()} {sorted(grid.items())}"
    return f"{spec.method}-{Path(spec.dataset).name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _alone(storage: str) -> FileLock:
    """Held while Optuna looks for its tables and makes them: of two that start at once on a new file, one would fail."""
    folder = cache.folder()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"tuning-{hashlib.sha256(storage.encode()).hexdigest()[:12]}.lock")


def _refuse_runs_database(storage: str) -> None:
    """Optuna would add its tables before it finds that it cannot use a database that others migrate."""
    path = storage.removeprefix("sqlite:///")
    if path == storage or not Path(path).is_file():
        return
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables_there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "runs" in tables_there:
        raise BadInput(f"--storage {storage!r} is not legal: it is the runs database; it must be a file of its own")


def _points(grid: Mapping[str, tuple[Any, ...]], defaults: Mapping[str, Any], trials: int, seed: int) -> list[dict[str, Any]]:
    """The first `trials` points of the grid in an order drawn by the seed, the defaults first of all where they are in it."""
    every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    order = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed)).tolist()
    return sorted((every[place] for place in order), key=lambda point: point != defaults)[:trials]


def _defaults(spec: RunSpec, grid: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    options = describe(catalog.find("methods", spec.method).Config)
    return {name: options[name]["default"] for name in grid}


def _something_waits(study: optuna.Study, points: list[dict[str, Any]]) -> bool:
    """Whether a trial is there to be run, after queueing every point that nobody runs, has run or will run.

    A trial that was interrupted has failed, and so has one whose process was torn down and shows no sign of life any more.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)
    states = optuna.trial.TrialState
    alive = [trial for trial in study.get_trials(deepcopy=False) if trial.state != states.FAIL]
    taken = [trial.system_attrs["fixed_params"] for trial in alive]
    missing = [point for point in points if point not in taken]
    for point in missing:
        study.enqueue_trial(point)
    return bool(missing) or any(trial.state == states.WAITING for trial in alive)


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def shown(settings: Mapping[str, Any]) -> str:
    """`learning_rate 0.001, gamma 0.9`."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def page(found: Mapping[str, Any], folder: Path) -> list[Path]:
    """All trials as a page, a CSV file and, whole, a JSON file in `folder`, best first; winner and defaults are marked."""
    columns = [COLUMNS[name] for name in MEASURES] + [Column("seconds", "Seconds", 0, 0)]
    finals = []
    if found["final_seeds"]:
        columns.insert(0, replace(COLUMNS["r_cum"], name="over_seeds", title="R_cum over seeds"))
        finals.append(
            f"The best {sum('over_seeds' in row for row in found['trials'])} were trained with seeds"
            f" {', '.join(map(str, found['final_seeds']))} too; the best mean of R_cum over all seeds wins."
        )
    ranked = sorted(found["trials"], key=lambda row: _or_least(row["r_cum"]), reverse=True)
    rows = [
        Row(shown(row["settings"]) + (" (default)" if row["settings"] == found["default"]["settings"] else ""), row)
        for row in ranked
    ]
    table = Table("", "Trials", "Settings", columns, rows)
    stem = f"tuning-{found['method']}-{Path(found['dataset']).stem}"
    fixed = ", ".join(f"`{name}` {value}" for name, value in found["fixed"].items())
    grid = "; ".join(f"`{name}` {', '.join(map(str, values))}" for name, values in found["grid"].items())
    parts = [
        f"# Tuning `{found['method']}` on `{Path(found['dataset']).name}`",
        f"{len(ranked)} points of the grid, in an order drawn by the seed, each trained for {found['episodes']:,} sessions"
        f" behind `{found['purifier']}` with seed {found['seed']}, and judged by R_cum of greedy sessions with the train"
        f" world's held-out users, {LUCKS} each. The test world was not asked.",
        *finals,
        *([f"All with {fixed}."] if fixed else []),
        f"Grid: {grid}.",
        f"Best: {shown(found['winner']['settings'])}. Defaults: {shown(found['default']['settings'])}"
        + ("." if "r_cum" in found["default"] else ", not among the points that were drawn."),
        tables.markdown(table),
        f"[CSV]({stem}.csv)",
    ]
    content = {
        f"{stem}.md": "\n\n".join(parts) + "\n",
        f"{stem}.csv": tables.csv_text(table),
        f"{stem}.json": json.dumps(found, indent=1) + "\n",  # what `study.tuned` reads
    }
    for name, text in content.items():
        checkpoint.write_whole(folder / name, text.encode())
    return [folder / name for name in content]


def _tell(say: Say, ticker: Progress, stage: str, done: float, wanted: int) -> None:
    line = ticker.line(stage, done, wanted)
    if line:
        say(line)
