"""Small networks whose first weights come from a given generator, never from a global one; and one way to fit them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from engine.options import Diverged


def linear(inputs: int, outputs: int, generator: torch.Generator, *, gain: float = 1.0) -> nn.Linear:
    """A linear layer with uniform weights in ± gain/√inputs and bias 0; gain 0 starts the layer at zero."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    with torch.no_grad():
        bound = gain / math.sqrt(inputs)
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


def mlp(
    sizes: Sequence[int],
    generator: torch.Generator,
    *,
    activation: type[nn.Module] = nn.SiLU,
    last_gain: float = 1.0,
) -> nn.Sequential:
    """Linear layers of the given sizes with activations between them."""
    layers: list[nn.Module] = []
    for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        last = place == len(sizes) - 2
        layers.append(linear(inputs, outputs, generator, gain=last_gain if last else math.sqrt(3)))
        if not last:
            layers.append(activation())
    return nn.Sequential(*layers)


@torch.enable_grad()
def fit(
    module: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
    watch: Callable[[float], None],
) -> list[float]:
    """Minimise `loss(rows)`, rows int64 (batch,) drawn from `count` samples, by AdamW with one cycle of the step size.

    Returns the loss at about a hundred points. Raises Diverged where it is not finite.
    """
    adam = torch.optim.AdamW(module.parameters(), lr=learning_rate, weight_decay=1e-2, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, learning_rate, total_steps=max(steps, 2))
    curve, every = [], max(1, steps // 100)
    for step in range(steps):
        value = loss(torch.randint(count, (batch,), generator=generator))
        adam.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        adam.step()
        schedule.step()
        if step % every == 0 or step == steps - 1:
            curve.append(value.item())
            if not math.isfinite(curve[-1]):
                raise Diverged(f"the loss is {curve[-1]} after {step} steps")
            watch(step / steps)
    return curve
