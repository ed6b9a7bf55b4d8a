"""Where test users stand at the start of their sessions, in three spaces, and two-dimensional maps of them.

raw: the paper's s_t, the mean observed vector of what a user responded to · purified: what the run's view makes of the same
history · clean: the true preference, known in the synthetic world alone. Maps are made by UMAP and t-SNE, which take half a
minute and more: `python -m engine map` writes them beside the run, and views only read them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from engine import checkpoint
from engine.contracts import Obs
from engine.options import BadInput
from engine.rows import last_rows
from engine.run import EVALUATION_LUCK, SPEC, Trained, load_run
from engine.state.encoder import mean_of_positives, popularity_level

FILE = "maps.pt"
KINDS = ("umap", "tsne")
SPACES = ("raw", "purified", "clean")
MOST = 2000  # users on a map: t-SNE takes seconds for so many, minutes for ten times as many
FEWEST = 10
SEED = 0
Say = Callable[[str], None]


@dataclass(frozen=True)
class People:
    """Test users whose history holds a positive response, in an order that does not depend on how many are wanted.

    users int64 (n,); obs: their histories before a session; popularity (n,): mean standardised log-popularity of their
    positives; interest int64 (n,): id of the true main category or, where the truth is not known, of the most frequent
    main tag of their positives; conformity (n,) or None where the truth is not known; count int64 (n,) interactions known;
    rate (n,) the mean response in them.
    """

    users: Tensor
    obs: Obs
    popularity: Tensor
    interest: Tensor
    conformity: Tensor | None
    count: Tensor
    rate: Tensor

    def __len__(self) -> int:
        return len(self.users)


def people(trained: Trained, most: int = MOST) -> People:
    """At most so many test users of a run. Raises BadInput where there are too few to draw a map of."""
    log, data = trained.data.test_start, trained.data
    items, rewards = last_rows(log, trained.spec.settings["state"]["history"])
    somebody = ((items >= 0) & (rewards > 0)).any(1)
    order = torch.randperm(log.users, generator=torch.Generator().manual_seed(EVALUATION_LUCK))
    users = order[somebody[order]][:most]
    if len(users) < FEWEST:
        raise BadInput(f"a map needs {FEWEST} test users with a response in their history, and {data.name} has {len(users)}")
    items, rewards = items[users], rewards[users]
    known = items >= 0
    tags = torch.zeros(len(users), len(data.train.items.tag_names))
    tags.scatter_add_(1, data.train.items.main_tag[items.clamp_min(0)], rewards * known)
    truth, count = data.truth, known.sum(1)
    return People(
        users=users,
        obs=Obs(users, 0, items, rewards, 0, torch.zeros(len(users), 0, dtype=torch.int64), torch.zeros_like(users).bool()),
        popularity=popularity_level(data.train.items.log_popularity(), items, rewards),
        interest=tags.argmax(1) if truth is None else truth.interest[users],
        conformity=None if truth is None else truth.conformity[users],
        count=count,
        rate=(rewards * known).sum(1) / count.clamp_min(1),
    )


def states(trained: Trained, of: People, space: str, steps: int | None = None) -> Tensor | None:
    """(n,·) where people stand in one of SPACES; None for `clean` where the truth is not known. steps: of `purified`."""
    if space == "raw":
        return mean_of_positives(trained.observed, of.obs.history, of.obs.rewards)
    if space == "purified":
        return trained.view(of.obs, steps=steps)
    return None if trained.data.truth is None else trained.data.truth.preference[of.users]


def umap(x: Tensor) -> Tensor:
    """(n,2) UMAP of (n,D), the same every time on one machine."""
    from umap import UMAP

    made = UMAP(n_neighbors=min(15, len(x) - 1), min_dist=0.1, random_state=SEED, n_jobs=1).fit_transform(x.numpy())
    return torch.from_numpy(made).float()


def tsne(x: Tensor) -> Tensor:
    """(n,2) t-SNE of (n,D), the same every time on one machine."""
    from sklearn.manifold import TSNE

    made = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="pca", random_state=SEED).fit_transform(x.numpy())
    return torch.from_numpy(made).float()


def draw(spaces: Mapping[str, Tensor], say: Say = lambda _: None) -> dict[str, dict[str, Tensor]]:
    """Kind → space → (n,2). Equal spaces get equal maps, and are drawn once."""
    makers = {"umap": umap, "tsne": tsne}
    made: dict[str, dict[str, Tensor]] = {kind: {} for kind in KINDS}
    todo = [(kind, space) for kind in KINDS for space in spaces]
    for place, (kind, space) in enumerate(todo, 1):
        say(f"map: {kind} of {space} ({place} of {len(todo)})")
        alike = next((name for name in made[kind] if torch.equal(spaces[name], spaces[space])), None)
        made[kind][space] = made[kind][alike] if alike else makers[kind](spaces[space])
    return made


def make(folder: Path, say: Say = lambda _: None) -> dict[str, Any]:
    """Write FILE into a finished run's folder, unless it is there and of the same states; what `map --json` prints.

    One process at a time: another one waits, and then finds the work done. Raises BadInput.
    """
    began = time.perf_counter()
    trained = load_run(folder)
    torch.set_num_threads(trained.spec.threads)
    of = people(trained)
    found = {space: states(trained, of, space) for space in SPACES}
    spaces = {space: state for space, state in found.items() if state is not None}
    key = _key(of.users, spaces)
    with FileLock(folder / f".{FILE}.lock"):
        kept = checkpoint.read_tensors(folder / FILE)
        again = kept is not None and kept["key"] == key
        if not again:
            drawn = draw(spaces, say)
            if not (folder / SPEC).is_file():  # deleted meanwhile: writing would bring half of it back
                raise BadInput(f"run = {str(folder)!r} is gone: it was deleted while its maps were drawn")
            checkpoint.write_tensors(folder / FILE, {"key": key, "users": of.users, "maps": drawn})
    took = {"total": time.perf_counter() - began}
    return {"file": str(folder / FILE), "users": len(of), "spaces": list(spaces), "kinds": list(KINDS), "again": again,
            "seconds": took}  # fmt: skip


def read(folder: Path) -> tuple[Tensor, dict[str, dict[str, Tensor]]] | None:
    """(users (n,), kind → space → (n,2)) of a run whose maps were made; None where there are none, or they are not whole."""
    kept = checkpoint.read_tensors(folder / FILE)
    return None if kept is None else (kept["users"], kept["maps"])


def _key(users: Tensor, spaces: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{version('umap-learn')} {version('scikit-learn')} {SEED}".encode())
    for name, value in {"users": users, **spaces}.items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()
