"""One attempt at a task, on a worker."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distributed import Worker, get_worker

from .errors import DamagedResult, RefusedWorker, Stopped
from .programs import Requirement, digest_of_file, find, run
from .store import is_file_name
from .version import __version__

SHARED = "ATTENTION_TOKENS_SHARED"
"""The environment variable with the folder that a worker shares with the client."""

_PLAIN = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class Reference:
    """Files of a finished task in the shared folder."""

    stage: str
    index: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Order:
    """What a worker gets: one attempt at a task."""

    run_id: str
    stage: str
    index: int
    attempt: str
    requirement: Requirement
    expected: dict[str, str]
    """The client's identity."""
    other_builds: bool
    threads: int | None
    version: str = __version__
    """The client's version of this package."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt gives back."""

    digests: dict[str, str]
    """The SHA-256 of each file."""
    contents: dict[str, bytes] | None
    """The files; None if they are in the attempt's shared folder."""
    seconds: float
    resumed: int
    """Prompts from the saved state of an earlier attempt."""
    host: str


@dataclass
class Place:
    """Where an attempt works: its own folder, which is empty at first, and the programs of the machine."""

    folder: Path
    requirement: Requirement
    threads: int | None
    wanted: Callable[[], bool]
    earlier: list[Path] = field(default_factory=list)
    """The folders of earlier attempts at the same task, newest first. Empty where storage is not shared."""
    resumed: int = 0
    """To be set by the task: prompts that it took from an earlier attempt."""

    def call(self, program: str, *arguments: str) -> str:
        """Runs a program in the folder and returns its standard output. Raises ProgramFailed or Stopped."""
        path = find(program, self.requirement.folder)
        return run(path, arguments, folder=self.folder, threads=self.threads, wanted=self.wanted)


Files = Mapping[str, "bytes | Path"]
"""Files by their names: their bytes, or where they are."""

Inputs = bytes | Sequence[Reference] | Sequence[Files]
"""The text of a shard; or results to be merged, from the shared folder or as bytes."""

Function = Callable[[Inputs, Place], Sequence[str]]
"""The work itself: makes files in its place and returns their names."""


def check(order: Order) -> bool:
    """Whether this worker shares storage with the client. Raises RefusedWorker if it is not fit for the run."""
    if order.version != __version__:
        raise RefusedWorker(
            f"attention-tokens-cluster is {__version__} there, and {order.version} at the client; install the same version"
        )
    order.requirement.check(order.expected, order.other_builds)
    return _shared(order) is not None


def attempt(order: Order, function: Function, inputs: Inputs) -> Outcome:
    """Runs a function in a folder of its own and returns the files that it made."""
    started = time.monotonic()
    check(order)
    shared = _shared(order)
    if shared is None:
        folder = Path(tempfile.mkdtemp(prefix="attention-tokens-", dir=get_worker().local_directory))
        earlier: list[Path] = []
    else:
        task = shared / _plain(order.stage) / str(int(order.index))
        folder = task / _plain(order.attempt)
        folder.mkdir(parents=True)
        others = [path for path in task.iterdir() if path != folder]
        earlier = sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    place = Place(folder, order.requirement, order.threads, _wanted(), earlier)
    keep = shared is not None
    try:
        names = function(_with_paths(inputs, shared), place)
        digests = {name: digest_of_file(folder / name) for name in names}
        contents = None if keep else {name: (folder / name).read_bytes() for name in names}
        return Outcome(digests, contents, time.monotonic() - started, place.resumed, socket.gethostname())
    except Stopped:
        raise  # another attempt may go on from its state
    except BaseException:
        keep = False
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def outcome_files(order: Order, outcome: Outcome, shared: Path | None) -> Files:
    """The files of an outcome, at the client. Raises DamagedResult for bytes that are not what left the worker."""
    if outcome.contents is not None:
        for name, content in outcome.contents.items():
            if hashlib.sha256(content).hexdigest() != outcome.digests.get(name):
                raise DamagedResult(f"{name} is not what the worker sent: its SHA-256 differs")
        return dict(outcome.contents)
    if shared is None:
        raise DamagedResult("the result is in a shared folder, and the client has none")
    if not all(is_file_name(name) for name in outcome.digests):
        raise DamagedResult(f"a result with the names {sorted(outcome.digests)}")
    return {name: shared / order.stage / str(order.index) / order.attempt / name for name in outcome.digests}


def run_folder(root: Path, run_id: str) -> Path:
    """The folder of a run in a shared folder."""
    return root / f"attention-tokens-{_plain(run_id)}"


def _shared(order: Order) -> Path | None:
    """The folder of this run, if the client has made it in the folder that this worker shares."""
    root = os.environ.get(SHARED)
    folder = run_folder(Path(root), order.run_id) if root else None
    return folder if folder is not None and folder.is_dir() else None


def _with_paths(inputs: Inputs, shared: Path | None) -> Inputs:
    """References as the paths of their files."""
    if isinstance(inputs, bytes) or not all(isinstance(given, Reference) for given in inputs):
        return inputs
    if shared is None:
        raise RefusedWorker("its shared folder has gone while it was used")
    return [
        {_file(name): input_folder(shared, given.stage, given.index) / _file(name) for name in given.names}
        for given in inputs
        if isinstance(given, Reference)
    ]


def input_folder(run: Path, stage: str, index: int) -> Path:
    """Where the client puts a finished task's files into the shared folder of a run."""
    return run / "inputs" / _plain(stage) / str(int(index))


def _plain(name: str) -> str:
    """A name from the network as a part of a path: letters, digits and hyphens alone."""
    if not _PLAIN.fullmatch(name):
        raise RefusedWorker(f"expected a name of letters, digits and hyphens, found {name!r}")
    return name


def _file(name: str) -> str:
    """A name from the network as the name of a file."""
    if not is_file_name(name):
        raise RefusedWorker(f"expected the name of a file, found {name!r}")
    return name


def _wanted() -> Callable[[], bool]:
    """Whether the scheduler still wants the task that runs in this thread."""
    worker: Worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return task is not None and task.state in ("executing", "long-running", "resumed")

    return wanted
