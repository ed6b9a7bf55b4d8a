"""What every purifier's StateView shares: its vectors, how a click is predicted from a state, and how that is fitted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.contracts import Obs
from engine.options import BadInput
from engine.state.stage import Stage

SHARED = ("items", "bias", "curve", "scale", "offset", "centre", "spread")
PER_ITEM = ("items", "bias", "curve")
CALIBRATION_STEPS, CALIBRATION_BATCH = 200, 8192
BIAS_PRECISION = 3.0  # prior on an item's learnt appeal, in rows of the log


class View(nn.Module):
    """Base of state views. Subclasses implement `encode`; all tensors are buffers, so a view is saved by its state_dict."""

    items: Tensor
    bias: Tensor
    curve: Tensor
    scale: Tensor
    offset: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        width = tensors["items"].shape[1]
        given = {
            "bias": torch.zeros(len(tensors["items"])),
            "curve": torch.zeros(len(tensors["items"])),
            "scale": torch.ones(()),
            "offset": torch.zeros(()),
            "centre": torch.zeros(width),
            "spread": torch.ones(width),
            **tensors,
        }
        for name in SHARED:
            self.register_buffer(name, given[name].clone())
        self.inference_steps: int | None = None  # what `steps=None` means, where it does not mean "as trained"

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        """(B,D), or (B,samples,D) when samples > 1."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(
        self, obs: Obs, *, steps: int | None = None, samples: int = 1, generator: torch.Generator | None = None
    ) -> Tensor:
        """See engine.contracts.StateView."""
        return self.encode(obs, self.inference_steps if steps is None else steps, samples, generator)

    def check_steps(self, steps: int) -> int:
        """`steps` if this view can take that many reverse steps. Raises BadInput."""
        raise BadInput(f"steps = {steps} is not legal: this run's purifier has no diffusion steps")

    def predict(self, state: Tensor) -> Tensor:
        """(B,I) logits of a click: scale·⟨state, item⟩ + bias + curve + offset."""
        return torch.addmm(self.bias + self.curve + self.offset, self.scale * state, self.items.T)

    def narrowed(self, count: int | None) -> View:
        """The same states, with the items whose ids are below `count` alone; all of them where that is None."""
        return self if count is None or count >= len(self.items) else _Narrowed(self, count)


class _Narrowed(View):
    """What policies see of a view when they choose from a part of the catalogue: histories may hold all items."""

    def __init__(self, whole: View, count: int) -> None:
        super().__init__(
            {**{name: getattr(whole, name) for name in SHARED}, **{n: getattr(whole, n)[:count] for n in PER_ITEM}}
        )
        self.whole = whole

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        return self.whole(obs, steps=steps, samples=samples, generator=generator)


def calibrate(view: View, stage: Stage, *, learn_bias: bool) -> None:
    """Fit `scale` and `offset` (and `bias`) of a view to what training users answered after their session's start, and
    note the mean and deviation of its states there."""
    obs, known = stage.starts()
    states = torch.cat([view(part) for part in _split(obs)])
    if bool(known.any()):
        view.centre.copy_(states[known].mean(0))
        view.spread.copy_(states[known].std(0).nan_to_num(1.0).clamp_min(1e-4))
    log = stage.log
    rank = torch.arange(len(log)) - (log.lengths().cumsum(0) - log.lengths())[log.user]
    after = rank >= stage.start.lengths()[log.user]
    if bool(after.any()):
        log = log.select(after)
    match = (states[log.user] * view.items[log.item]).sum(1)
    unit = match.std().clamp_min(1e-6)  # so that one learning rate suits every view
    scale, offset = (1 / unit).clone().requires_grad_(), torch.zeros((), requires_grad=True)
    bias = view.bias.clone().requires_grad_()
    fixed = view.curve[log.item]
    adam = torch.optim.Adam([scale, offset, *([bias] if learn_bias else [])], lr=0.05)
    precision = BIAS_PRECISION / len(log)
    generator = stage.generator(9)
    with torch.enable_grad():
        for _ in range(CALIBRATION_STEPS):
            rows = torch.randint(len(log), (min(CALIBRATION_BATCH, len(log)),), generator=generator)
            logit = scale * match[rows] + offset + bias[log.item[rows]] + fixed[rows]
            loss = F.binary_cross_entropy_with_logits(logit, log.reward[rows])
            if learn_bias:
                loss = loss + 0.5 * precision * (bias - view.bias).pow(2).sum()
            adam.zero_grad()
            loss.backward()
            adam.step()
    view.scale.copy_(scale.detach())
    view.offset.copy_(offset.detach())
    view.bias.copy_(bias.detach())


def _split(obs: Obs, size: int = 2048) -> list[Obs]:
    parts = zip(obs.users.split(size), obs.history.split(size), obs.rewards.split(size), strict=True)
    return [Obs(users, 0, history, rewards, 0, obs.shown, obs.done) for users, history, rewards in parts]
