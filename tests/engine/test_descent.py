"""A gradient step gathered block by block is the step from all rows at once."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from engine.learn import descent
from engine.learn.descent import descend


def test_blocks_make_the_step_of_all_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(700, generator=generator)  # two whole blocks and a part of one
    seen, wanted = torch.randn(700, 3, generator=generator), torch.randn(700, 1, generator=generator)
    ours = nn.Linear(3, 1)
    plain = copy.deepcopy(ours)
    calls = []

    def loss_of(part: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(part))
        loss = (ours(seen[part]) - wanted[part]).pow(2).mean()
        return loss, torch.stack([loss, part.float().mean()])

    reported = descend(torch.optim.SGD(ours.parameters(), lr=0.5), ours, rows, loss_of, 256)
    loss = (plain(seen) - wanted).pow(2).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(plain.parameters(), descent.MOST)
    torch.optim.SGD(plain.parameters(), lr=0.5).step()
    assert calls == [256, 256, 188]
    assert torch.allclose(ours.weight, plain.weight, atol=1e-6)
    assert torch.allclose(ours.bias, plain.bias, atol=1e-6)
    assert torch.allclose(reported, torch.tensor([loss.item(), 349.5]), rtol=1e-5)
