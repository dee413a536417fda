"""The output folder of a run: what is finished, with digests, so that the same command goes on where an earlier one ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import locket

from .errors import ClusterError, DamagedResult, OtherRun
from .programs import digest_of_file
from .shards import Item

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")
_RECORD = "record.json"


def is_file_name(name: str) -> bool:
    """Whether a name is a plain name of a file: no path, and not the store's own record."""
    return _NAME.fullmatch(name) is not None and name != _RECORD


@dataclass(frozen=True)
class Record:
    """What is known of a finished task. It is written last, so a task with a record is complete."""

    key: str
    """The SHA-256 of its input."""
    digests: dict[str, str]
    """The SHA-256 of each file of its result."""
    units: int
    """Its prompts."""
    seconds: float
    """The time that the attempt took."""
    worker: str
    """The worker that computed it."""
    tries: int
    """The number of attempts until then, this one included."""
    resumed: int
    """The prompts that the attempt took from the saved state of an earlier one."""

    def digest(self) -> str:
        """One digest of all files."""
        return hashlib.sha256(json.dumps(self.digests, sort_keys=True).encode()).hexdigest()


class Store:
    """The folder of a run. One client at a time: a lock is held until ``close``."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        """Opens or makes the folder. Raises OtherRun if it is of a run with other settings, or in use."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        # A lock of the operating system: it ends with the process.
        self._lock = locket.lock_file(str(folder / "run.lock"), timeout=0)
        try:
            self._lock.acquire()
        except locket.LockError:
            raise OtherRun(f"another client is writing {folder}; wait for its end, or choose another folder") from None
        try:
            self.run_id = self._check(dict(settings))
            for half_written in folder.glob("*/.new-*"):
                shutil.rmtree(half_written, ignore_errors=True)
        except BaseException:
            self.close()
            raise

    def _check(self, settings: dict[str, Any]) -> str:
        path = self.folder / "run.json"
        if not path.exists():
            others = [entry.name for entry in self.folder.iterdir() if entry.name != "run.lock"]
            if others:
                raise OtherRun(f"{self.folder} has other files ({', '.join(sorted(others)[:3])}); choose another folder")
            run_id = uuid.uuid4().hex
            write_file(path, json.dumps({"run": run_id, **settings}, indent=1).encode())
            return run_id
        try:
            found = json.loads(path.read_bytes())
            run_id = found.pop("run")
        except (ValueError, KeyError, AttributeError):
            raise OtherRun(f"{path} is no file of a run; choose another folder") from None
        names = [name for name in {**settings, **found} if settings.get(name) != found.get(name)]
        if names:
            parts = [f"{name} was {found.get(name)!r}, and is {settings.get(name)!r} now" for name in names]
            raise OtherRun(f"{self.folder} is of another run: {'; '.join(parts)}; choose another folder, or remove it")
        return run_id

    def close(self) -> None:
        """Releases the lock."""
        self._lock.release()

    def place(self, stage: str, item: Item) -> Path:
        """The folder of a task's result."""
        return self.folder / stage / f"{item.index:05}"

    def finished(self, stage: str, item: Item) -> Record | None:
        """The record of a finished task, if its input is the same and its files are undamaged."""
        place = self.place(stage, item)
        try:
            record = Record(**json.loads((place / _RECORD).read_bytes()))
            names = all(is_file_name(name) for name in record.digests)
            whole = names and all(digest_of_file(place / name) == sha for name, sha in record.digests.items())
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return record if whole and record.key == item.key else None

    def put(self, stage: str, item: Item, files: Mapping[str, bytes | Path], record: Record) -> None:
        """Stores the result of a task: a folder with all of its files and its record appears at once.

        Raises DamagedResult if a file is not the one that the record has the digest of.
        """
        if set(files) != set(record.digests) or not all(is_file_name(name) for name in files):
            raise DamagedResult(f"{item.label}: a result of the files {sorted(files)}, expected {sorted(record.digests)}")
        (self.folder / stage).mkdir(exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self.folder / stage))
        try:
            for name, content in files.items():
                if isinstance(content, Path):
                    shutil.copyfile(content, new / name)
                else:
                    (new / name).write_bytes(content)
                found = digest_of_file(new / name)
                if found != record.digests[name]:
                    raise DamagedResult(
                        f"{item.label}: {name} arrived with the SHA-256 {found}, and left as {record.digests[name]}"
                    )
            write_file(new / _RECORD, json.dumps(asdict(record)).encode())
            place = self.place(stage, item)
            if place.exists():
                shutil.rmtree(place)
            os.replace(new, place)
        except OSError as error:
            raise ClusterError(f"{item.label} cannot be stored in {self.folder}: {error}") from error
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def keep_first(self, stage: str, n: int) -> None:
        """Removes results of a file that had more shards, so that the folders of a stage are one result."""
        for place in (self.folder / stage).glob("[0-9]*"):
            if place.name.isdecimal() and int(place.name) >= n:
                shutil.rmtree(place)

    def remove(self, stage: str) -> None:
        """Removes the results of a stage."""
        shutil.rmtree(self.folder / stage, ignore_errors=True)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file at once: a reader sees the former one or the whole new one."""
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
