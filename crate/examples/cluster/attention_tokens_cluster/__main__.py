"""The command line: ``python -m attention_tokens_cluster count MODEL PROMPTS OUT --local 4``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster, TimeoutError

from .attempts import SHARED
from .concordance import concordance
from .count import count
from .errors import ClusterError
from .patch import SWEEPS, patch
from .run import Summary
from .schedule import Options
from .version import __version__


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    top = argparse.ArgumentParser(prog="attention_tokens_cluster", description="attention-tokens on many machines, with Dask")
    top.add_argument("--version", action="version", version=__version__)
    jobs = top.add_subparsers(dest="job", required=True)
    job = jobs.add_parser("count", help="count the attention tokens of every head over a file of prompts")
    job.add_argument("model", help="a name (gpt2-small) or a folder, the same on every machine")
    job.add_argument("prompts", type=Path, help="text in UTF-8, one prompt a line")
    job.add_argument("out", type=Path, help="folder for the results; the same command goes on where it ended")
    job.add_argument("--tokens", type=int, default=30, help="truncate prompts to this many tokens (%(default)s)")
    job.add_argument("--reading", default="notebook", help="how cells are read as tokens (%(default)s)")
    job.add_argument("--shard-prompts", type=int, default=500, help="prompts in a shard (%(default)s)")
    job.add_argument("--batch-tokens", type=int, default=1024, help="tokens in a batch, which bounds memory (%(default)s)")
    job.add_argument("--save-every", type=float, default=10.0, help="seconds between states of a shard (%(default)s)")
    job.add_argument("--fan-in", type=int, default=8, help="results in a merge (%(default)s)")
    common(job)
    job = jobs.add_parser("concordance", help="write a concordance for each of many files of prompts")
    job.add_argument("model", help="a name (gpt2-small) or a folder, the same on every machine")
    job.add_argument("out", type=Path, help="folder for the pages; the same command goes on where it ended")
    job.add_argument("prompts", type=Path, nargs="+", help="text in UTF-8, one prompt a line; each file is a task")
    job.add_argument("--reading", default="matched, without b_U", help="how cells are read as words (%(default)s)")
    job.add_argument("--words", type=int, default=200, help="words of a head (%(default)s)")
    job.add_argument("--contexts", type=int, default=5, help="contexts of a word (%(default)s)")
    job.add_argument("--tokens", type=int, default=30, help="truncate prompts to this many tokens (%(default)s)")
    job.add_argument("--first-key", action="store_true", help="count pairs whose key is the first token too")
    common(job)
    job = jobs.add_parser("patch", help="run a patching sweep over a file of prompt pairs")
    job.add_argument("model", help="a name (gpt2-small) or a folder, the same on every machine")
    job.add_argument("pairs", type=Path, help="lines of clean, corrupted, answer and other answer, between tabs")
    job.add_argument("out", type=Path, help="folder for the results; the same command goes on where it ended")
    job.add_argument("--sweep", choices=SWEEPS, default=SWEEPS[0], help="the activation that is patched (%(default)s)")
    job.add_argument("--shard-pairs", type=int, default=50, help="pairs in a shard (%(default)s)")
    job.add_argument("--fan-in", type=int, default=8, help="results in a merge (%(default)s)")
    common(job)
    return top


def common(job: argparse.ArgumentParser) -> None:
    """The arguments of every job: the cluster, and how it is used."""
    where = job.add_mutually_exclusive_group(required=True)
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running scheduler: tcp://HOST:8786, tls://HOST:8786")
    where.add_argument("--local", type=int, metavar="N", help="N worker processes on this machine")
    job.add_argument("--programs", metavar="FOLDER", help="folder of the programs, on machines without ATTENTION_TOKENS_PROGRAMS")
    job.add_argument("--shared", type=Path, metavar="FOLDER", help=f"folder that workers share as {SHARED}")
    job.add_argument("--threads", type=int, metavar="N", help="threads of a program (RAYON_NUM_THREADS of the worker, or 1)")
    job.add_argument("--retries", type=int, default=3, help="how often a failed shard is run again (%(default)s)")
    job.add_argument("--no-duplicates", action="store_true", help="never start a slow shard a second time")
    job.add_argument("--allow-other-builds", action="store_true", help="accept other builds of the programs, of one version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a job and returns the exit status."""
    given = parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            print(_summary(_run(given, _client(given, stack))))
    except (ClusterError, OSError) as error:
        print(f"{given.job}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{given.job}: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _client(given: argparse.Namespace, stack: ExitStack) -> Client:
    """A client of the scheduler, or of worker processes on this machine, which share a folder beside OUT."""
    if given.scheduler is None:
        given.shared = given.shared or given.out.absolute().with_name(f"{given.out.name}.work")
        given.shared.mkdir(parents=True, exist_ok=True)
        os.environ[SHARED] = str(given.shared)
        cluster = stack.enter_context(
            LocalCluster(n_workers=given.local, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL)
        )
        client = stack.enter_context(Client(cluster))
    else:
        try:
            client = stack.enter_context(Client(given.scheduler))
        except (OSError, TimeoutError, ValueError) as error:
            raise ClusterError(f"no scheduler at {given.scheduler} ({error}); start one with `dask scheduler`") from error
    print(f"dashboard: {client.dashboard_link}", file=sys.stderr)
    return client


def _run(given: argparse.Namespace, client: Client) -> Summary:
    cluster: dict[str, Any] = {
        "programs": given.programs,
        "shared": given.shared,
        "threads": given.threads,
        "other_builds": given.allow_other_builds,
        "options": Options(retries=given.retries, duplicates=not given.no_duplicates),
    }

    def named(*names: str) -> dict[str, Any]:
        return {name: getattr(given, name) for name in names}

    if given.job == "count":
        options = named("tokens", "reading", "shard_prompts", "batch_tokens", "save_every", "fan_in")
        return count(client, given.model, given.prompts, given.out, **options, **cluster)
    if given.job == "patch":
        options = named("sweep", "shard_pairs", "fan_in")
        return patch(client, given.model, given.pairs, given.out, **options, **cluster)
    options = named("reading", "words", "contexts", "tokens", "first_key")
    return concordance(client, given.model, given.prompts, given.out, **options, **cluster)


def _summary(summary: Summary) -> str:
    parts = [f"{summary.shards} finished, {summary.earlier} of them earlier"]
    parts.append(f"{summary.attempts} attempts, {summary.failed} failed, {summary.duplicates} started twice")
    if summary.prompts_per_second:
        parts.append(f"{summary.prompts_per_second:.2f} prompts a second")
    if summary.refused:
        parts.append(f"{len(summary.refused)} workers refused")
    return "; ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
