"""The core of discrete BCQ on a small logged decision process whose best logged policy is known."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from engine.learn.bcq import Transitions, constrained, losses, ratio, targets

STATES, ACTIONS, GAMMA = 5, 4, 0.9
LOGGED = (0, 1, 2)  # action 3 is in no log
GOAL = STATES - 1


def chain(state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Action 0 pays 0.05 at once and leads back to the start; 1 goes on, and pays 1 from the last state; 2 stays; 3 would pay
    −1 and is never logged."""
    arrived = state == GOAL
    reward = torch.where(action == 0, 0.05, torch.where((action == 1) & arrived, 1.0, torch.where(action == 3, -1.0, 0.0)))
    following = torch.where(action == 0, 0, torch.where(action == 1, torch.where(arrived, 0, state + 1), state))
    return reward, following


def best_logged() -> Tensor:
    """(STATES,ACTIONS) the optimal Q over logged actions, by value iteration."""
    state = torch.arange(STATES)[:, None].expand(-1, ACTIONS)
    reward, following = chain(state, torch.arange(ACTIONS).expand(STATES, -1))
    q = torch.zeros(STATES, ACTIONS)
    for _ in range(300):
        q = reward + GAMMA * q[:, list(LOGGED)].amax(1)[following]
    return q


def logged(count: int = 4000) -> Transitions:
    generator = torch.Generator().manual_seed(3)
    state = torch.randint(STATES, (count,), generator=generator)
    action = torch.multinomial(torch.tensor([0.5, 0.3, 0.2, 0.0]), count, replacement=True, generator=generator)
    reward, following = chain(state, action)
    return Transitions(state, action, reward, following, torch.full((count,), GAMMA))


class Table(nn.Module):
    """Q, which starts out in love with what the log never shows, and the imitation's logits."""

    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.tensor([0.0, 0.0, 0.0, 50.0]).repeat(STATES, 1))
        self.logits = nn.Parameter(torch.zeros(STATES, ACTIONS))

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.q[state], self.logits[state]


def learn(threshold: float) -> Table:
    generator, log = torch.Generator().manual_seed(0), logged()
    net = Table()
    adam = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(400):  # the imitation first, as it is in place long before values are
        rows = torch.randint(len(log), (256,), generator=generator)
        loss = losses(*net(log.inputs[rows]), log.action[rows], torch.zeros(256))[1]
        adam.zero_grad()
        loss.backward()
        adam.step()
    target = copy.deepcopy(net)
    for step in range(2000):
        batch = log.select(torch.randint(len(log), (256,), generator=generator))
        with torch.no_grad():
            aim = targets(batch, *net(batch.following), target(batch.following)[0], threshold)
        q_loss, imitation, size = losses(*net(batch.inputs), batch.action, aim)
        adam.zero_grad()
        (q_loss + imitation + 0.001 * size).backward()
        adam.step()
        if step % 50 == 0:
            target.load_state_dict(net.state_dict())
    return net


def test_the_best_logged_policy_is_found_and_nothing_else_is_done() -> None:
    net, truth = learn(0.1), best_logged()
    q, logits = net(torch.arange(STATES))
    chosen = constrained(q, logits, 0.1).argmax(1)
    assert chosen.tolist() == truth[:, list(LOGGED)].argmax(1).tolist() == [1] * STATES
    assert torch.allclose(q[:, list(LOGGED)], truth[:, list(LOGGED)], atol=0.05)


def test_without_the_constraint_the_unseen_action_wins_and_spoils_the_values() -> None:
    net, truth = learn(0.0), best_logged()
    q, logits = net(torch.arange(STATES))
    assert constrained(q, logits, 0.0).argmax(1).tolist() == [3] * STATES
    assert (q - truth)[:, list(LOGGED)].min() > 10


@pytest.mark.parametrize(
    ("threshold", "order"), [(0.0, [2, 3, 0, 1]), (0.3, [2, 0, 1, 3]), (0.6, [0, 1, 2, 3]), (1.0, [0, 1, 2, 3])]
)
def test_ranking_by_q_within_the_allowed_and_by_g_below(threshold: float, order: list[int]) -> None:
    q, g = torch.tensor([[1.0, -1.0, 9.0, 5.0]]), torch.tensor([[0.5, 0.3, 0.19, 0.01]])
    assert constrained(q, g.log(), threshold).argsort(1, descending=True)[0].tolist() == order


def test_what_is_blocked_comes_last_and_does_not_count_as_the_likeliest() -> None:
    q, g = torch.tensor([[1.0, 2.0, 9.0, 5.0]]), torch.tensor([[0.5, 0.3, 0.19, 0.01]])
    blocked = torch.tensor([[True, False, False, False]])
    assert torch.allclose(ratio(g.log(), blocked).exp(), torch.tensor([[0.0, 1.0, 0.19 / 0.3, 0.01 / 0.3]]))
    scores = constrained(q, g.log(), 0.6, blocked)
    assert scores.argsort(1, descending=True)[0].tolist() == [2, 1, 3, 0]
    assert scores[0, 0] == -torch.inf


def test_targets_are_double_q_over_the_allowed() -> None:
    q, g = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[0.5, 0.4, 0.1]])
    batch = Transitions(torch.zeros(1), torch.zeros(1).long(), torch.tensor([0.5]), torch.zeros(1), torch.tensor([0.8]))
    other = torch.tensor([[7.0, 3.0, 100.0]])
    assert targets(batch, q, g.log(), other, 0.5).item() == pytest.approx(0.5 + 0.8 * 3)
    assert targets(batch, q, g.log(), other, 0.0).item() == pytest.approx(0.5 + 0.8 * 100)


def test_losses_golden_values() -> None:
    q, logits = torch.tensor([[1.0, 4.0]]), torch.tensor([[0.0, 1.0986123]])  # G = 1/4, 3/4
    q_loss, imitation, size = losses(q, logits, torch.tensor([1]), torch.tensor([2.0]))
    assert (q_loss.item(), imitation.item()) == (pytest.approx(1.5), pytest.approx(0.2876821))
    assert size.item() == pytest.approx(1.0986123**2 / 2)
