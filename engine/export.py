"""A trained policy as one file that a service can load with PyTorch and nothing else: a `torch.export` program.

What goes in and comes out is told in docs/export.md and, with the catalogue and the run's spec, inside the file. The program is
the greedy policy behind its state view: the view's deterministic estimate, no draws. Before it is written, it must have chosen
what the policy chooses, slate for slate, in sessions of test users.
"""

from __future__ import annotations

import copy
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from engine import catalog, checkpoint
from engine.evaluate import evaluation_users
from engine.learn.moment import Ranker, Rules, observe
from engine.options import BadInput
from engine.purify.view import View
from engine.run import Trained, load_run
from engine.spec import WorldConfig

SUFFIX, METADATA, VERSION = ".pt2", "fairstate.json", 1
CHECKED_USERS = 64  # test users in whose sessions the program must choose what the policy chooses
UNEQUAL = 0.01  # share of slates that may differ: sums are rounded in another order, and two items can score alike


class Program(nn.Module):
    """Tables in, slates out: what is traced. lam is told to policies that are conditioned on λ, and to no others."""

    def __init__(self, policy: Ranker, view: View, rules: Rules) -> None:
        super().__init__()
        self.policy, self.view, self.rules = policy, view, rules
        self.parts = nn.ModuleList(part for part in vars(policy).values() if isinstance(part, nn.Module))
        self.decides_every = int(getattr(policy, "decides_every", 1))

    def forward(self, history: Tensor, rewards: Tensor, shown: Tensor, responses: Tensor, lam: Tensor | None = None) -> Tensor:
        """int64 (B,K)."""
        moment = observe(self.view, self.rules, history, rewards, shown, responses, lam, self.decides_every)
        return self.policy.rank(moment)


def export(folder: Path, out: Path, *, lam: float | None = None, steps: int | None = None) -> dict[str, Any]:
    """Write the policy of a finished run to `out`, optionally with another λ where none is told, or number of reverse steps.

    Returns what `python -m engine export --json` prints. Raises BadInput.
    """
    if out.suffix != SUFFIX:
        raise BadInput(f"--out {str(out)!r} is not legal: its name must end in {SUFFIX}")
    trained = load_run(folder, lam=lam, steps=steps)
    check_exportable(trained)
    program = trace(trained)
    about = metadata(trained)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json.dumps(about)})
    again = torch.export.load(io.BytesIO(buffer.getvalue()))
    slates, equal = compare(again, trained)
    if slates - equal > UNEQUAL * slates:
        raise RuntimeError(f"the exported program chose {slates - equal} of {slates} slates otherwise than the policy does")
    checkpoint.write_whole(out, buffer.getvalue())
    names = ("method", "purifier", "slate", "inputs", "outputs", "lam")
    return {
        "file": str(out),
        "bytes": len(buffer.getvalue()),
        "items": about["items"],
        **{name: about[name] for name in names},
        "checked": {"slates": slates, "equal": equal},
    }


def check_exportable(trained: Trained) -> None:
    """Raises BadInput where slates are not a function of what is seen alone."""
    if not hasattr(trained.policy, "rank"):
        raise BadInput(
            f"method {trained.spec.method!r} cannot be exported: its slates are drawn or need the truth, and an exported "
            "policy chooses by what it is told alone"
        )


def rules_of(trained: Trained) -> Rules:
    """What the run's policy assumes of a world."""
    world: WorldConfig = trained.spec.config("world")
    history, absent = trained.spec.settings["state"]["history"], trained.world.items.absent
    return Rules(world.slate, world.max_len, world.repeats, history, absent)


def trace(trained: Trained) -> ExportedProgram:
    """The program of a run's policy, for any number of users at once."""
    policy, view = copy.deepcopy((trained.policy, trained.choosing))
    rules = rules_of(trained)
    program = Program(policy, view, rules).eval().requires_grad_(False)  # type: ignore[arg-type]
    batch = Dim("batch", min=1)
    example = blank(rules, 3, _conditioned(trained))
    for tensor in (*program.parameters(), *program.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)  # some are parts or turned views of others
    with torch.no_grad():
        return torch.export.export(program, example, dynamic_shapes=(tuple({0: batch} for _ in example)), strict=False)


def blank(rules: Rules, users: int, conditioned: bool) -> tuple[Tensor, ...]:
    """The program's inputs for users of whom nothing is known."""
    nobody = (torch.full((users, rules.history), -1), torch.zeros(users, rules.history))
    session = rules.slate * rules.max_len
    tables = (*nobody, torch.full((users, session), -1), torch.zeros(users, session))
    return (*tables, torch.full((users,), torch.nan)) if conditioned else tables


def compare(program: ExportedProgram, trained: Trained, users: int = CHECKED_USERS) -> tuple[int, int]:
    """How many slates policy and program chose for the same users in whole sessions of the test world, and how many of them
    are equal."""
    world, policy = trained.world, trained.policy
    chosen = program.module()
    obs = start = world.reset(evaluation_users(world, users, 0), 0)
    inputs = blank(rules_of(trained), len(start), _conditioned(trained))
    inputs[0][:, -start.history.shape[1] :] = start.history
    inputs[1][:, -start.history.shape[1] :] = start.rewards
    slates = equal = 0
    while not bool(obs.done.all()):
        slate = policy.act(obs)
        there = ~obs.done
        same = (chosen(*inputs) == slate).all(1)
        slates, equal = slates + int(there.sum()), equal + int((same & there).sum())
        outcome = world.step(slate)
        told = slice(obs.shown.shape[1], outcome.obs.shown.shape[1])
        inputs[2][:, told], inputs[3][:, told] = slate, outcome.clicks
        obs = outcome.obs
    return slates, equal


def metadata(trained: Trained) -> dict[str, Any]:
    """What the file says of itself (docs/export.md)."""
    rules, spec, view = rules_of(trained), trained.spec, trained.view
    session = rules.slate * rules.max_len
    inputs = [
        _table("history", "int64", rules.history, "items that the user met before this session, oldest first; −1 is nothing"),
        _table("rewards", "float32", rules.history, "the user's responses to them, 0 to 1"),
        _table("shown", "int64", session, "items that this session has shown, oldest first; −1 is nothing"),
        _table("responses", "float32", session, "the user's responses to them, 0 to 1"),
    ]
    lam = _lam(trained)
    if lam is not None:
        inputs.append({"name": "lam", "dtype": "float32", "shape": ["batch"], "doc": "λ of each user; NaN is the default"})
    module = catalog.find("datasets", spec.dataset)
    named = getattr(module, "item_names", None)
    names = None if named is None else named(spec.config("dataset"))
    if names is not None and trained.data.candidates is not None:
        names = [names[item] for item in trained.data.candidates.order.tolist()]
    return {
        "format": "fairstate policy",
        "version": VERSION,
        "torch": str(torch.__version__),
        "method": spec.method,
        "purifier": spec.purifier,
        "steps": spec.settings["purifier"].get("steps") if view.inference_steps is None else view.inference_steps,
        "dataset": trained.data.name,
        "fingerprint": trained.data.fingerprint,
        **{name: getattr(rules, name) for name in ("slate", "max_len", "repeats", "history")},
        "items": len(trained.items),
        "candidates": len(trained.world.items),
        "inputs": inputs,
        "outputs": [_table("slates", "int64", rules.slate, "distinct items to show")],
        "lam": lam,
        "names": names,
        "titles": list(trained.items.titles),
        "spec": asdict(spec),
    }


def _table(name: str, dtype: str, width: int, doc: str) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": ["batch", width], "doc": doc}


def _conditioned(trained: Trained) -> bool:
    return trained.spec.lam_range() is not None


def _lam(trained: Trained) -> dict[str, float | None] | None:
    """The λ that a policy may be told, where it may."""
    moves = trained.spec.lam_range()
    return None if moves is None else {"low": 0.0, "high": moves.most, "default": getattr(trained.policy, "lam", None)}
