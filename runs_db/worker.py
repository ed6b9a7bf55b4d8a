"""The supervisor of one machine: claims queued runs, starts them, enforces stops, takes over what others have left.

It owns no run. Runs renew their own leases, so the death of a worker stops nothing, and the next one adopts what it finds.
Several workers on one machine share its room: `slots` and `threads` count all runs and chores that are active there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from engine.arguments import say
from engine.options import BadInput
from runs_db import chores, identity, models, queue
from runs_db.database import Database, Unavailable
from runs_db.executors import Executor, Local
from runs_db.identity import Identity
from runs_db.queue import Active

Key = tuple[int, int]  # run, epoch


class Worker:
    """grace: seconds a trainer has to stop by itself. lease: see `queue.LEASE`. attempts: see `queue.ATTEMPTS`."""

    def __init__(
        self,
        database: Database,
        executor: Executor | None = None,
        *,
        slots: int | None = None,
        threads: int | None = None,
        lease: float = queue.LEASE,
        grace: float = 3.0,
        poll: float = 0.3,
        attempts: int = queue.ATTEMPTS,
        tell: Callable[[str], None] = say,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.database, self.executor = database, executor or Local(database)
        self.slots, self.threads = slots or cores, threads or cores
        self.lease, self.grace, self.poll, self.attempts, self.tell = lease, grace, poll, attempts, tell
        self.me = identity.mine()
        self._forget_workers()
        self.id = queue.sign_on(database, self.me, self.slots, self.threads)
        self.keeper = chores.Keeper(
            database, self.executor, self.id, slots=self.slots, threads=self.threads, lease=lease, tell=tell
        )
        self._started: dict[Key, Identity] = {}
        self._asked: dict[Key, float] = {}  # when a stop was first seen
        self._silent: dict[Key, float] = {}  # since when a living owner's lease is over
        self._beat = time.monotonic()
        self._leaving = 0
        self._wake = threading.Event()

    def listen(self) -> None:
        """SIGINT and SIGTERM: the first lets the runs go back to the queue, the second leaves them alone and ends."""
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: self.leave())

    def leave(self) -> None:
        """Begin to leave; called a second time, leave at once."""
        self._leaving += 1
        self._wake.set()

    def serve(self, *, once: bool = False) -> None:
        """Work until told to leave or, with `once`, until nothing is queued and none of its runs is active."""
        self.tell(f"worker {self.id}: {self.slots} runs at once, {self.threads} threads, {self.database.place}")
        trouble = ""
        while not self._leaving:
            try:
                idle = self.turn()
                if trouble:
                    self.tell(f"worker {self.id}: the database is back")
                trouble = ""
            except Unavailable as error:
                if not trouble:
                    self.tell(f"worker {self.id}: {error}; trying again")
                trouble, idle = str(error), False
                self._silent.clear()  # who could not write has not been silent
            if once and idle:
                break
            self._wake.wait(self.poll)
        try:
            if self._leaving:
                self._send_back()
            queue.sign_off(self.database, [self.id])
        except Unavailable as error:
            self.tell(f"worker {self.id}: {error}; the next worker will look after its runs")

    def turn(self) -> bool:
        """One look at everything, a few times a second. True if nothing is queued and none of its runs is active."""
        self.executor.tidy()
        self._keep_alive()
        found = queue.active(self.database)
        self._forget(found)
        responsible = [self._watch(active) for active in found]
        here = [active.threads for active in found if active.process.boot_id == self.me.boot_id]
        small = self.keeper.turn(here, start=not self._leaving)
        here += [1] * self.keeper.here(small)
        if len(here) < self.slots and sum(here) < self.threads:  # else a claim would only lock the database for nothing
            while not self._leaving and queue.anything_queued(self.database) and self._start_one():
                pass
        return not (any(responsible) or self._started or self.keeper.busy(small) or queue.anything_queued(self.database))

    def _start_one(self) -> bool:
        claim = queue.claim(self.database, self.id, self.me, threads=self.threads, slots=self.slots, lease=self.lease)
        if claim is None:
            return False
        try:
            self._started[claim.run, claim.epoch] = self.executor.start(claim)
        except (OSError, BadInput, Unavailable) as error:
            reason = f"it could not be started: {error}"
            queue.finish(self.database, claim.run, claim.epoch, models.FAILED, error=reason)
            self.tell(f"run {claim.run}: failed: {reason}")
            return True
        self.tell(f"run {claim.run}: started (attempt {claim.epoch})")
        return True

    def _watch(self, active: Active) -> bool:
        """Look after one claimed run. True if this worker is responsible for it and it goes on."""
        trainer = self._started.get((active.run, active.epoch))
        if trainer is None and active.state != models.STARTING:
            trainer = active.process
        if trainer is None:  # the row still names the worker that claimed it, and its trainer has not reported yet
            if identity.alive(active.process) is False:
                self._lost(active, "its worker died before the run began")
            elif active.lease_left < 0:
                self._lost(active, f"it did not begin within {self.lease:.0f} s", expired=True)
            return active.worker == self.id
        alive = self.executor.alive(trainer)
        if alive is None:
            if active.lease_left < 0:
                self._lost(active, f"its machine {trainer.host} was not heard of for {self.lease:.0f} s", expired=True)
            return False
        if not alive:
            self.executor.stop(trainer, force=True)  # what it may have left behind
            self._lost(active, self.executor.ending(trainer))
            return False
        self._adopt(active)
        self._enforce(active, trainer)
        self._end_if_hung(active, trainer)
        return active.worker == self.id

    def _lost(self, active: Active, reason: str, *, expired: bool = False) -> None:
        reached = queue.lost(self.database, active, reason, attempts=self.attempts, expired=expired)
        if reached:
            self.tell(f"run {active.run}: {reached}: {reason}")

    def _adopt(self, active: Active) -> None:
        """Take over the supervision of a run of this machine whose worker has died. Nothing changes for the run."""
        if active.worker == self.id:
            return
        others = queue.signed_on(self.database)
        if active.worker in others and identity.alive(others[active.worker][0]):
            return
        if queue.adopt(self.database, active, self.id):
            self.tell(f"run {active.run}: adopted")

    def _enforce(self, active: Active, trainer: Identity) -> None:
        """A stop is asked for by SIGTERM at once, and by SIGKILL when the grace period is over."""
        if not active.stop_requested:
            return
        key = active.run, active.epoch
        if key not in self._asked:
            self._asked[key] = time.monotonic()
            self.executor.stop(trainer)
        elif time.monotonic() - self._asked[key] > self.grace:
            self.executor.stop(trainer, force=True)

    def _end_if_hung(self, active: Active, trainer: Identity) -> None:
        """A process that lives but has been silent past its lease is ended, unless the whole machine was asleep."""
        key = active.run, active.epoch
        if active.lease_left >= 0:
            self._silent.pop(key, None)
        elif time.monotonic() - self._silent.setdefault(key, time.monotonic()) > self.lease:
            self.tell(f"run {active.run}: silent for {2 * self.lease:.0f} s, ending its process")
            self.executor.stop(trainer, force=True)

    def _keep_alive(self) -> None:
        if time.monotonic() - self._beat > 5.0:
            queue.beat(self.database, self.id)
            self.keeper.renew()
            self._beat = time.monotonic()

    def _forget(self, found: list[Active]) -> None:
        """Drop what is remembered of runs that are no longer active, and tell how those that it started have ended."""
        keys = {(active.run, active.epoch) for active in found}
        ended = [run for run, epoch in self._started if (run, epoch) not in keys]
        for run, state in queue.states(self.database, ended).items() if ended else ():
            self.tell(f"run {run}: {state}")
        self._started = {key: value for key, value in self._started.items() if key in keys}
        self._asked = {key: value for key, value in self._asked.items() if key in keys}
        self._silent = {key: value for key, value in self._silent.items() if key in keys}

    def _forget_workers(self) -> None:
        """Remove the rows of workers that died without signing off."""
        found = queue.signed_on(self.database)
        gone = [key for key, (process, age) in found.items() if identity.alive(process) is False or age > 86_400]
        if gone:
            queue.sign_off(self.database, gone)

    def _send_back(self) -> None:
        """Ask the runs of this worker to keep a checkpoint and put them back into the queue; wait a few seconds for them."""
        self.keeper.send_back()
        runs = [active.run for active in queue.active(self.database) if active.worker == self.id]
        if runs:
            self.tell(f"worker {self.id}: sending {len(runs)} back to the queue (once more to leave them running)")
        for run in runs:
            queue.ask(self.database, run, queue.REQUEUE)
        deadline = time.monotonic() + self.grace + 3.0
        while runs and self._leaving < 2 and time.monotonic() < deadline:
            self.turn()
            runs = [active.run for active in queue.active(self.database) if active.worker == self.id]
            self._wake.clear()
            self._wake.wait(self.poll if runs else 0)
        self.executor.tidy()
