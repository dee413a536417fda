"""Progress in a terminal: tasks, prompts a second, time left."""

from __future__ import annotations

import sys
import time

_LINE_SECONDS = 10.0


class Progress:
    """Prints a line that is written over in a terminal, and every ten seconds elsewhere."""

    def __init__(self, noun: str, total: int, units: int, finished: int = 0, finished_units: int = 0) -> None:
        """``finished`` tasks are from an earlier run; they do not count for the rate."""
        self.noun, self.total, self.units = noun, total, units
        self.done, self.done_units = finished, finished_units
        self.retries = self.duplicates = self.new_units = 0
        self.started: float | None = None
        self._printed = float("-inf")
        self._line = ""

    def finished(self, units: int) -> None:
        """Counts a task that has just been finished."""
        self.done += 1
        self.done_units += units
        self.new_units += units

    def rate(self) -> float:
        """Prompts a second since the first task was given to a worker; 0 before a task is finished."""
        return 0.0 if self.started is None else self.new_units / max(time.monotonic() - self.started, 1e-3)

    def line(self, running: int) -> str:
        """``3 of 64 shards, 4 running; 12.1 prompts a second; about 10 min left``."""
        parts = [f"{self.done} of {self.total} {self.noun}, {running} running"]
        if rate := self.rate():
            parts.append(f"{rate:.1f} prompts a second")
            parts.append(f"about {duration((self.units - self.done_units) / rate)} left")
        if self.retries:
            parts.append(f"{self.retries} failed attempts")
        if self.duplicates:
            parts.append(f"{self.duplicates} started twice")
        return "; ".join(parts)

    def show(self, running: int) -> None:
        """Prints the line, if it is time."""
        if self.started is None and running:
            self.started = time.monotonic()
        line = self.line(running)
        if sys.stderr.isatty():
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif line != self._line and time.monotonic() - self._printed > _LINE_SECONDS:
            print(line, file=sys.stderr, flush=True)
            self._printed, self._line = time.monotonic(), line

    def note(self, text: str) -> None:
        """Prints a sentence on a line of its own."""
        start = "\r\x1b[K" if sys.stderr.isatty() else ""
        print(f"{start}{text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leaves the last line in the terminal."""
        if sys.stderr.isatty():
            self.show(0)
            print(file=sys.stderr)


def duration(seconds: float) -> str:
    """A duration in seconds, minutes, hours or days."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.1f} days"
