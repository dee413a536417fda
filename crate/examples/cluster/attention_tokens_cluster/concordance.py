"""A concordance for each of many files of prompts: the program ``concordance`` on many machines.

A file is one task, and its pages are one result. A concordance of one file cannot be cut: it collects contexts for the most
frequent words of a head, and which these are is known only when every prompt was counted; and its pages, unlike counts, cannot
be added.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
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
from .shards import Shard, whole_files
from .store import Store, write_file

_PAGE = re.compile(r"index\.html|head-\d+-\d+\.html")


@dataclass(frozen=True)
class ConcordanceOfFile:
    """Writes the pages of a file."""

    model: str
    arguments: tuple[str, ...]

    def __call__(self, inputs: Inputs, place: Place) -> Sequence[str]:
        assert isinstance(inputs, bytes)
        (place.folder / "prompts.txt").write_bytes(inputs)
        place.call("concordance", self.model, ".", "prompts.txt", *self.arguments)
        return sorted(path.name for path in place.folder.iterdir() if _PAGE.fullmatch(path.name))


def verify(shard: Shard, files: Files) -> None:
    """Raises DamagedResult for anything but pages."""
    if "index.html" not in files or not all(_PAGE.fullmatch(name) for name in files):
        raise DamagedResult(f"{shard.label}: expected the pages of a concordance, found {sorted(files)[:5]}")


def concordance(
    client: Client,
    model: str,
    files: Sequence[Path],
    out: Path,
    *,
    reading: str = "matched, without b_U",
    words: int = 200,
    contexts: int = 5,
    tokens: int = 30,
    first_key: bool = False,
    programs: str | None = None,
    shared: Path | None = None,
    threads: int | None = None,
    other_builds: bool = False,
    options: Options = Options(),
) -> Summary:
    """Writes a concordance for each file, one prompt a line. ``out/index.html`` has links to all of them.

    Raises ClusterError; its message says what to do.
    """
    model = resolved(model)
    requirement = Requirement(model, ("concordance",), ("--reading", reading, "--tokens", str(tokens)), programs)
    arguments = ["--reading", reading, "--words", str(words), "--contexts", str(contexts), "--tokens", str(tokens)]
    arguments += ["--first-key"] if first_key else []
    shards = whole_files(list(files))
    names = [str(path) for path in files]
    settings = requirement.settings(other_builds) | {"job": "concordance", "arguments": arguments, "files": names}
    with closing(Store(out, settings)) as store:
        cluster = Cluster(client, requirement, shared, threads, other_builds, options)
        run = ConcordanceOfFile(model, tuple(arguments))
        summary = run_shards(cluster, shards, run, None, store, verb="concordance", noun="files", verify=verify)
        links = [store.place("shards", shard).relative_to(out).as_posix() for shard in shards]
        rows = "".join(
            f'<li><a href="{link}/index.html">{html.escape(str(shard.path))}</a></li>\n'
            for link, shard in zip(links, shards, strict=True)
        )
        page = f'<!doctype html>\n<meta charset="utf-8">\n<title>Concordances</title>\n<ul>\n{rows}</ul>\n'
        write_file(out / "index.html", page.encode())
        return summary
