"""Counts on a cluster whose workers, client and scheduler are killed, stopped and misled, against the counts of one process."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

import duckdb
from machines import REAL, Machines, is_running, sha256, wait_for

WORDS = "the bus is late and The sentence was false Monday Tuesday red blue John gave Mary a ring".split()
PROMPTS = [" ".join(WORDS[(3 * n + k * (n % 5 + 1)) % len(WORDS)] for k in range(6)) + "." for n in range(16)]
PAIRS = [
    (
        f"When {a} and {b} went to the {place}, {b} gave a drink to",
        f"When {a} and {b} went to the {place}, {a} gave a drink to",
        f" {a}",
        f" {b}",
    )
    for a, b, place in (("Mary", "John", "store"), ("Tom", "Mary", "store"), ("John", "Tom", "shop"))
]
TOKENS = ["--tokens", "4"]
SHARDS = ["--shard-prompts", "2"]


class Faults(unittest.TestCase):
    """Each test has workers of its own."""

    folder: Path
    machines: Machines

    @classmethod
    def setUpClass(cls) -> None:
        cls.temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.temporary.cleanup)
        cls.folder = Path(cls.temporary.name)
        cls.prompts = cls.folder / "prompts.txt"
        # With an empty line, and without an end of the last one.
        cls.prompts.write_text("\n".join([*PROMPTS[:5], "", *PROMPTS[5:]]))
        cls.machines = Machines(cls.folder / "machines")
        cls.addClassCleanup(cls.machines.stop)
        # The counts of one process. Merged with nothing, they lose the position in the file.
        one = cls.folder / "one"
        call = [REAL / "vocabulary", "demo"]
        subprocess.run([*call, cls.prompts, one, *TOKENS], check=True, capture_output=True)
        subprocess.run([*call, "--merge", cls.folder / "one-merged", one], check=True, capture_output=True)

    def setUp(self) -> None:
        self.machines.log.write_text("")

    def tearDown(self) -> None:
        self.machines.stop(*(name for name in self.machines.processes if name != "scheduler"))

    def assert_counts_of_one_process(self, out: Path) -> None:
        for one, name in (("one-merged", "counts"), ("one.csv", "counts.csv"), ("one.parquet", "counts.parquet")):
            self.assertEqual(sha256(self.folder / one), sha256(out / name), f"{name} differs from one process's")

    def records(self, out: Path) -> dict[str, dict]:
        """The records of finished shards by the SHA-256 of their prompts."""
        records = [json.loads(path.read_text()) for path in (out / "shards").glob("[0-9]*/record.json")]
        return {record["key"]: record for record in records}

    def test_a_killed_worker_and_a_stopped_one_change_nothing(self) -> None:
        machines, out, shared = self.machines, self.folder / "shared-out", self.folder / "shared"
        shared.mkdir()
        # Its programs count one prompt, save their state, and hang.
        machines.start_worker("killed", shared=shared, WORKER_HANGS_AFTER="1")
        machines.start_worker("slow", shared=shared)
        machines.start_worker("good", shared=shared)
        machines.wait_for_workers()
        often = ["--batch-tokens", "4", "--save-every", "0", "--fan-in", "3"]
        client = machines.client("count", "demo", self.prompts, out, *TOKENS, *SHARDS, *often, "--shared", shared)
        wait_for("a shard on the slow worker", lambda: machines.runs("slow"))
        machines.signal("slow", signal.SIGSTOP)
        _, _, _, stopped = machines.runs("slow")[0]
        wait_for("a shard on the worker to be killed", lambda: machines.runs("killed"))
        [(_, program, place, interrupted)] = machines.runs("killed")
        wait_for("a state in the middle of the shard", (place / "counts").exists)
        self.assertTrue(is_running(program))
        machines.signal("killed", signal.SIGKILL)
        wait_for("the end of the dead worker's program", lambda: not is_running(program), 10)
        printed = machines.end(client)
        self.assertEqual(list(shared.iterdir()), [], "nothing is left in the shared folder")

        self.assert_counts_of_one_process(out)
        records = self.records(out)
        self.assertEqual(len(records), 8)
        # The shard of the killed worker went on from its state, elsewhere.
        self.assertEqual((records[interrupted]["tries"], records[interrupted]["resumed"]), (2, 1))
        self.assertIn("the worker died or left the cluster", printed)
        # That of the stopped worker was counted a second time, and once in the sum.
        self.assertEqual([name for name, *_, shard in machines.runs() if shard == stopped], ["slow", "good"])
        self.assertIn("8 finished, 0 of them earlier; 10 attempts, 1 failed, 1 started twice", printed)
        self.sum_of_shards(out)

    def sum_of_shards(self, out: Path) -> None:
        """DuckDB adds up the shards' Parquet files."""
        query = (
            "select layer, head, component, token_id, any_value(token), sum(count) from read_parquet(?) "
            "group by layer, head, component, token_id"
        )
        rows = duckdb.execute(query, [str(out / "shards" / "*" / "counts.parquet")]).fetchall()
        found = {tuple(map(str, row)) for row in rows}
        with open(out / "counts.csv", newline="", encoding="utf-8") as file:
            merged = [tuple(row) for row in csv.reader(file)][1:]
        self.assertGreater(len(merged), 1000)
        self.assertEqual(len(rows), len(merged))
        self.assertEqual(found, set(merged))

    def test_what_is_finished_survives_the_client_and_the_scheduler(self) -> None:
        """Workers without shared storage: each has a folder of its own, and sends its counts as bytes."""
        machines, out = self.machines, self.folder / "own-out"
        # A busy machine may make any shard a slow one.
        arguments = ["count", "demo", self.prompts, out, *TOKENS, *SHARDS, "--no-duplicates"]
        for name in ("one", "two"):
            machines.start_worker(name)
        client = machines.client(*arguments)
        wait_for("two finished shards", lambda: len(self.records(out)) >= 2)
        client.kill()
        client.communicate()
        first = self.records(out)

        client = machines.client(*arguments)
        wait_for("two more shards", lambda: len(self.records(out)) >= len(first) + 2)
        machines.signal("scheduler", signal.SIGKILL)
        printed = machines.end(client, status=1)
        self.assertIn("the same command goes on", printed)
        second = self.records(out)
        self.assertLess(len(second), 8)
        machines.stop()
        runs = machines.runs()
        self.assertTrue(all(str(place).startswith(str(machines.folder / "scratch")) for _, _, place, _ in runs))

        machines.log.write_text("")
        machines.start_scheduler()
        for name in ("one", "two"):
            machines.start_worker(name)
        printed = machines.run(*arguments)
        self.assertIn(f"8 finished, {len(second)} of them earlier; {8 - len(second)} attempts, 0 failed", printed)
        self.assert_counts_of_one_process(out)
        again = {shard for *_, shard in machines.runs()}
        self.assertEqual(again, set(self.records(out)) - set(second), "finished shards do not run again")
        for shard, record in {**first, **second}.items():
            self.assertEqual(self.records(out)[shard], record)

        # A result that was damaged on disk is computed again, and nothing else.
        machines.log.write_text("")
        damaged = out / "shards" / "00003" / "counts"
        content = bytearray(damaged.read_bytes())
        content[-1] ^= 1
        damaged.write_bytes(content)
        printed = machines.run(*arguments)
        self.assertIn("8 finished, 7 of them earlier; 1 attempts, 0 failed", printed)
        self.assertEqual(len(machines.runs()), 1)
        self.assert_counts_of_one_process(out)
        printed = machines.run("count", "demo", self.prompts, out, "--tokens", "6", *SHARDS, status=1)
        self.assertIn("max_tokens was '4', and is '6' now", printed)

    def test_other_models_and_missing_programs_are_refused(self) -> None:
        machines, out = self.machines, self.folder / "refused-out"
        other, empty = self.folder / "other-programs", self.folder / "no-programs"
        for folder in (other, empty):
            folder.mkdir()
        for program in machines.programs.iterdir():
            (other / program.name).write_bytes(program.read_bytes() + b"# another build\n")
            (other / program.name).chmod(0o755)
        machines.start_worker("letters", WORKER_MODEL="letters")
        machines.start_worker("none", ATTENTION_TOKENS_PROGRAMS=str(empty))
        arguments = ["count", "demo", self.prompts, out, *TOKENS, "--shard-prompts", "8", "--batch-tokens", "5"]
        printed = machines.run(*arguments, status=1)
        self.assertIn("every worker was refused", printed)
        self.assertRegex(printed, r"fingerprint is [0-9a-f]{16} there, and [0-9a-f]{16} at the client")
        self.assertIn(f"no program vocabulary in {empty}", printed)
        self.assertIn("cargo build --release --features full --example vocabulary", printed)
        self.assertEqual(machines.runs(), [], "nothing was counted")

        # Beside them, a worker of another build, and a good one whose first result is of one prompt only.
        machines.start_worker("build", ATTENTION_TOKENS_PROGRAMS=str(other))
        machines.start_worker("good", WORKER_ENDS_EARLY=str(self.folder / "ended-early"))
        printed = machines.run(*arguments)
        self.assertRegex(printed, r"build of vocabulary is [0-9a-f]{64} there, and [0-9a-f]{64} at the client")
        self.assertIn("the counts are of other prompts, or of a part of them", printed)
        self.assertIn("2 finished, 0 of them earlier; 3 attempts, 1 failed", printed)
        self.assertIn("3 workers refused", printed)
        self.assertEqual({name for name, *_ in machines.runs()}, {"good"})
        self.assert_counts_of_one_process(out)

    def test_patching_and_concordances_run_through_the_same_functions(self) -> None:
        machines, out = self.machines, self.folder
        pairs = out / "pairs.tsv"
        pairs.write_text("".join("\t".join(pair) + "\n" for pair in PAIRS))
        one = out / "one-patching.csv"
        subprocess.run([REAL / "patching", "demo", pairs, one], check=True, capture_output=True)
        machines.start_worker("one")
        machines.start_worker("two")
        machines.run("patch", "demo", pairs, out / "patched", "--shard-pairs", "1", "--fan-in", "2")
        self.assertEqual((out / "patched" / "patching.csv").read_text(), one.read_text())
        pairs.write_text("only\tthree\tfields\n")
        printed = machines.run("patch", "demo", pairs, out / "not-patched", "--retries", "1", status=1)
        self.assertIn("shard 1 of 1 failed 2 times", printed)
        self.assertIn("found 3 fields", printed)

        texts = [out / "a & b.txt", out / "b.txt"]
        for text, prompt in zip(texts, PROMPTS[:2], strict=True):
            text.write_text(f"{prompt}\n")
        options = ["--tokens", "3", "--words", "2"]
        machines.run("concordance", "letters", out / "pages", *texts, *options)
        subprocess.run([REAL / "concordance", "letters", out / "one-pages", texts[0], *options], check=True, capture_output=True)
        names = {path.name for path in (out / "one-pages").iterdir()}
        self.assertEqual({path.name for path in (out / "pages/shards/00000").iterdir()}, names | {"record.json"})
        for name in names:
            self.assertEqual(sha256(out / "pages/shards/00000" / name), sha256(out / "one-pages" / name))
        self.assertIn("a &amp; b.txt</a>", (out / "pages/index.html").read_text())


if __name__ == "__main__":
    unittest.main()
