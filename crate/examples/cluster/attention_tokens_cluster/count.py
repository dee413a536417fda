"""Counting the attention tokens of every head over a file of prompts: the program ``vocabulary`` on many machines."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from .attempts import Files, Inputs, Place
from .errors import DamagedResult, ProgramFailed, RefusedWorker
from .programs import Requirement
from .run import Cluster, Summary, run_shards
from .schedule import Options
from .shards import Shard, split_lines
from .store import Store

COUNTS, CSV, PARQUET = "counts", "counts.csv", "counts.parquet"


@dataclass(frozen=True)
class CountShard:
    """Counts a shard, from the newest state of an earlier attempt where there is one."""

    model: str
    tokens: int
    reading: str
    batch_tokens: int = 1024
    save_every: float = 10.0

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        assert isinstance(inputs, bytes)
        (place.folder / "prompts.txt").write_bytes(inputs)
        options = ["--tokens", str(self.tokens), "--batch-tokens", str(self.batch_tokens)]
        options += ["--save-every", str(self.save_every), "--reading", self.reading]
        arguments = [self.model, "prompts.txt", COUNTS, *options]
        state = next((path for folder in place.earlier if (path := folder / COUNTS).is_file()), None)
        if state is not None:
            # A copy: the earlier attempt may still be running, and its program holds a lock.
            shutil.copyfile(state, place.folder / COUNTS)
            try:
                place.resumed = int(header(place.folder / COUNTS)["n_prompts"])
                place.call("vocabulary", *arguments)
                return _made(place)
            except (ProgramFailed, DamagedResult, KeyError, ValueError):
                # The program refuses a damaged state. Without one it counts from the start.
                (place.folder / COUNTS).unlink(missing_ok=True)
                place.resumed = 0
        place.call("vocabulary", *arguments)
        return _made(place)


@dataclass(frozen=True)
class MergeCounts:
    """Adds up counts."""

    model: str
    reading: str
    needs: tuple[str, ...] = (COUNTS,)

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        paths = []
        for index, files in enumerate(inputs):
            assert isinstance(files, dict)
            content = files[COUNTS]
            if isinstance(content, bytes):
                path = place.folder / f"input-{index}"
                path.write_bytes(content)
                content = path
            paths.append(str(content))
        place.call("vocabulary", self.model, "--merge", COUNTS, *paths, "--reading", self.reading)
        return [*_made(place), CSV]


def _made(place: Place) -> list[str]:
    """The counts, and as Parquet if the program was built with that feature."""
    return [name for name in (COUNTS, PARQUET) if (place.folder / name).exists()]


def header(counts: Path | bytes) -> dict[str, str]:
    """The metadata of a file of counts. Raises DamagedResult if it has none."""
    content = counts if isinstance(counts, bytes) else counts.read_bytes()
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        return {str(name): str(value) for name, value in metadata.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedResult(f"the counts are no safetensors file with metadata: {error}") from error


@dataclass(frozen=True)
class VerifyCounts:
    """Compares the metadata of counts with the shard and the model, at the client."""

    fingerprint: str
    reading: str

    def __call__(self, shard: Shard, files: Files) -> None:
        if COUNTS not in files:
            raise DamagedResult(f"{shard.label}: a result without counts")
        found = header(files[COUNTS])
        fingerprint = f"{int(found.get('fingerprint', '0')):016x}"
        if (fingerprint, found.get("reading")) != (self.fingerprint, self.reading):
            raise RefusedWorker(
                f"it counted {shard.label} with the model {fingerprint} and the reading {found.get('reading')}, expected the "
                f"model {self.fingerprint} and the reading {self.reading}"
            )
        if (found.get("prompts_digest"), found.get("offset")) != (shard.key, str(shard.end - shard.start)):
            raise DamagedResult(f"{shard.label}: the counts are of other prompts, or of a part of them")


def count(
    client: Client,
    model: str,
    prompts: Path,
    out: Path,
    *,
    tokens: int = 30,
    reading: str = "notebook",
    shard_prompts: int = 500,
    batch_tokens: int = 1024,
    save_every: float = 10.0,
    programs: str | None = None,
    shared: Path | None = None,
    threads: int | None = None,
    other_builds: bool = False,
    fan_in: int = 8,
    options: Options = Options(),
) -> Summary:
    """Counts the tokens of every head over a file of prompts, one a line, on the workers of a Dask client.

    ``out`` gets ``counts``, ``counts.csv`` and ``counts.parquet``, which are those of one process, and for each shard the same
    files in ``out/shards``. The same call goes on where an earlier one ended. ``client`` may be of any cluster: LocalCluster,
    SLURMCluster of dask-jobqueue, KubeCluster of dask-kubernetes, or the address of a scheduler. See docs/cluster.md.

    Raises ClusterError; its message says what to do.
    """
    model = resolved(model)
    requirement = Requirement(model, ("vocabulary",), ("--tokens", str(tokens), "--reading", reading), programs)
    identity = requirement.identity()
    shards = split_lines(prompts, shard_prompts)
    with closing(Store(out, requirement.settings(other_builds) | {"job": "count", "shard_prompts": shard_prompts})) as store:
        return run_shards(
            Cluster(client, requirement, shared, threads, other_builds, options),
            shards,
            CountShard(model, tokens, identity["reading"], batch_tokens, save_every),
            MergeCounts(model, identity["reading"]),
            store,
            verb="count",
            verify=VerifyCounts(identity["fingerprint"], identity["reading"]),
            fan_in=fan_in,
        )


def resolved(model: str) -> str:
    """A model's folder as an absolute path, because programs run in folders of their own; a name as it is."""
    is_folder = (Path(model) / "config.json").is_file()
    return os.path.abspath(model) if is_folder else model
