"""The workers of a cluster as the client sees them: which are fit for the run, and which have room."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from distributed import Client, Future, TimeoutError

from . import attempts
from .attempts import Order
from .errors import NoWorkers, RefusedWorker, SchedulerLost, printable
from .programs import Requirement

_FAILURES_IN_A_ROW = 3


@dataclass
class Member:
    """A worker."""

    address: str
    slots: int
    """Tasks that it runs at a time."""
    running: int = 0
    fit: bool = False
    """Whether it has passed the check."""
    shared: bool = False
    """Whether it shares storage with the client."""
    checking: Future | None = None
    refusal: str = ""
    failures: int = 0
    """Failures in a row. A worker that fails everything fast would use up the tries of every task."""

    @property
    def free(self) -> bool:
        return self.fit and self.running < self.slots


class Workers:
    """The workers of a client. Each is checked before its first task, also one that joins later."""

    def __init__(
        self,
        client: Client,
        requirement: Requirement,
        run_id: str,
        *,
        shared: Path | None = None,
        threads: int | None = None,
        other_builds: bool = False,
    ) -> None:
        """``shared`` is the folder that workers may share with the client, as the client sees it."""
        self.client = client
        self.scheduler: str = client.scheduler_info()["address"]
        self.shared = attempts.run_folder(shared, run_id) if shared is not None else None
        if self.shared is not None:
            self.shared.mkdir(parents=True, exist_ok=True)
        self.order = Order(run_id, "check", 0, "0", requirement, requirement.identity(), other_builds, threads)
        self.members: dict[str, Member] = {}
        self.refused: dict[str, str] = {}
        self._n_checks = 0

    def next_order(self, stage: str, index: int, attempt: str) -> Order:
        """An order for an attempt at a task."""
        return replace(self.order, stage=stage, index=index, attempt=attempt)

    def refresh(self) -> None:
        """Asks the scheduler for its workers, and starts and reads checks.

        Raises SchedulerLost.
        """
        try:
            present = self.client.nthreads()
        except (OSError, TimeoutError) as error:
            raise SchedulerLost(
                f"the scheduler {self.scheduler} does not answer ({error}); "
                "what is finished is stored, and the same command goes on"
            ) from error
        for address, slots in present.items():
            if address not in self.members and address not in self.refused:
                self.members[address] = Member(address, slots)
        self.members = {address: member for address, member in self.members.items() if address in present}
        for member in list(self.members.values()):
            self._check(member)

    def _check(self, member: Member) -> None:
        if member.fit:
            return
        if member.checking is None:
            self._n_checks += 1
            key = f"check-worker {member.address}, {self._n_checks}-{self.order.run_id[:8]}"
            member.checking = self.client.submit(
                attempts.check, self.order, key=key, workers=[member.address], pure=False, priority=1
            )
        elif member.checking.done():
            checked, member.checking = member.checking, None
            if checked.status == "finished":
                member.fit, member.shared = True, bool(checked.result(timeout=60)) and self.shared is not None
            elif checked.status == "error":
                self.refuse(member.address, _reason(checked.exception(timeout=60)))

    def check_again(self, address: str) -> None:
        """No task for a worker until it has answered once more: a task of it was cancelled, and may still run."""
        if member := self.members.get(address):
            member.fit = False

    def refuse(self, address: str, reason: str) -> None:
        """Gives a worker no more tasks, and prints why."""
        self.members.pop(address, None)
        if address not in self.refused:
            self.refused[address] = reason
            print(f"refused: worker {address}: {printable(reason)}", file=sys.stderr, flush=True)

    def failed(self, address: str, reason: str) -> None:
        """Counts a failure of a worker; one that only fails is refused, if there are others."""
        if member := self.members.get(address):
            member.failures += 1
            if member.failures >= _FAILURES_IN_A_ROW and any(other.fit for other in self.members.values() if other is not member):
                self.refuse(address, f"{member.failures} tasks in a row failed there, the last one with: {reason}")

    def with_room(self) -> Iterator[Member]:
        """The workers that can take a task, idle ones first."""
        yield from sorted((member for member in self.members.values() if member.free), key=lambda member: member.running)

    def require_some(self, waited: float, limit: float) -> None:
        """Raises NoWorkers if none can run a task: at once if all were refused, else after ``limit`` seconds."""
        if any(member.fit or member.checking for member in self.members.values()):
            return
        if self.refused:
            reasons = "; ".join(f"{address}: {reason}" for address, reason in sorted(self.refused.items()))
            raise RefusedWorker(f"every worker was refused: {printable(reasons)}")
        if waited > limit:
            raise NoWorkers(f"no worker has joined the scheduler for {limit:.0f} s; start some, then start this command again")


def _reason(error: BaseException | None) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error}; install attention-tokens-cluster in the Python environment of the worker"
    return str(error) if error is not None else "the check was cancelled"
