"""From the progress of one stage to that of the whole run, and the seconds it still needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from runs_db.queue import Standing

# Shares of the time where no earlier run says better; what comes before training is not known by name.
SHARES = {"": 0.1, "training": 0.8, "evaluation": 0.1}


class Overall:
    """shares: stage → share of the whole (any unit), in the order of the stages. A stage that is not among them leaves the
    whole as it was. Standings never go back, although a resumed stage may begin anywhere."""

    def __init__(self, shares: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        shares = {name: share for name, share in (shares or {}).items() if share > 0} or SHARES
        whole = sum(shares.values())
        self._shares = {name: share / whole for name, share in shares.items()}
        self._clock = clock
        self._stage, self._began, self._first = "", 0.0, 0.0
        self._taken: dict[str, float] = {}
        self._progress: float | None = None

    def standing(self, stage: str, done: float, total: float) -> Standing:
        """Where the run stands, given where its stage stands. Cheap: called in inner loops."""
        part = min(max(done / total, 0.0), 1.0) if total > 0 else 0.0
        if stage != self._stage:
            self._taken = self.taken()
            self._stage, self._began, self._first = stage, self._clock(), part
        if stage in self._shares:
            before = 0.0
            for name, share in self._shares.items():
                if name == stage:
                    break
                before += share
            self._progress = max(self._progress or 0.0, min(before + self._shares[stage] * part, 0.999))
        return Standing(stage, float(done), float(total), self._progress, self._left(stage, part))

    def taken(self) -> dict[str, float]:
        """Stage → seconds so far, in the order of the stages: the shares of the next run like this one."""
        if not self._stage:
            return {}
        return {**self._taken, self._stage: self._taken.get(self._stage, 0.0) + self._clock() - self._began}

    def _left(self, stage: str, part: float) -> float | None:
        elapsed = self._clock() - self._began
        if part - self._first < 0.01 or elapsed < 1.0:
            return None
        stage_seconds = elapsed / (part - self._first)
        left = stage_seconds * (1.0 - part)
        names = list(self._shares)
        if stage in names:
            later = sum(self._shares[name] for name in names[names.index(stage) + 1 :])
            left += later * stage_seconds / self._shares[stage]
        return left
