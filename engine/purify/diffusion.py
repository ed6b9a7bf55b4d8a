"""DSRM: a conditional diffusion model that carries the encoded history to the long-run interest (paper §4.2).

Two readings of the paper, chosen by `target`:

`observed` — the paper's Eq. 7 to the letter. ε_θ(s⁽ᵏ⁾, k, s_t) is trained to denoise s_t *given s_t*. Since s⁽ᵏ⁾ and s_t
determine ε, the loss can go to zero and the module returns its input: purification in name only (docs/purification.md).
Kept as an ablation and a diagnosis.

`interest` (default) — the target is debiased (purify/interest.py), the condition is what the history shows. Eq. 1 says that
the observed state is the clean one, displaced; so the forward process displaces: level k of S lies between the clean target
s* and the encoded history e,

    s⁽ᵏ⁾ = (1 − η_k)·s* + η_k·e + κ·√(η_k(1 − η_k))·ε,   η_k = k/S          (`process=bridge`, a Brownian bridge),

which starts the reverse process exactly at the encoded history (k = S) and ends at the purified state (k = 0). `process=noise`
is the paper's Eq. 2 instead, where level S is nothing but noise. The network predicts s* (steadier than ε at few steps).

Eq. 2 and 3 write one α for the step's and the cumulative product; here they are `alpha` and `alpha_bar`.

Differences from the source: 1. the target (above). 2. the bridge. 3. s*-prediction for debiased targets. 4. the estimate
used by policies is deterministic: reverse steps without noise; noise is added only where several samples are asked for.
5. η rises linearly, S = 10 by default. 6. FiLM on the step only, so that the condition is embedded once for all steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine import nets
from engine.contracts import Obs
from engine.options import BadInput, option
from engine.options import Config as BaseConfig
from engine.purify.interest import InterestView, draw_samples, tensors_of
from engine.purify.view import View, calibrate
from engine.state.encoder import mean_of_positives
from engine.state.stage import Stage


@dataclass(frozen=True)
class Config(BaseConfig):
    """`purifier.*` of `diffusion`."""

    steps: int = option(
        10, "diffusion steps S, and reverse steps at inference", low=1, high=1000, source="paper §5.4: 5 to 500"
    )
    target: str = option(
        "interest", "what is recovered: the debiased long-run interest, or s_t itself (Eq. 7)", choices=("interest", "observed")
    )
    process: str = option(
        "bridge", "forward process toward `interest`; `observed` always uses noise (Eq. 2)", choices=("bridge", "noise")
    )
    kappa: float = option(0.5, "deviation of the bridge's noise at its middle, times two", low=0, high=10)
    alpha_bar_last: float = option(0.7, "cumulative signal left at level S for `observed`", above=0, high=0.999)
    guidance: float = option(0.0, "weight w of classifier-free guidance: (1+w)·conditional − w·unconditional", low=0, high=10)
    dropped: float = option(0.1, "share of training samples without condition", low=0, high=0.9, source="DreamRec")
    hidden: int = option(128, "width of the network's layers", low=4, high=4096)
    blocks: int = option(2, "residual blocks", low=1, high=16)
    parts: int = option(80_000, "random parts of histories to learn from", low=1, high=10_000_000)
    training_steps: int = option(3000, "steps of Adam", low=1, high=1_000_000)
    batch: int = option(256, "samples in one step", low=1, high=65_536)
    learning_rate: float = option(2e-3, "Adam's largest step size (one cycle)", above=0, high=1)


class Bridge:
    """Brownian bridge between the clean target (level 0) and the encoded history (level S)."""

    def __init__(self, config: Config) -> None:
        self.levels, self.kappa = config.steps, config.kappa

    def corrupt(self, clean: Tensor, encoded: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """(n,D) s⁽ᵏ⁾ at levels int64 (n,)."""
        eta = (level / self.levels).unsqueeze(1)
        return (1 - eta) * clean + eta * encoded + self.kappa * (eta * (1 - eta)).sqrt() * noise

    def begin(self, encoded: Tensor, level: int, noise: Tensor | None) -> Tensor:
        """Where the reverse process starts: the bridge is fixed there."""
        return encoded

    def reverse(self, x: Tensor, clean: Tensor, level: int, noise: Tensor | None) -> Tensor:
        """s⁽ᵏ⁻¹⁾ from s⁽ᵏ⁾ and the predicted clean target: q(s⁽ᵏ⁻¹⁾ | s⁽ᵏ⁾, ŝ*), its mean where noise is None."""
        eta, lower = level / self.levels, (level - 1) / self.levels
        mean = clean + lower / eta * (x - clean)
        return mean if noise is None else mean + self.kappa * math.sqrt(lower * (eta - lower) / eta) * noise


class Noise:
    """The paper's process. Eq. 2: q(s⁽ᵏ⁾|s⁽⁰⁾) = N(√ᾱ_k·s⁽⁰⁾, (1 − ᾱ_k)·I)."""

    def __init__(self, config: Config) -> None:
        last = config.alpha_bar_last if config.target == "observed" else 1e-3
        self.levels = config.steps
        self.alpha_bar = torch.exp(torch.linspace(0, math.log(last), config.steps + 1))  # (S+1,), ᾱ_0 = 1
        self.alpha = torch.cat([torch.ones(1), self.alpha_bar[1:] / self.alpha_bar[:-1]])  # (S+1,) each step's own

    def corrupt(self, clean: Tensor, encoded: Tensor, level: Tensor, noise: Tensor) -> Tensor:
        """(n,D) s⁽ᵏ⁾ at levels int64 (n,)."""
        bar = self.alpha_bar[level].unsqueeze(1)
        return bar.sqrt() * clean + (1 - bar).sqrt() * noise  # Eq. 2

    def begin(self, encoded: Tensor, level: int, noise: Tensor | None) -> Tensor:
        """The encoded history, taken to `level`."""
        bar = float(self.alpha_bar[level])
        return math.sqrt(bar) * encoded + (0 if noise is None else math.sqrt(1 - bar) * noise)

    def epsilon(self, x: Tensor, clean: Tensor, level: int) -> Tensor:
        """The noise that a predicted clean target implies."""
        bar = float(self.alpha_bar[level])
        return (x - math.sqrt(bar) * clean) / math.sqrt(1 - bar)

    def clean(self, x: Tensor, epsilon: Tensor, level: int) -> Tensor:
        """The clean target that a predicted noise implies."""
        bar = float(self.alpha_bar[level])
        return (x - math.sqrt(1 - bar) * epsilon) / math.sqrt(bar)

    def reverse(self, x: Tensor, clean: Tensor, level: int, noise: Tensor | None) -> Tensor:
        """With noise Eq. 3, σ_k² = (1 − ᾱ_{k−1})/(1 − ᾱ_k)·(1 − α_k); without, the deterministic step to the same marginals."""
        epsilon = self.epsilon(x, clean, level)
        alpha, bar, lower = float(self.alpha[level]), float(self.alpha_bar[level]), float(self.alpha_bar[level - 1])
        if noise is None:
            return math.sqrt(lower) * clean + math.sqrt(1 - lower) * epsilon
        sigma = math.sqrt((1 - lower) / (1 - bar) * (1 - alpha))
        return (x - (1 - alpha) / math.sqrt(1 - bar) * epsilon) / math.sqrt(alpha) + sigma * noise  # Eq. 3


class Denoiser(nn.Module):
    """f_θ(s⁽ᵏ⁾, k, condition): residual blocks, the step enters by scale and shift (FiLM), the condition once at the input."""

    def __init__(self, width: int, condition: int, config: Config, generator: torch.Generator) -> None:
        super().__init__()
        h = config.hidden
        self.levels = config.steps
        self.enter = nets.linear(width, h, generator)
        self.condition = nets.mlp((condition, h, h), generator)
        self.step = nets.mlp((16, h, 2 * h * config.blocks), generator, last_gain=0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(h, elementwise_affine=False) for _ in range(config.blocks))
        self.first = nn.ModuleList(nets.linear(h, h, generator, gain=math.sqrt(3)) for _ in range(config.blocks))
        self.second = nn.ModuleList(nets.linear(h, h, generator, gain=0.0) for _ in range(config.blocks))
        self.leave = nets.linear(h, width, generator)
        self.skip = nets.linear(condition, width, generator)
        self.pass_through = nets.linear(width, width, generator)

    def embed(self, condition: Tensor) -> tuple[Tensor, Tensor]:
        """What the condition (n,F) brings to every step."""
        return self.condition(condition), self.skip(condition)

    def time(self, level: Tensor) -> Tensor:
        """(m, blocks·2h) scales and shifts of levels int64 (m,)."""
        frequency = math.pi * 2.0 ** torch.arange(8, device=level.device)
        angle = (level / self.levels).unsqueeze(1) * frequency
        return self.step(torch.cat([angle.sin(), angle.cos()], 1))

    def forward(self, x: Tensor, film: Tensor, embedded: tuple[Tensor, Tensor]) -> Tensor:
        """(n,D) prediction from s⁽ᵏ⁾ (n,D), `time` of its level(s) and `embed` of its condition."""
        h = self.enter(x) + embedded[0]
        scales = film.chunk(2 * len(self.norms), 1)
        for place, (norm, first, second) in enumerate(zip(self.norms, self.first, self.second, strict=True)):
            h = h + second(F.silu(first(norm(h) * (1 + scales[2 * place]) + scales[2 * place + 1])))
        return self.leave(h) + embedded[1] + self.pass_through(x)


def reverse_chain(
    denoiser: Denoiser,
    process: Bridge | Noise,
    encoded: Tensor,
    condition: Tensor,
    config: Config,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """(n,D) the state after `steps` reverse steps; noise is drawn where a generator is given.

    The bridge starts at level S and stops early when steps < S; the noise process starts at level `steps`. With 0 steps
    both return the encoded history: "encoded, not denoised".
    """
    embedded = denoiser.embed(condition)
    nothing = denoiser.embed(torch.zeros_like(condition)) if config.guidance else None

    def noise() -> Tensor | None:
        if generator is None:
            return None
        return torch.randn(encoded.shape, generator=generator, device=generator.device).to(encoded.device)

    start = config.steps if isinstance(process, Bridge) else steps
    levels = range(start, start - steps, -1)
    films = denoiser.time(torch.tensor([*levels], device=encoded.device, dtype=torch.int64)) if steps else None
    x = process.begin(encoded, start, noise()) if steps else encoded
    for place, level in enumerate(levels):
        assert films is not None
        film = films[place : place + 1]
        guess = denoiser(x, film, embedded)
        if nothing is not None:
            guess = (1 + config.guidance) * guess - config.guidance * denoiser(x, film, nothing)
        if config.target == "observed":
            assert isinstance(process, Noise)
            guess = process.clean(x, guess, level)
        x = process.reverse(x, guess, level, noise() if level > 1 else None)
    return x


def _process(config: Config) -> Bridge | Noise:
    return Bridge(config) if config.process == "bridge" and config.target == "interest" else Noise(config)


class _Diffused:
    """Sampling that both readings share."""

    config: Config
    process: Bridge | Noise
    denoiser: Denoiser

    def check_steps(self, steps: int) -> int:
        """`steps` if it is 0 … S. Raises BadInput."""
        most = self.config.steps
        if not 0 <= steps <= most:
            raise BadInput(f"steps = {steps} is not legal: this purifier was trained with {most}, so it must be 0 to {most}")
        return steps

    def chains(
        self, encoded: Tensor, condition: Tensor, steps: int | None, samples: int, generator: torch.Generator | None
    ) -> Tensor:
        """(B,D) without noise for one sample and no generator, else (B,[samples,]D) draws."""
        steps = self.config.steps if steps is None else self.check_steps(steps)
        if samples == 1:
            return reverse_chain(self.denoiser, self.process, encoded, condition, self.config, steps, generator)
        if generator is None:
            raise BadInput(f"samples = {samples} is not legal without a generator: several samples are draws")
        wide = reverse_chain(
            self.denoiser, self.process, encoded.repeat_interleave(samples, 0), condition.repeat_interleave(samples, 0),
            self.config, steps, generator,
        )  # fmt: skip
        return wide.view(len(encoded), samples, -1)


class InterestDiffusion(_Diffused, InterestView):
    """The default: from the evidence in a history to the long-run interest."""

    def __init__(self, config: Config, tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
        InterestView.__init__(self, tensors)
        self.config, self.process = config, _process(config)
        self.denoiser = Denoiser(len(self.target_mean), len(self.features_mean), config, generator)

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        features, encoded = self.standard(obs)
        return self.chains(encoded, features, steps, samples, generator) * self.target_std + self.target_mean


class ObservedDiffusion(_Diffused, View):
    """The trap: s_t denoised toward s_t, given s_t."""

    middle: Tensor
    unit: Tensor

    def __init__(self, config: Config, tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
        View.__init__(self, tensors)
        self.register_buffer("middle", tensors["middle"].clone())
        self.register_buffer("unit", tensors["unit"].clone())
        self.config, self.process = config, _process(config)
        self.denoiser = Denoiser(len(self.middle), len(self.middle), config, generator)

    def encode(self, obs: Obs, steps: int | None, samples: int, generator: torch.Generator | None) -> Tensor:
        state = (mean_of_positives(self.items, obs.history, obs.rewards) - self.middle) / self.unit
        return self.chains(state, state, steps, samples, generator) * self.unit + self.middle


def fit(stage: Stage, config: Config, generator: torch.Generator) -> View:
    """Train the denoiser on parts of the training users' histories (Stage I of paper §4.4)."""
    view: InterestDiffusion | ObservedDiffusion
    if config.target == "observed":
        obs, known = stage.starts()
        items = stage.observed.items
        state = mean_of_positives(items, obs.history, obs.rewards)[known]
        middle, unit = state.mean(0), state.std(0).clamp_min(1e-6)
        view = ObservedDiffusion(config, {"items": items, "middle": middle, "unit": unit}, generator)
        clean = encoded = condition = (state - middle) / unit
    else:
        samples = draw_samples(stage, config.parts, generator)
        view = InterestDiffusion(config, tensors_of(stage, samples), generator)
        clean, encoded, condition = samples.target, samples.encoded, samples.features

    def loss(rows: Tensor) -> Tensor:
        level = torch.randint(1, config.steps + 1, (len(rows),), generator=generator)
        noise = torch.randn(len(rows), clean.shape[1], generator=generator)
        x = view.process.corrupt(clean[rows], encoded[rows], level, noise)
        kept = torch.rand(len(rows), 1, generator=generator) >= config.dropped
        guess = view.denoiser(x, view.denoiser.time(level), view.denoiser.embed(condition[rows] * kept))
        return F.mse_loss(guess, noise if config.target == "observed" else clean[rows])  # Eq. 7, or its s*-form

    nets.fit(
        view.denoiser,
        loss,
        len(clean),
        steps=config.training_steps,
        batch=config.batch,
        learning_rate=config.learning_rate,
        generator=generator,
        watch=lambda done: stage.watch("diffusion", done),
    )
    calibrate(view, stage, learn_bias=config.target == "observed")
    return view


def restore(config: Config, tensors: Mapping[str, Tensor]) -> View:
    """The view whose state_dict is `tensors`."""
    made = ObservedDiffusion if config.target == "observed" else InterestDiffusion
    view = made(config, tensors, torch.Generator())
    view.load_state_dict(dict(tensors))
    return view
