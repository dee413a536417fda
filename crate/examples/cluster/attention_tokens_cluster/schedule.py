"""Runs tasks on workers: retries, workers that die, and second attempts at slow tasks."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from distributed import Future, TimeoutError

from .attempts import Function, Order, Outcome, attempt
from .errors import ClusterError, DamagedResult, RefusedWorker, SchedulerLost, ShardFailed, printable
from .progress import Progress
from .shards import Item
from .workers import Member, Workers

_POLL_SECONDS = 0.05
_REFRESH_SECONDS = 0.5
_FIRST_TRANSFER_SECONDS = 10.0


@dataclass(frozen=True)
class Options:
    """How tasks are run."""

    retries: int = 3
    """How often a task is run again after failures."""
    duplicates: bool = True
    """Whether a slow task is started a second time when no other tasks are left. The first result counts."""
    slow: float = 1.5
    """A task is slow after this many times the median duration of the finished ones."""
    wait_seconds: float = 120.0
    """How long to wait for a first worker."""


@dataclass(eq=False)
class _Running:
    """An attempt that was submitted."""

    item: Item
    order: Order
    member: Member
    future: Future
    started: float = field(default_factory=time.monotonic)


class Schedule:
    """One stage of a run: all of its tasks, until each has one result."""

    def __init__(
        self,
        workers: Workers,
        stage: str,
        verb: str,
        function: Function,
        inputs: Callable[[Item, Member], Any],
        accept: Callable[[Item, Order, Outcome, str, int], None],
        options: Options,
        progress: Progress,
    ) -> None:
        """``inputs`` makes what the function gets on a worker; ``accept`` stores a result, or raises DamagedResult."""
        self.workers, self.stage, self.verb, self.function = workers, stage, verb, function
        self.inputs, self.accept, self.options, self.progress = inputs, accept, options, progress
        self.queue: deque[Item] = deque()
        self.running: list[_Running] = []
        self.done: set[int] = set()
        self.failures: dict[int, list[tuple[str, str]]] = {}
        self.durations: list[float] = []
        self.n_attempts = 0

    def run(self, items: Sequence[Item], durations: Sequence[float] = ()) -> None:
        """Runs the tasks. ``durations`` are those of earlier tasks of the kind, in seconds.

        Raises ShardFailed, RefusedWorker, NoWorkers or SchedulerLost; results accepted until then are stored.
        """
        self.queue.extend(items)
        self.durations.extend(durations)
        refreshed = had_workers = float("-inf")
        try:
            while len(self.done) < len(items):
                now = time.monotonic()
                if now - refreshed > _REFRESH_SECONDS:
                    self._refresh()
                    refreshed = now
                    had_workers = now if self.workers.members or had_workers < 0 else had_workers
                    self.workers.require_some(now - had_workers, self.options.wait_seconds)
                    self.progress.show(len(self.running))
                for running in [running for running in self.running if running.future.done()]:
                    self._finished(running)
                for member in self.workers.with_room():
                    self._give(member)
                time.sleep(_POLL_SECONDS)
        finally:
            for running in list(self.running):
                self._drop(running)

    def _refresh(self) -> None:
        """Asks for the workers of now. Attempts on those that are not among them are over."""
        self.workers.refresh()
        for running in [running for running in self.running if running.member.address not in self.workers.members]:
            if running.member.address in self.workers.refused:
                self._refused(running, "")
            else:
                self._failed(running, "the worker died or left the cluster")

    def _give(self, member: Member) -> None:
        """Submits a task to a worker with room, if there is one for it."""
        fit = {other.address for other in self.workers.members.values() if other.fit}
        for item in self.queue:
            failed_on = {address for address, _ in self.failures.get(item.index, [])}
            if member.address in failed_on and fit - failed_on:
                continue  # it failed there, and there is a worker where it did not
            self.queue.remove(item)
            return self._submit(item, member)
        if self.queue or not self.options.duplicates or not self.durations:
            return None
        limit = self.options.slow * median(self.durations)
        attempts = [running.item.index for running in self.running]
        for running in sorted(self.running, key=lambda running: running.started):
            alone = attempts.count(running.item.index) == 1
            if alone and running.member is not member and time.monotonic() - running.started > limit:
                self.progress.duplicates += 1
                return self._submit(running.item, member)
        return None

    def _submit(self, item: Item, member: Member) -> None:
        order = self.workers.next_order(self.stage, item.index, uuid.uuid4().hex)
        self.n_attempts += 1
        # Dask groups keys by what is before the first hyphen. The end makes the key unique in the scheduler.
        key = f"{self.verb}-{item.label}, {order.run_id[:8]}/{self.n_attempts}-{order.attempt[:8]}"
        try:
            inputs = self.inputs(item, member)
            future = self.workers.client.submit(
                attempt, order, self.function, inputs, key=key, workers=[member.address], pure=False
            )
        except ClusterError:
            raise
        except Exception as error:  # Dask has many for a worker or a scheduler that is not there
            self.workers.refresh()
            self.failures.setdefault(item.index, []).append((member.address, f"the worker did not take its input: {error}"))
            self.workers.failed(member.address, str(error))
            return None if self._is_running(item) else self._again(item)
        member.running += 1
        self.running.append(_Running(item, order, member, future))
        return None

    def _finished(self, running: _Running) -> None:
        item, address = running.item, running.member.address
        if running not in self.running:
            return None  # another attempt was finished at the same moment
        try:
            outcome = self._outcome(running)
        except SchedulerLost:
            raise
        except RefusedWorker as error:
            return self._refused(running, str(error))
        except Exception as error:  # whatever the task or Dask raised
            known = isinstance(error, ClusterError)
            return self._failed(running, str(error) if known else f"{type(error).__name__}: {error}")
        try:
            self.accept(item, running.order, outcome, address, len(self.failures.get(item.index, [])) + 1)
        except RefusedWorker as error:
            return self._refused(running, str(error))
        except DamagedResult as error:
            return self._failed(running, str(error))
        running.member.failures = 0
        self.durations.append(outcome.seconds)
        self.done.add(item.index)
        self._forget(running)
        for other in [other for other in self.running if other.item.index == item.index]:
            self._drop(other)
        self.progress.finished(item.units)
        return None

    def _outcome(self, running: _Running) -> Outcome:
        """The result of a future, while its worker is there. A result that does not arrive is asked for again, for longer."""
        seconds = _FIRST_TRANSFER_SECONDS
        while True:
            if running.future.cancelled():
                self.workers.refresh()  # raises SchedulerLost if that is the reason
                raise DamagedResult("the scheduler has forgotten the task")
            try:
                return running.future.result(timeout=seconds)
            except TimeoutError:
                self.workers.refresh()
                if running.member.address not in self.workers.members or running.future.status == "error":
                    raise DamagedResult("the worker left before its result had arrived") from None
                seconds *= 2

    def _refused(self, running: _Running, reason: str) -> None:
        """Runs the task elsewhere. It is no failure of the task."""
        self.workers.refuse(running.member.address, reason)
        self._drop(running)
        if not self._is_running(running.item):
            self.queue.appendleft(running.item)

    def _failed(self, running: _Running, reason: str) -> None:
        item, address = running.item, running.member.address
        self._drop(running)
        if item.index in self.done:
            return
        self.failures.setdefault(item.index, []).append((address, reason))
        self.workers.failed(address, reason)
        self.progress.retries += 1
        self.progress.note(f"{item.label} failed on {address}: {printable(reason)}")
        if not self._is_running(item):
            self._again(item)

    def _again(self, item: Item) -> None:
        failures = self.failures[item.index]
        if len(failures) > self.options.retries:
            reasons = "; ".join(f"on {address}: {printable(reason)}" for address, reason in failures)
            raise ShardFailed(f"{item.label} failed {len(failures)} times: {reasons}")
        self.queue.appendleft(item)

    def _is_running(self, item: Item) -> bool:
        return any(running.item.index == item.index for running in self.running)

    def _drop(self, running: _Running) -> None:
        """Cancels an attempt. Its worker stops the program when it hears of it, and gets no task before."""
        if not running.future.done():
            running.future.cancel()
            self.workers.check_again(running.member.address)
        self._forget(running)

    def _forget(self, running: _Running) -> None:
        if running in self.running:
            self.running.remove(running)
            running.member.running -= 1
