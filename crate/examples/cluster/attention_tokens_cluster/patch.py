"""Patching sweeps over a file of prompt pairs: the program ``patching`` on many machines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from .attempts import Files, Inputs, Place
from .count import resolved
from .errors import DamagedResult
from .programs import Requirement
from .run import Cluster, Summary, run_shards
from .schedule import Options
from .shards import Shard, split_lines
from .store import Store

TABLE = "patching.csv"
SWEEPS = ("head_out", "resid_pre", "attn_out", "mlp_out")


@dataclass(frozen=True)
class PatchShard:
    """Patches the pairs of a shard."""

    model: str
    sweep: str

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        assert isinstance(inputs, bytes)
        (place.folder / "pairs.tsv").write_bytes(inputs)
        place.call("patching", self.model, "pairs.tsv", TABLE, "--sweep", self.sweep)
        return [TABLE]


@dataclass(frozen=True)
class MergeTables:
    """Puts tables below each other; pairs are numbered on."""

    needs: tuple[str, ...] = (TABLE,)

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        with open(place.folder / TABLE, "wb") as merged:
            first = 0
            for index, files in enumerate(inputs):
                assert isinstance(files, dict)
                content = files[TABLE]
                lines = (content if isinstance(content, bytes) else content.read_bytes()).splitlines(keepends=True)
                merged.writelines(lines[:1] if index == 0 else [])
                pair = -1
                for pair, rest in _rows(lines[1:]):
                    merged.write(b"%d,%s" % (first + pair, rest))
                first += pair + 1
        return [TABLE]


def _rows(lines: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    for line in lines:
        pair, _, rest = line.partition(b",")
        yield int(pair), rest


def verify(shard: Shard, files: Files) -> None:
    """Raises DamagedResult unless the table has every pair of the shard."""
    content = files.get(TABLE, b"")
    lines = (content if isinstance(content, bytes) else content.read_bytes()).splitlines()
    try:
        pairs = {pair for pair, _ in _rows(lines[1:])}
    except ValueError as error:
        raise DamagedResult(f"{shard.label}: a table without numbers of pairs: {error}") from error
    if pairs != set(range(shard.units)):
        raise DamagedResult(f"{shard.label}: a table of {len(pairs)} pairs, expected {shard.units}")


def patch(
    client: Client,
    model: str,
    pairs: Path,
    out: Path,
    *,
    sweep: str = "head_out",
    shard_pairs: int = 50,
    programs: str | None = None,
    shared: Path | None = None,
    threads: int | None = None,
    other_builds: bool = False,
    fan_in: int = 8,
    options: Options = Options(),
) -> Summary:
    """Patches activations of every pair of a file: clean, corrupted, answer and other answer between tabs.

    ``out`` gets ``patching.csv``, which is that of one process, and each shard's in ``out/shards``.

    Raises ClusterError; its message says what to do.
    """
    model = resolved(model)
    requirement = Requirement(model, ("patching",), (), programs)
    settings = requirement.settings(other_builds) | {"job": "patch", "sweep": sweep, "shard_pairs": shard_pairs}
    with closing(Store(out, settings)) as store:
        return run_shards(
            Cluster(client, requirement, shared, threads, other_builds, options),
            split_lines(pairs, shard_pairs),
            PatchShard(model, sweep),
            MergeTables(),
            store,
            verb="patch",
            verify=verify,
            fan_in=fan_in,
        )
