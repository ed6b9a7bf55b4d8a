"""The only place where all parts meet: a RunSpec in, a trained policy and its measures out."""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import cache, catalog, checkpoint
from engine.candidates import narrowed
from engine.contracts import Budget, Data, Items, Obs, Policy, Recorder, Sessions
from engine.data.heads import HEAD_SHARE, with_head_share
from engine.data.observed import ResponseTable
from engine.evaluate import evaluation_users, sessions_of
from engine.factors import Factors
from engine.memory import peak_mb
from engine.metrics import per_user, summary
from engine.options import BadInput, Stopped
from engine.purify.view import View
from engine.spec import RunSpec, WorldConfig, check_sizes, from_json
from engine.state.encoder import mean_of_positives
from engine.state.stage import Stage
from engine.world.fidelity import Fidelity
from engine.world.responses import Fitted, Generated, ResponseModel, Table, fit_responses
from engine.world.simulator import Simulator

PARTS = ("train", "test")  # a dataset's two worlds
SPEC, RESULT, EPISODES, POLICY, STATES = "spec.json", "result.json", "episodes.csv", "policy.pt", "states.pt"
EVALUATION_LUCK = 0  # the evaluation's seed: fixed, so that every policy meets the same users and the same luck


@dataclass(frozen=True)
class Result:
    """What a run found. metrics: the JSON object of docs/cli.md. episodes: columns of the per-user table, equally long."""

    metrics: dict[str, Any]
    episodes: dict[str, list[float]]


def run(spec: RunSpec, recorder: Recorder, folder: Path) -> Result:
    """Stage I, training, evaluation. Leaves the policy, the state view, the spec and the result in `folder`.

    Raises Stopped after keeping a checkpoint when the recorder asks to stop, Diverged where numbers stop being finite, and
    BadInput where the spec cannot be run. Equal specs give equal results on one CPU, also after a stop and a resume.
    """
    began = time.perf_counter()
    seconds: dict[str, float] = {}
    cached: dict[str, list[str]] = {}
    torch.set_num_threads(spec.threads)
    device = device_of(spec)
    checkpoint.write_whole(folder / SPEC, spec.to_json().encode())

    def watch(stage: str, done: float) -> None:
        recorder.progress(stage, done, 1)
        if recorder.stop_requested():
            raise Stopped(f"stopped while at: {stage}")

    with _timed(seconds, "pretrain"), cache.noted() as cached["pretrain"]:
        watch("data", 0)
        data = load_data(spec, watch)
        train_world, train_fidelity = make_world(spec, data, "train", device, watch)
        test_world, test_fidelity = make_world(spec, data, "test", device, watch)
        stage = Stage(data, spec.config("state"), spec.seed, watch)
        observed = stage.observed.items  # also of runs that purify: views show the raw state beside the purified one
    with _timed(seconds, "purifier"), cache.noted() as cached["purifier"]:
        view = purify(spec, stage).to(device)
        save_view(folder, spec, data, view, observed)
    with _timed(seconds, "train"):
        module = catalog.find("methods", spec.method)
        budget = Budget(spec.episodes, spec.user_steps)
        generator = torch.Generator().manual_seed(spec.seed)
        tally = _Tally(recorder)
        policy = module.train(
            train_world, choosing(view, data), data.lessons(), spec.config("method"), budget, tally, generator
        )
        checkpoint.write_tensors(folder / POLICY, policy.state_dict())
    with _timed(seconds, "evaluate"):
        users = evaluation_users(test_world, spec.evaluation_episodes, EVALUATION_LUCK)
        played = sessions_of(
            test_world, policy, users, luck=EVALUATION_LUCK, watch=lambda done: watch("evaluation", done)
        ).cpu()
        items = data.test.items
        measured: dict[str, Any] = summary(played, items, data.truth)
        table = per_user(played, items, data.truth)
    seconds["total"] = time.perf_counter() - began
    measured |= {
        **tally.count,
        "evaluation_episodes": len(users),
        "seconds": seconds,
        "cached": cached,
        "resumed": tally.resumed,
        "peak_rss_mb": peak_mb(),
        "device": str(device),
        "repairs": dict(data.repairs),
        "candidates": None if data.candidates is None else {"items": data.candidates.count, **data.candidates.measured},
        "world": {
            name: None if fidelity is None else fidelity.scores()
            for name, fidelity in (("train", train_fidelity), ("test", test_fidelity))
        },
        "spec": asdict(spec),
    }
    result = Result(measured, {name: column.tolist() for name, column in table.items()})
    checkpoint.write_whole(folder / EPISODES, _csv(result.episodes).encode())
    checkpoint.write_whole(folder / RESULT, json.dumps(measured, indent=1).encode())
    return result


def load_data(spec: RunSpec, watch: Callable[[str, float], None] = lambda *_: None) -> Data:
    """The dataset of a spec, checked against the world's sizes, with candidates chosen where it is large."""
    data: Data = catalog.find("datasets", spec.dataset).load(spec.config("dataset"))
    share = spec.settings["world"]["head_share"]
    if share != HEAD_SHARE:
        data = with_head_share(data, share)
    data = narrowed(data, spec.settings["state"]["candidates"], watch)
    check_sizes(spec, min(int(data.choice(part).in_play().sum()) for part in PARTS))
    return data


def device_of(spec: RunSpec) -> torch.device:
    """The device a spec asks for; `auto` takes a GPU where there is one. Raises BadInput where `cuda` is not there."""
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise BadInput("device = 'cuda' is not legal: this machine has no GPU that torch can use; it must be auto or cpu")
    name = spec.device if spec.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_world(
    spec: RunSpec,
    data: Data,
    part: str,
    device: torch.device | str = "cpu",
    watch: Callable[[str, float], None] = lambda *_: None,
) -> tuple[Simulator, Fidelity | None]:
    """The `train` or the `test` world of a dataset: generated clicks or observed answers where there are any, else a model
    fitted to that log (cached), with how well it predicts."""
    world: WorldConfig = spec.config("world")
    start = data.train_start if part == "train" else data.test_start
    model: ResponseModel
    fidelity: Fidelity | None = None
    if is_fitted(spec, data, part):
        model, fidelity = _fitted(data, part, watch)
    else:
        assert data.responses is not None
        known = data.responses[part]
        model = Table(known) if isinstance(known, ResponseTable) else Generated(known)
    return Simulator(data.choice(part), model, start, world, spec.settings["state"]["history"], str(device)), fidelity


def is_fitted(spec: RunSpec, data: Data, part: str) -> bool:
    """Whether the world of a part is fitted to its log: there are no observed answers, and no generated clicks or none that
    the spec wants in training."""
    known = (data.responses or {}).get(part)
    if known is None or isinstance(known, ResponseTable):
        return known is None
    return part == "train" and spec.settings["world"]["train"] == "fitted"


def _fitted(data: Data, part: str, watch: Callable[[str, float], None]) -> tuple[Fitted, Fidelity]:
    log = data.train if part == "train" else data.test
    if not len(log):
        raise BadInput(f"dataset {data.name!r} has no {part} rows: every user needs at least 2 interactions")

    clicks = (data.responses or {}).get(part)

    def true(users: Tensor, items: Tensor) -> Tensor:
        logits: Tensor = clicks.logit(users, items[:, None])[:, 0]  # type: ignore[union-attr]
        return logits

    def make() -> dict[str, Any]:
        told = None if clicks is None else true
        model = fit_responses(log, torch.Generator().manual_seed(0), lambda done: watch(f"{part} world", done), told)
        assert model.fidelity is not None
        return {"factors": dict(vars(model.factors)), "fidelity": model.fidelity.as_dict()}

    kept = cache.fetch(
        "responses", _world_key(data.fingerprint, part), make, lambda: watch(f"waiting for the {part} world", 0.0)
    )
    fidelity = Fidelity(**kept["fidelity"])
    return Fitted(Factors(**kept["factors"]), fidelity), fidelity


def kept_fidelity(fingerprint: str, threads: int = 1) -> dict[str, dict[str, Any]]:
    """Part → how far its fitted world can be trusted (Fidelity), for the parts of a dataset whose world was fitted already.

    threads: of the run or command that fitted it; 1 is the default of both."""
    kept = {part: cache.peek("responses", _world_key(fingerprint, part), threads) for part in PARTS}
    return {part: found["fidelity"] for part, found in kept.items() if found is not None}


def _world_key(fingerprint: str, part: str) -> dict[str, str]:
    return {"data": fingerprint, "part": part}


def purify(spec: RunSpec, stage: Stage) -> View:
    """The run's state view: fitted, or taken from the cache (eight methods and one seed fit it once)."""
    module, config = catalog.find("purifiers", spec.purifier), spec.config("purifier")
    purpose = 100  # a generator of its own, whatever else stage I drew
    key = {**stage.key, "purifier": spec.purifier, "config": asdict(config)}

    def make() -> dict[str, Any]:
        return {"view": dict(module.fit(stage, config, stage.generator(purpose)).state_dict())}

    kept = cache.fetch(f"view-{spec.purifier}", key, make, lambda: stage.watch("waiting for the purifier", 0.0))
    view: View = module.restore(config, kept["view"])
    return view


def choosing(view: View, data: Data) -> View:
    """A view as policies are told it: with the items that they may choose."""
    return view.narrowed(None if data.candidates is None else data.candidates.count)


def save_view(folder: Path, spec: RunSpec, data: Data, view: View, observed: Tensor) -> None:
    """Keep a view, and the observed item vectors (I,D) of the raw state, so that `load_view` needs nothing else."""
    kept = {"purifier": spec.purifier, "data": data.fingerprint, "dataset": data.name, "observed": observed.cpu()}
    checkpoint.write_tensors(
        folder / STATES, {**kept, "view": {name: value.cpu() for name, value in view.state_dict().items()}}
    )


def load_view(folder: Path, spec: RunSpec, data: Data) -> tuple[View, Tensor]:
    """The view and the observed item vectors that `save_view` kept. Raises BadInput where they were fitted on other data."""
    kept = checkpoint.read_tensors(folder / STATES)
    if kept is None:
        raise BadInput(f"run = {str(folder)!r} is not legal: it holds no whole {STATES}; it must be a finished run's folder")
    if kept["data"] != data.fingerprint:
        raise BadInput(
            f"the purifier in {folder} was fitted on {kept['dataset']} and cannot be used on {data.name}: their items differ"
        )
    return catalog.find("purifiers", kept["purifier"]).restore(spec.config("purifier"), kept["view"]), kept["observed"]


@dataclass(frozen=True)
class Trained:
    """A finished run, ready to act: what evaluation, live views and session replay work with.

    world: the test world. view: what the policy is told. observed (I,D): the item vectors of the raw state.
    """

    spec: RunSpec
    data: Data
    world: Simulator
    view: View
    policy: Policy
    observed: Tensor

    @property
    def items(self) -> Items:
        """The test world's catalogue, candidates first."""
        return self.data.test.items

    @property
    def choosing(self) -> View:
        """The view as the policy is told it."""
        return choosing(self.view, self.data)

    def play(self, users: Tensor, *, luck: int = EVALUATION_LUCK, states: bool = False) -> Sessions:
        """One greedy session with each of `users` of the test world. With `states`, the notes hold `state` and `raw`
        (T,B,D): what the policy was told at each step, and the paper's s_t beside it."""

        def note(obs: Obs) -> dict[str, Tensor]:
            raw = mean_of_positives(self.observed, obs.history, obs.rewards)
            return {"state": self.view(obs), "raw": raw} if states else {}

        return sessions_of(self.world, self.policy, users, luck=luck, note=note).cpu()


def load_run(folder: Path, *, lam: float | None = None, steps: int | None = None) -> Trained:
    """A finished run from its folder, optionally with another λ or number of reverse steps. Raises BadInput."""
    if not (folder / SPEC).is_file():
        raise BadInput(f"run = {str(folder)!r} is not legal: it holds no {SPEC}; it must be a finished run's folder")
    spec = from_json((folder / SPEC).read_text())
    data = load_data(spec)
    view, observed = load_view(folder, spec, data)
    if steps is not None:
        view.inference_steps = view.check_steps(steps)
    kept = checkpoint.read_tensors(folder / POLICY)
    if kept is None:
        raise BadInput(f"run = {str(folder)!r} is not legal: it holds no whole {POLICY}; it must be a finished run's folder")
    module, config = catalog.find("methods", spec.method), spec.config("method")
    policy: Policy = module.load_policy(kept, choosing(view, data), data.choice("train"), config)
    if lam is not None:
        if not hasattr(policy, "with_lam"):
            raise BadInput(f"lam = {lam} is not legal: {spec.method} has no λ")
        policy = policy.with_lam(lam)
    return Trained(spec, data, make_world(spec, data, "test")[0], view, policy, observed)


def evaluate_run(
    folder: Path, *, episodes: int = 1000, lam: float | None = None, steps: int | None = None, luck: int = EVALUATION_LUCK
) -> dict[str, Any]:
    """The metrics of `summary` for a finished run, met again with the same or other luck, λ and steps."""
    began = time.perf_counter()
    trained = load_run(folder, lam=lam, steps=steps)
    torch.set_num_threads(trained.spec.threads)
    users = evaluation_users(trained.world, episodes, luck)
    measured: dict[str, Any] = summary(trained.play(users, luck=luck), trained.items, trained.data.truth)
    asked = {"lam": lam, "steps": steps, "seed": luck}
    return {**measured, "evaluation_episodes": len(users), **asked, "seconds": {"total": time.perf_counter() - began}}


class _Tally:
    """Passes everything on to a recorder, and knows the last counts that a method wrote or restored."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder, self.resumed = recorder, False
        self.count = {"episodes": 0, "user_steps": 0, "updates": 0}

    def _take(self, values: Mapping[str, Any]) -> None:
        self.count |= {name: int(values[name]) for name in self.count if name in values}

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._take(values)
        self.recorder.scalars(step, values)

    def progress(self, stage: str, done: float, total: float) -> None:
        self.recorder.progress(stage, done, total)

    def checkpoint(self, state: dict[str, Any]) -> None:
        self.recorder.checkpoint(state)

    def restore(self) -> dict[str, Any] | None:
        kept = self.recorder.restore()
        self.resumed = kept is not None
        self._take((kept or {}).get("count", {}))
        return kept

    def stop_requested(self) -> bool:
        return self.recorder.stop_requested()


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - began


def _csv(columns: Mapping[str, list[float]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=os.linesep)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return out.getvalue()
