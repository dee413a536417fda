"""The programs of attention-tokens on a machine: where they are, what they are, and how they are run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .errors import ProgramFailed, ProgramMissing, RefusedWorker, Stopped, printable

FOLDER = "ATTENTION_TOKENS_PROGRAMS"
"""The environment variable with the folder of the programs on a machine."""

THREADS = "RAYON_NUM_THREADS"
"""The environment variable with the number of threads of a program."""

_SUPERVISE = str(Path(__file__).with_name("supervise.py"))
_POLL_SECONDS = 0.1
_SUFFIX = ".exe" if os.name == "nt" else ""


def find(name: str, folder: str | None = None) -> Path:
    """The path of a program: in the folder of the environment variable, else in ``folder``, else on the PATH.

    Raises ProgramMissing, naming where it was looked for.
    """
    build = f"build it with `cargo build --release --features full --example {name}`"
    folders = [chosen for chosen in (os.environ.get(FOLDER), folder) if chosen]
    if folders:
        path = Path(folders[0]).absolute() / f"{name}{_SUFFIX}"
        if path.is_file() and os.access(path, os.X_OK):
            return path
        remedy = f"{build}, and set {FOLDER} to the folder that has it (target/release/examples)"
        raise ProgramMissing(f"no program {name} in {folders[0]}; {remedy}")
    found = shutil.which(name)
    if found is None:
        raise ProgramMissing(
            f"no program {name} on the PATH, and {FOLDER} is not set; {build}, and set {FOLDER} to the folder that has it"
        )
    return Path(found).absolute()


def run(
    program: Path,
    arguments: Sequence[str],
    *,
    folder: Path | None = None,
    threads: int | None = None,
    wanted: Callable[[], bool] = lambda: True,
) -> str:
    """Runs a program, without a shell, and returns its standard output.

    ``threads`` is its number of threads; without it the environment's ``RAYON_NUM_THREADS``, or one. The program is killed as
    soon as ``wanted`` is false, and when this process ends in whatever way.

    Raises Stopped, or ProgramFailed with the last lines of its standard error.
    """
    environment = dict(os.environ)
    environment[THREADS] = str(threads) if threads else environment.get(THREADS, "1")
    command = [sys.executable, "-I", "-S", _SUPERVISE, str(program), *arguments]
    # Not stdin=PIPE, which `communicate` closes at once.
    its_end, our_end = os.pipe()
    try:
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=its_end,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as started:
            os.close(its_end)
            its_end = -1
            pipe, our_end = our_end, -1
            output, errors = _output(started, pipe, program.name, wanted)
    finally:
        for end in (its_end, our_end):
            if end >= 0:
                os.close(end)
    if started.returncode == 0:
        return output
    last = "\n".join(errors.strip().splitlines()[-3:])
    raise ProgramFailed(f"{program.name} failed (exit status {started.returncode}): {printable(last)}")


def _output(started: subprocess.Popen[str], pipe: int, name: str, wanted: Callable[[], bool]) -> tuple[str, str]:
    """Waits for a supervised program while it is wanted, and closes the pipe that keeps it alive."""
    try:
        while True:
            try:
                return started.communicate(timeout=_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if not wanted():
                    raise Stopped(f"{name} was stopped: its result is not wanted any more") from None
    finally:
        # Before `Popen.__exit__`, which waits for the program.
        os.close(pipe)


@dataclass(frozen=True)
class Requirement:
    """The programs and the model that a run needs on every machine."""

    model: str
    """What the programs take as MODEL: a name or a folder, the same on every machine."""
    programs: tuple[str, ...]
    """The names of the programs. ``vocabulary`` tells the model's identity."""
    options: tuple[str, ...] = ()
    """Options of ``vocabulary MODEL --identity``: ``--tokens``, ``--reading``."""
    folder: str | None = None
    """The client's folder of programs, for machines that have none of their own."""

    def identity(self) -> dict[str, str]:
        """What this machine has: the digest of each program, and what ``vocabulary --identity`` prints."""
        paths = [find(name, self.folder) for name in dict.fromkeys(("vocabulary", *self.programs))]
        stats = tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
        return dict(_identity(self, stats))

    def settings(self, other_builds: bool) -> dict[str, str]:
        """The identity as settings of an output folder. Other builds may go on in it if they may be on workers."""
        return {name: value for name, value in self.identity().items() if not (other_builds and name.startswith("build of "))}

    def check(self, expected: dict[str, str], other_builds: bool) -> None:
        """Raises RefusedWorker if this machine has another identity; it names what is different on both sides."""
        found = self.identity()
        names = [name for name in {**expected, **found} if not (other_builds and name.startswith("build of "))]
        differing = [name for name in names if expected.get(name) != found.get(name)]
        if differing:
            parts = [f"{name} is {found.get(name)} there, and {expected.get(name)} at the client" for name in differing]
            remedy = f"give it the client's programs ({FOLDER}) and the client's model ({self.model})"
            if all(name.startswith("build of ") for name in differing):
                remedy += ", or allow other builds of this version (--allow-other-builds)"
            raise RefusedWorker(f"{'; '.join(parts)}; {remedy}")


@lru_cache(maxsize=16)
def _identity(requirement: Requirement, stats: tuple[tuple[str, int, int], ...]) -> tuple[tuple[str, str], ...]:
    """Once for each process and state of the program files, because a model takes seconds to load."""
    builds = [(f"build of {Path(path).stem}", digest_of_file(Path(path))) for path, _, _ in stats]
    printed = run(Path(stats[0][0]), [requirement.model, "--identity", *requirement.options])
    try:
        facts = json.loads(printed)
        return (*((str(name), str(value)) for name, value in facts.items()), *builds)
    except (ValueError, AttributeError):
        raise ProgramFailed(f"{stats[0][0]} --identity printed no JSON: {printable(printed[:200])!r}") from None


def digest_of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
