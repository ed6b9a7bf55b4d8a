"""Exported policies choose what the policies chose: every method that ranks, every purifier, no engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from contract_methods import SMALL_BATCHES, VARIANTS, Parts, spec_of
from engine import catalog, run
from engine.__main__ import main
from engine.export import METADATA, Program, blank, compare, export, rules_of, trace
from engine.options import BadInput
from engine.recorder import MemoryRecorder
from engine.run import Trained
from small import small_spec
from test_structure import ROOT

RANKED = [  # every method that learns, and the variants that rank in another way
    *[(name, {}) for name in catalog.TABLES["methods"] if catalog.find("methods", name).LEARNS],
    *[("dsrm_hrl", variant) for variant in VARIANTS["dsrm_hrl"] if "worker_gamma" not in variant],
]
REFERENCES = ["popular", "greedy", "fixed_weights", "balanced"]


def trained(name: str, variant: Mapping[str, Any] = {}, **changes: Any) -> Trained:
    return of(Parts(spec_of(name, variant, episodes=40, **changes)))


def of(parts: Parts) -> Trained:
    """A trained run whose networks are then moved: a short training leaves them near a start that ignores most inputs."""
    policy = parts.learn(MemoryRecorder())
    generator = torch.Generator().manual_seed(3)
    for module in (value for value in vars(policy).values() if isinstance(value, nn.Module)):
        for layer in (layer for layer in module.modules() if isinstance(layer, nn.Linear)):
            with torch.no_grad():
                layer.weight.add_(0.3 * torch.randn(layer.weight.shape, generator=generator))
    return Trained(parts.spec, parts.data, parts.test, parts.view, policy, parts.view.items)


def check(made: Trained) -> None:
    slates, equal = compare(trace(made), made)
    assert slates > 64
    assert equal >= 0.99 * slates  # sums are rounded in another order: a tie may fall the other way


@pytest.mark.parametrize(("name", "variant"), RANKED, ids=[f"{name} {variant or ''}".strip() for name, variant in RANKED])
def test_every_method_that_learns_can_be_exported(name: str, variant: dict[str, Any]) -> None:
    check(trained(name, variant))


@pytest.mark.parametrize("purifier", list(catalog.TABLES["purifiers"]))
def test_behind_every_purifier(purifier: str) -> None:
    check(trained("dsrm_hrl", purifier=purifier))


@pytest.mark.parametrize("name", REFERENCES)
def test_references_that_rank_can_be_exported(name: str) -> None:
    check(trained(name))


def test_a_window_shorter_than_what_is_known() -> None:
    """The oldest interactions fall out of a state's window, first those of the log, then those of the session itself."""
    spec = small_spec(
        method="a2c", episodes=60, settings={"state": {"history": 20}, "method": SMALL_BATCHES["a2c"]}, purifier="regression"
    )
    check(of(Parts(spec)))


@pytest.mark.parametrize(("name", "lam"), [("dsrm_hrl", 1.7), ("mofir", 4.0)])
def test_lam_is_told_user_by_user(name: str, lam: float) -> None:
    made = trained(name)
    policy: Any = made.policy
    told = policy.with_lam(lam)
    obs = made.world.reset(torch.arange(40), 0)
    program = trace(made).module()
    inputs = list(blank(rules_of(made), 40, True))
    inputs[0][:, -obs.history.shape[1] :], inputs[1][:, -obs.history.shape[1] :] = obs.history, obs.rewards
    inputs[4][::2] = lam
    slates = program(*inputs)
    assert torch.equal(slates[::2], told.act(obs)[::2])
    assert torch.equal(slates[1::2], made.policy.act(obs)[1::2])
    differ = (told.act(obs) != made.policy.act(obs)).any(1)
    assert bool(differ[::2].any())
    assert bool(differ[1::2].any())


def test_padding_and_company_do_not_matter() -> None:
    made = trained("a2c", purifier="regression")
    program = trace(made).module()
    first = list(blank(rules_of(made), 2, False))
    first[0][:, -3:], first[1][:, -2:] = torch.tensor([5, 9, 80]), 1.0
    first[2][:, :6], first[3][:, 2:4] = torch.arange(6), 1.0
    second = [part[:1].clone() for part in first]
    second[0], second[1] = second[0].roll(-7, 1), second[1].roll(-7, 1)  # the same interactions in other columns
    second[2], second[3] = second[2].roll(11, 1), second[3].roll(11, 1)
    slates = program(*first)
    assert torch.equal(slates[:1], program(*second))
    assert torch.equal(slates[0], slates[1])
    assert not (slates < 6).any()  # nothing that was shown before
    bare = [*first[:2], *blank(rules_of(made), 2, False)[2:]]
    assert not torch.equal(program(*bare), slates)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of DSRM-HRL behind diffusion."""
    folder = tmp_path_factory.mktemp("run")
    run.run(spec_of("dsrm_hrl", {}, purifier="diffusion", episodes=60), MemoryRecorder(), folder)
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The file of that run's policy, and what the command said."""
    out = tmp_path_factory.mktemp("exported") / "policy.pt2"
    return out, export(folder, out, lam=1.5, steps=2)


def pairs(items: Tensor, answers: Tensor) -> list[list[float]]:
    return [[item, answer] for item, answer in zip(items.tolist(), answers.tolist(), strict=True) if item >= 0]


def test_a_process_without_the_engine_serves_the_same_slates(
    folder: Path, exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """Users at different steps of their sessions in one request."""
    out, made = exported[0], run.load_run(folder, lam=1.5, steps=2)
    start = obs = made.world.reset(torch.arange(30), 0)
    wanted, request = [], []
    answers = torch.zeros(30, 0)
    for step in range(4):
        slate = made.policy.act(obs)
        for user in range(step, 30, 4):
            if not obs.done[user]:
                wanted.append(slate[user].tolist())
                known = {"history": pairs(start.history[user], start.rewards[user])}
                request.append({**known, "shown": pairs(obs.shown[user], answers[user])})
        outcome = made.world.step(slate)
        obs, answers = outcome.obs, torch.cat([answers, outcome.clicks], 1)
    command = [sys.executable, "-I", str(ROOT / "docs" / "examples" / "serve.py"), str(out)]
    alone = subprocess.run([*command[:2], "-c", "import engine"], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'engine'" in alone.stderr
    served = subprocess.run(command, cwd=tmp_path, input=json.dumps(request), capture_output=True, text=True, check=True)
    assert json.loads(served.stdout) == wanted
    assert len(wanted) > 20


def test_the_file_tells_what_it_is(folder: Path, exported: tuple[Path, dict[str, Any]]) -> None:
    out, told = exported
    assert told["bytes"] == out.stat().st_size
    assert told["checked"]["slates"] >= told["checked"]["equal"] > 64
    files = {METADATA: ""}
    program = torch.export.load(out, extra_files=files).module()
    about = json.loads(files[METADATA])
    assert about["lam"] == {"low": 0.0, "high": 2.0, "default": 1.5}
    assert about["steps"] == 2
    assert (about["items"], len(about["titles"]), about["names"]) == (360, 360, None)
    assert about["spec"]["settings"]["world"] == {**run.load_run(folder).spec.settings["world"]}
    kinds = {"int64": torch.int64, "float32": torch.float32}
    inputs = [torch.zeros(5, *part["shape"][1:], dtype=kinds[part["dtype"]]) for part in about["inputs"]]
    slates = program(*inputs)
    assert [5, *slates.shape[1:]] == [5, *about["outputs"][0]["shape"][1:]]


def test_an_own_logs_items_keep_their_names(tmp_path: Path) -> None:
    from engine.data import table

    log = tmp_path / "log.csv"
    log.write_text("user,item,reward,time\n" + "".join(f"u{n % 5},film-{n * 7 % 11:02},{n % 2},{n}\n" for n in range(60)))
    config = table.Config(path=str(log))
    assert table.item_names(config) == [f"film-{n:02}" for n in range(11)]
    assert len(table.load(config).train.items) == 11


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--run=nowhere", "--out={out}"], "run = 'nowhere' is not legal: it holds no spec.json"),
        (["--run={run}", "--out={out}.onnx"], "its name must end in .pt2"),
        (["--run={run}", "--out={out}", "--lam=9"], "this policy met λ from 0 to method.lam_max = 2.0"),
        (["--run={run}", "--out={out}", "--steps=99"], "this purifier was trained with 4, so it must be 0 to 4"),
    ],
)
def test_what_cannot_be_exported_is_told_in_a_sentence(
    argv: list[str], sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "policy.pt2"
    assert main(["export", *(text.format(run=folder, out=out) for text in argv)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert sentence in error[0]
    assert not out.exists()


@pytest.mark.parametrize("name", ["random", "oracle"])
def test_policies_that_do_not_choose_by_what_they_see_are_refused(name: str, tmp_path: Path) -> None:
    run.run(spec_of(name, {}), MemoryRecorder(), tmp_path)
    with pytest.raises(BadInput, match=f"method '{name}' cannot be exported"):
        export(tmp_path, tmp_path / "policy.pt2")


def test_the_command_writes_no_file_that_chooses_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.run(spec_of("popular", {}), MemoryRecorder(), tmp_path)
    out, honest = tmp_path / "policy.pt2", Program.forward
    assert main(["export", f"--run={tmp_path}", f"--out={out}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["method"], told["bytes"], told["lam"]) == ("popular", out.stat().st_size, None)
    assert told["checked"]["slates"] == told["checked"]["equal"] > 64
    out.unlink()

    def forward(self: Program, history: Tensor, rewards: Tensor, shown: Tensor, responses: Tensor) -> Tensor:
        return honest(self, history, rewards, shown, responses).flip(1)

    monkeypatch.setattr(Program, "forward", forward)
    with pytest.raises(RuntimeError, match="otherwise than the policy does"):
        export(tmp_path, out)
    assert not out.exists()


def test_a_server_refuses_what_it_cannot_use(exported: tuple[Path, dict[str, Any]]) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("serve", ROOT / "docs" / "examples" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    server = serve.Server(str(exported[0]))
    assert len(server.slates([{}, {"lam": 0.3}])) == 2
    for user, sentence in (
        ({"history": [[360, 1]]}, "items are 0 to 359"),
        ({"history": [[3, 4]]}, "responses 0 to 1"),
        ({"shown": [[3, 0]] * 49}, "at most 48"),
        ({"lam": 3}, "it must be 0.0 to 2.0"),
    ):
        with pytest.raises(ValueError, match=sentence):
            server.slates([user])
