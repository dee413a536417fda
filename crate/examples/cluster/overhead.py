"""Measures what a cluster costs: one process with two threads, two processes of one thread, and two workers of one thread.

    python crate/examples/cluster/overhead.py PROGRAMS MODEL PROMPTS [--rounds 3] [--shard-prompts 500] [--tokens 30]

PROGRAMS is the folder of the compiled programs (target/release/examples). The three run in turns, and the medians are compared.
The two processes share the file by ``--shard`` and are merged, which is what one would do by hand; the difference to the workers
is Dask, loading the model for each shard, and sending results. The counts of all three are compared byte by byte.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median


def run(commands: Sequence[Sequence[str | Path]], threads: int) -> None:
    """Runs commands at the same time."""
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in started:
        _, errors = process.communicate()
        if process.returncode:
            sys.exit(f"{process.args!r}: {errors}")


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shard-prompts", default="500")
    parser.add_argument("--tokens", default="30")
    given = parser.parse_args()
    options = ["--tokens", given.tokens]
    vocabulary = given.programs.absolute() / "vocabulary"
    cluster_options = ["--local", "2", "--threads", "1", "--programs", given.programs, "--shard-prompts", given.shard_prompts]

    def one_process(folder: Path) -> Path:
        run([[vocabulary, given.model, given.prompts, folder / "one", *options]], 2)
        return folder / "one.csv"

    def two_processes(folder: Path) -> Path:
        shards = [folder / "shard-0", folder / "shard-1"]
        run([[vocabulary, given.model, given.prompts, shard, "--shard", f"{i}/2", *options] for i, shard in enumerate(shards)], 1)
        run([[vocabulary, given.model, "--merge", folder / "two", *shards]], 2)
        return folder / "two.csv"

    def two_workers(folder: Path) -> Path:
        command = [sys.executable, "-m", "attention_tokens_cluster", "count", given.model, given.prompts, folder / "cluster"]
        run([[*command, *options, *cluster_options]], 1)
        return folder / "cluster" / "counts.csv"

    seconds: dict[str, list[float]] = {}
    results: set[bytes] = set()
    for round_ in range(given.rounds):
        for measured in (one_process, two_processes, two_workers):
            with tempfile.TemporaryDirectory() as folder:
                started = time.monotonic()
                counts = measured(Path(folder))
                seconds.setdefault(measured.__name__.replace("_", " "), []).append(time.monotonic() - started)
                results.add(counts.read_bytes())
        print(f"round {round_ + 1} of {given.rounds}", file=sys.stderr)
    if len(results) != 1:
        sys.exit("the three have different counts")
    first = median(next(iter(seconds.values())))
    for name, all_seconds in seconds.items():
        rounds = ", ".join(f"{duration:.1f}" for duration in all_seconds)
        print(f"{name:14} {median(all_seconds):8.1f} s  {median(all_seconds) / first:5.2f} of one process  ({rounds})")


if __name__ == "__main__":
    main()
