"""Runs shards on a cluster and merges their results in a tree."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distributed import Client

from .attempts import Files, Function, Inputs, Order, Outcome, Place, Reference, input_folder, outcome_files
from .errors import ClusterError
from .programs import Requirement
from .progress import Progress
from .schedule import Options, Schedule
from .shards import Item, Shard
from .store import Record, Store, write_file
from .workers import Member, Workers

_SHARDS, _MERGED = "shards", "merged"


class Merge(Protocol):
    """Makes one result of several, on a worker. The result can be merged again."""

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of the files of a result that it reads."""

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        """Makes the files of the merged result in ``place`` and returns their names."""


@dataclass(frozen=True)
class Cluster:
    """A Dask cluster, and how it is used."""

    client: Client
    requirement: Requirement
    """What every worker must have, exactly as the client."""
    shared: Path | None = None
    """A folder that workers share with the client: ``ATTENTION_TOKENS_SHARED`` on the workers. Without it, and on workers that
    do not have it, results are sent as bytes."""
    threads: int | None = None
    """Threads of each program; without it ``RAYON_NUM_THREADS`` on the worker, or one."""
    other_builds: bool = False
    """Whether workers may have other builds of the programs, of the same version."""
    options: Options = Options()


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    shards: int
    """All shards."""
    earlier: int
    """Those that an earlier run had finished."""
    attempts: int
    """The attempts at the others."""
    failed: int
    """Attempts that failed, on workers that died for instance."""
    duplicates: int
    """Slow shards that were started a second time."""
    prompts_per_second: float
    refused: dict[str, str]
    """The workers that were refused, with the reasons."""


def run_shards(
    cluster: Cluster,
    shards: Sequence[Shard],
    run: Function,
    merge: Merge | None,
    store: Store,
    *,
    verb: str = "run",
    noun: str = "shards",
    verify: Callable[[Shard, Files], None] = lambda shard, files: None,
    fan_in: int = 8,
) -> Summary:
    """Runs ``run`` for each shard that the store does not have, then merges all results.

    ``run`` gets the text of a shard and a place to work in, and returns the names of the files that it made. ``verify`` looks at
    them at the client before they are stored; it raises DamagedResult, after which the shard is run again, or RefusedWorker. With
    ``merge`` the results are merged in a tree of ``fan_in`` inputs a task, and the files of the last one are put into the
    store's folder. Both functions are sent to workers, so they belong to a module that workers can import.

    Raises ShardFailed, RefusedWorker, NoWorkers, SchedulerLost or ClusterError. What is finished is stored.
    """
    if fan_in < 2:
        raise ClusterError(f"expected a merge of at least 2 results, found {fan_in}")
    if not shards:
        raise ClusterError("there is nothing to run: the input is empty")
    requirement = cluster.requirement
    workers = Workers(
        cluster.client,
        requirement,
        store.run_id,
        shared=cluster.shared,
        threads=cluster.threads,
        other_builds=cluster.other_builds,
    )
    runner = _Runner(cluster, workers, store)
    store.keep_first(_SHARDS, len(shards))
    records = {shard.index: record for shard in shards if (record := store.finished(_SHARDS, shard))}
    earlier = len(records)
    total = sum(shard.units for shard in shards)
    progress = Progress(noun, len(shards), total, earlier, sum(record.units for record in records.values()))

    def text(item: Item, member: Member) -> bytes:
        assert isinstance(item, Shard)
        return item.text()

    def check(item: Item, files: Files) -> None:
        assert isinstance(item, Shard)
        verify(item, files)

    missing = [shard for shard in shards if shard.index not in records]
    schedule = runner.stage(_SHARDS, verb, missing, run, text, check, records, progress)
    progress.end()
    if merge is not None:
        _merge(runner, [(_SHARDS, shard, records[shard.index]) for shard in shards], merge, fan_in)
    if workers.shared is not None:
        shutil.rmtree(workers.shared, ignore_errors=True)
    return Summary(
        len(shards),
        earlier,
        schedule.n_attempts,
        progress.retries,
        progress.duplicates,
        progress.rate(),
        dict(workers.refused),
    )


class _Runner:
    """Runs stages and stores their results."""

    def __init__(self, cluster: Cluster, workers: Workers, store: Store) -> None:
        self.cluster, self.workers, self.store = cluster, workers, store

    def stage(
        self,
        stage: str,
        verb: str,
        items: Sequence[Item],
        function: Function,
        inputs: Callable[[Item, Member], Any],
        check: Callable[[Item, Files], None],
        records: dict[int, Record],
        progress: Progress,
    ) -> Schedule:
        """Runs the items of a stage and adds their records."""
        shared = self.workers.shared

        def accept(item: Item, order: Order, outcome: Outcome, address: str, tries: int) -> None:
            files = outcome_files(order, outcome, shared)
            check(item, files)
            worker = f"{outcome.host} {address}"
            record = Record(item.key, outcome.digests, item.units, outcome.seconds, worker, tries, outcome.resumed)
            self.store.put(stage, item, files, record)
            records[item.index] = record
            if shared is not None:
                shutil.rmtree(shared / stage / str(item.index), ignore_errors=True)

        schedule = Schedule(self.workers, stage, verb, function, inputs, accept, self.cluster.options, progress)
        schedule.run(items, [record.seconds for record in records.values()])
        return schedule

    def results(self, parts: Sequence[tuple[str, Item]], names: Sequence[str], member: Member) -> Any:
        """Stored results for a worker: by reference where storage is shared, else as bytes."""
        if not member.shared or self.workers.shared is None:
            places = [self.store.place(stage, item) for stage, item in parts]
            files = [{name: (place / name).read_bytes() for name in names} for place in places]
            return self.cluster.client.scatter(files, workers=[member.address], hash=False, timeout=60)
        for stage, item in parts:
            folder = input_folder(self.workers.shared, stage, item.index)
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                _link(self.store.place(stage, item) / name, folder / name)
        return [Reference(stage, item.index, tuple(names)) for stage, item in parts]


def _merge(runner: _Runner, results: list[tuple[str, Item, Record]], merge: Merge, fan_in: int) -> None:
    """Merges results level by level, and puts the files of the last one into the store's folder."""
    store = runner.store
    # A key for each result that depends on the shards alone, so that a finished merge is recognized without the levels before it.
    level, nodes = 0, [(stage, item, record.digest(), record.units) for stage, item, record in results]
    tree: list[tuple[str, list[Item], dict[int, list[tuple[str, Item]]]]] = []
    while level == 0 or len(nodes) > 1:
        level += 1
        groups = [nodes[start : start + fan_in] for start in range(0, len(nodes), fan_in)]
        stage = _MERGED if len(groups) == 1 else f"merge-{level}"
        items, parts = [], {}
        for index, group in enumerate(groups):
            key = hashlib.sha256(" ".join([store.run_id, *(digest for _, _, digest, _ in group)]).encode()).hexdigest()
            label = f"merge {index + 1} of {len(groups)}, level {level}"
            items.append(Item(index, label, key, sum(units for *_, units in group)))
            parts[index] = [(part_stage, item) for part_stage, item, _, _ in group]
        tree.append((stage, items, parts))
        nodes = [(stage, item, item.key, item.units) for item in items]
    stage, [last], _ = tree[-1]
    record = store.finished(stage, last)
    if record is None:
        for stage, items, parts in tree:
            records = {item.index: record for item in items if (record := store.finished(stage, item))}
            missing = [item for item in items if item.index not in records]
            progress = Progress("merges", len(items), 0, len(records))

            def inputs(item: Item, member: Member, parts: dict[int, list[tuple[str, Item]]] = parts) -> Any:
                return runner.results(parts[item.index], merge.needs, member)

            runner.stage(stage, "merge", missing, merge, inputs, lambda item, files: None, records, progress)
            progress.end()
        record = records[0]
    for name in record.digests:
        write_file(store.folder / name, (store.place(_MERGED, last) / name).read_bytes())
    for stage, _, _ in tree[:-1]:
        store.remove(stage)


def _link(source: Path, target: Path) -> None:
    """Puts a file into another folder: as a link where both are in one file system, else as a copy."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:
        write_file(target, source.read_bytes())
