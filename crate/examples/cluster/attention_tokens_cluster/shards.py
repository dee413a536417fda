"""Parts of a file of prompts that can be counted apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ClusterError


@dataclass(frozen=True)
class Item:
    """A task of a run: a shard, or a merge of results."""

    index: int
    """The number of the item, from 0."""
    label: str
    """``shard 3 of 64``: its name in progress, errors and Dask's dashboard."""
    key: str
    """A SHA-256 of its input, by which a stored result is recognized."""
    units: int = 0
    """The number of prompts, for progress."""


@dataclass(frozen=True)
class Shard(Item):
    """Consecutive lines of a file."""

    path: Path = field(default=Path())
    """The file."""
    start: int = 0
    """Its first byte."""
    end: int = 0
    """The byte after its last one."""

    def text(self) -> bytes:
        """The lines. Raises ClusterError if the file has changed since it was split."""
        with open(self.path, "rb") as file:
            file.seek(self.start)
            text = file.read(self.end - self.start)
        if hashlib.sha256(text).hexdigest() != self.key:
            raise ClusterError(f"{self.path} has changed while the run read it; start the run again")
        return text


def split_lines(path: Path, lines: int) -> list[Shard]:
    """The shards of a file: ``lines`` lines that are not empty in each, and the rest in the last one.

    The file is read once, line by line. Lines added at its end later change only the last shard.
    """
    if lines < 1:
        raise ClusterError(f"expected at least 1 line in a shard, found {lines}")
    parts = list(_parts(path, lines))
    return [
        Shard(index, f"shard {index + 1} of {len(parts)}", key, units, path, start, end)
        for index, (start, end, units, key) in enumerate(parts)
    ]


def _parts(path: Path, lines: int) -> Iterator[tuple[int, int, int, str]]:
    """First byte, byte after the last, number of lines that are not empty, and SHA-256 of each shard."""
    start = end = units = 0
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for line in file:
            if units == lines:
                yield start, end, units, digest.hexdigest()
                start, units, digest = end, 0, hashlib.sha256()
            digest.update(line)
            end += len(line)
            units += bool(line.strip(b"\r\n"))
    if units:
        yield start, end, units, digest.hexdigest()


def whole_files(paths: list[Path]) -> list[Shard]:
    """Each file as one shard."""
    shards = []
    for index, path in enumerate(paths):
        text = path.read_bytes()
        units = sum(bool(line.strip(b"\r")) for line in text.split(b"\n"))
        label = f"file {index + 1} of {len(paths)}"
        shards.append(Shard(index, label, hashlib.sha256(text).hexdigest(), units, path, 0, len(text)))
    return shards
