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
used by policies is deterministic: reverse steps without noise; noise is added only where a generator is given. Then each step
also draws s* around its prediction, with the covariance that predictions miss it by (`Doubt`): without, samples agree far more
with each other than with the truth (the idea of Analytic-DPM's optimal covariance, Bao et al. 2022). Draws take few strides,
for each one loses some spread. 5. η rises linearly, S = 10 by default. 6. FiLM on the step only, so that the condition is
embedded once for all steps.
"""

from __future__ import annotations

import itertools
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

DOUBT_ROWS, DOUBT_HIDDEN, DOUBT_STEPS = 4096, 64, 1500  # samples a level, width and steps of Adam of what learns the doubt


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
    strides: int = option(
        2, "levels at which a drawn sample stops on its way; the estimate that policies use visits all", low=1, high=1000
    )
    widening: float = option(
        1.05,
        "spread of draws, as a multiple of what predictions miss training users by: unseen users are missed by more",
        low=0,
        high=10,
        source="docs/purification.md",
    )
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

    def reverse(self, x: Tensor, clean: Tensor, level: int, to: int, noise: Tensor | None) -> Tensor:
        """s⁽ʲ⁾, j = to, from s⁽ᵏ⁾ and the predicted clean target: q(s⁽ʲ⁾ | s⁽ᵏ⁾, ŝ*), its mean where noise is None."""
        eta, lower = level / self.levels, to / self.levels
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

    def reverse(self, x: Tensor, clean: Tensor, level: int, to: int, noise: Tensor | None) -> Tensor:
        """With noise Eq. 3, σ_k² = (1 − ᾱ_{k−1})/(1 − ᾱ_k)·(1 − α_k); without, the deterministic step to the same marginals.
        `to` must be level − 1."""
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


class Doubt(nn.Module):
    """How far s* lies from its prediction: N(0, R_k·diag(v)·R_kᵀ). The columns of R_k are the principal directions in which
    predictions at level k miss, by how much they do; v, one factor a direction, is what level and condition say of it: a long
    history leaves less doubt than a short one, and leaves it elsewhere. A chain of imperfect steps loses some of the spread
    that its first prediction is known to miss by; `lost`, a share for each direction of R_S, is drawn at its end."""

    roots: Tensor
    lost: Tensor

    def __init__(self, width: int, condition: int, levels: int) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("roots", torch.zeros(levels + 1, width, width))  # R_k
        self.register_buffer("lost", torch.zeros(width))
        # A generator of its own, so that what the denoiser draws does not depend on whether there is doubt.
        self.scale = nets.mlp((condition + 2, DOUBT_HIDDEN, width), torch.Generator().manual_seed(0), last_gain=0.0)

    def log_variance(self, condition: Tensor, level: Tensor) -> Tensor:
        """(n,D) log v for conditions (n,F) at levels int64 (n,)."""
        eta = (level / self.levels).unsqueeze(1)
        value: Tensor = self.scale(torch.cat([condition, 2 * eta - 1, (math.pi * eta).cos()], 1))
        return value.clamp(-6.0, 6.0)

    def draw(self, condition: Tensor, level: int, noise: Tensor) -> Tensor:
        """(n,D) how far s* is from its prediction, from standard normal noise (n,D)."""
        at = torch.full((len(condition),), level, device=condition.device)
        return (noise * (0.5 * self.log_variance(condition, at)).exp()) @ self.roots[level].T


def reverse_chain(
    denoiser: Denoiser,
    process: Bridge | Noise,
    encoded: Tensor,
    condition: Tensor,
    config: Config,
    steps: int,
    generator: torch.Generator | None,
    doubt: Doubt | None = None,
) -> Tensor:
    """(n,D) the state after `steps` reverse steps; with a generator, noise is drawn, and s* where there is `doubt`.

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
    drawn = doubt if generator is not None and steps else None
    strides = min(config.strides, steps) if drawn is not None and isinstance(process, Bridge) else steps
    levels = [start - round(steps * stride / max(strides, 1)) for stride in range(strides + 1)]
    films = denoiser.time(torch.tensor(levels[:-1], device=encoded.device, dtype=torch.int64)) if steps else None
    x = process.begin(encoded, start, noise()) if steps else encoded
    for place, (level, to) in enumerate(itertools.pairwise(levels)):
        assert films is not None
        film = films[place : place + 1]
        guess = denoiser(x, film, embedded)
        if nothing is not None:
            guess = (1 + config.guidance) * guess - config.guidance * denoiser(x, film, nothing)
        if config.target == "observed":
            assert isinstance(process, Noise)
            guess = process.clean(x, guess, level)
        if drawn is not None:
            guess = guess + drawn.draw(condition, level, _some(noise()))
        x = process.reverse(x, guess, level, to, noise() if to > 0 else None)
    if drawn is not None:
        x = x + drawn.draw(condition, start, _some(noise()) * drawn.lost.sqrt())
    return x


def _some(noise: Tensor | None) -> Tensor:
    assert noise is not None
    return noise


def _process(config: Config) -> Bridge | Noise:
    return Bridge(config) if config.process == "bridge" and config.target == "interest" else Noise(config)


class _Diffused:
    """Sampling that both readings share."""

    config: Config
    process: Bridge | Noise
    denoiser: Denoiser
    doubt: Doubt | None

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
            return reverse_chain(self.denoiser, self.process, encoded, condition, self.config, steps, generator, self.doubt)
        if generator is None:
            raise BadInput(f"samples = {samples} is not legal without a generator: several samples are draws")
        wide = reverse_chain(
            self.denoiser, self.process, encoded.repeat_interleave(samples, 0), condition.repeat_interleave(samples, 0),
            self.config, steps, generator, self.doubt,
        )  # fmt: skip
        return wide.view(len(encoded), samples, -1)


class InterestDiffusion(_Diffused, InterestView):
    """The default: from the evidence in a history to the long-run interest."""

    def __init__(self, config: Config, tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
        InterestView.__init__(self, tensors)
        self.config, self.process = config, _process(config)
        self.denoiser = Denoiser(len(self.target_mean), len(self.features_mean), config, generator)
        self.doubt = Doubt(len(self.target_mean), len(self.features_mean), config.steps)

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
        self.doubt = None

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
    if isinstance(view, InterestDiffusion):
        fit_doubt(view, clean, encoded, condition, generator)
    calibrate(view, stage, learn_bias=config.target == "observed")
    return view


def fit_doubt(view: InterestDiffusion, clean: Tensor, encoded: Tensor, condition: Tensor, generator: torch.Generator) -> None:
    """Learn `view.doubt` from how far predictions are off: R_k by principal components, then log v by maximum likelihood,
    then what two chains with the same condition lack in difference."""
    doubt, config = view.doubt, view.config
    assert doubt is not None
    squared, told, levels = [], [], []
    with torch.no_grad():
        for level in range(1, config.steps + 1):
            few = DOUBT_ROWS if level < config.steps else len(clean)  # all draws begin at S, where conditions matter most
            rows = torch.randperm(len(clean), generator=generator)[:few]
            noise = torch.randn(len(rows), clean.shape[1], generator=generator)
            at = torch.full((len(rows),), level)
            x = view.process.corrupt(clean[rows], encoded[rows], at, noise)
            miss = clean[rows] - view.denoiser(x, view.denoiser.time(at[:1]), view.denoiser.embed(condition[rows]))
            size, direction = torch.linalg.eigh(miss.T @ miss / len(rows))
            size = size.clamp_min(1e-6).sqrt()
            doubt.roots[level] = direction * size
            squared.append((miss @ direction / size).pow(2))
            told.append(condition[rows])
            levels.append(at)
    off, inputs, level_of = torch.cat(squared), torch.cat(told), torch.cat(levels)

    def likelihood(rows: Tensor) -> Tensor:
        log_variance = doubt.log_variance(inputs[rows], level_of[rows])
        return (log_variance + off[rows] * (-log_variance).exp()).mean()

    nets.fit(
        doubt, likelihood, len(off), steps=DOUBT_STEPS, batch=512, learning_rate=5e-3, generator=generator,
        watch=lambda _: None,
    )  # fmt: skip
    with torch.no_grad():
        one, other = (
            reverse_chain(view.denoiser, view.process, encoded[rows], condition[rows], config, config.steps, generator, doubt)
            for _ in range(2)
        )
        direction = doubt.roots[-1] / doubt.roots[-1].norm(dim=0)
        apart = ((one - other) @ direction).pow(2).mean(0) / 2
        doubt.lost.copy_((1 - apart / doubt.roots[-1].pow(2).sum(0)).clamp(0, 1))
        doubt.roots.mul_(config.widening)


def restore(config: Config, tensors: Mapping[str, Tensor]) -> View:
    """The view whose state_dict is `tensors`."""
    made = ObservedDiffusion if config.target == "observed" else InterestDiffusion
    view = made(config, tensors, torch.Generator())
    view.load_state_dict(dict(tensors))
    return view
