"""The parts of the package that need no cluster."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from machines import is_running, wait_for

from attention_tokens_cluster import ClusterError, __version__, attempts
from attention_tokens_cluster.count import VerifyCounts
from attention_tokens_cluster.errors import DamagedResult, OtherRun, ProgramFailed, RefusedWorker, Stopped, printable
from attention_tokens_cluster.programs import Requirement, run
from attention_tokens_cluster.progress import duration
from attention_tokens_cluster.shards import Item, split_lines
from attention_tokens_cluster.store import Record, Store, is_file_name


class Parts(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def test_shards_are_the_lines_of_the_file(self) -> None:
        path = self.folder / "prompts.txt"
        path.write_bytes("a\r\n\nb\n\n\r\nc\nd\n\ne ü".encode())
        shards = split_lines(path, 2)
        self.assertEqual([shard.units for shard in shards], [2, 2, 1])
        self.assertEqual(b"".join(shard.text() for shard in shards), path.read_bytes())
        self.assertEqual([shard.label for shard in shards], ["shard 1 of 3", "shard 2 of 3", "shard 3 of 3"])
        # Lines that were added leave whole shards as they are.
        path.write_bytes(path.read_bytes() + b"\nf\ng")
        longer = split_lines(path, 2)
        self.assertEqual([shard.key for shard in longer[:2]], [shard.key for shard in shards[:2]])
        self.assertEqual(len(longer), 4)
        path.write_bytes(b"x" * 40)
        with self.assertRaisesRegex(ClusterError, "has changed while the run read it"):
            longer[0].text()
        path.write_bytes(b"\n\n")
        self.assertEqual(split_lines(path, 2), [])
        with self.assertRaisesRegex(ClusterError, "at least 1 line"):
            split_lines(path, 0)

    def test_the_store_has_whole_results_only(self) -> None:
        out = self.folder / "out"
        store = Store(out, {"tokens": "30"})
        with self.assertRaisesRegex(OtherRun, "another client is writing"):
            Store(out, {"tokens": "30"})
        item, content = Item(3, "shard 4 of 9", "key"), b"counts"
        digest = "34d96069c5e9ef7a8d2cd4e22bf02b7b0ed7f5b2ed27a53fd5a4f7d4e2d6fb5c"
        record = Record("key", {"counts": digest}, 2, 1.0, "here", 1, 0)
        with self.assertRaisesRegex(DamagedResult, f"arrived with the SHA-256 [0-9a-f]+, and left as {digest}"):
            store.put("shards", item, {"counts": content}, record)
        self.assertEqual(list((out / "shards").iterdir()), [])
        record.digests["counts"] = hashlib.sha256(content).hexdigest()
        store.put("shards", item, {"counts": content}, record)
        self.assertEqual(store.finished("shards", item), record)
        self.assertIsNone(store.finished("shards", Item(3, "", "other input")))
        for name in ("../counts", "a/b", "record.json", ".hidden", "", "a\n"):
            self.assertFalse(is_file_name(name), name)
            bad = Record("key", {name: "0"}, 2, 1.0, "here", 1, 0)
            with self.assertRaises(DamagedResult):
                store.put("shards", item, {name: content}, bad)
        store.keep_first("shards", 4)
        self.assertEqual(store.finished("shards", item), record)
        (out / "shards" / "00004").mkdir()
        store.keep_first("shards", 4)
        self.assertEqual([path.name for path in (out / "shards").iterdir()], ["00003"])
        (out / "shards" / ".new-half").mkdir()
        store.close()
        store = Store(out, {"tokens": "30"})
        self.assertEqual(store.finished("shards", item), record)
        self.assertFalse((out / "shards" / ".new-half").exists())
        (out / "shards" / "00003" / "counts").write_bytes(b"Counts")
        self.assertIsNone(store.finished("shards", item), "damaged")
        store.close()
        with self.assertRaisesRegex(OtherRun, "tokens was '30', and is '8' now"):
            Store(out, {"tokens": "8"})
        (self.folder / "mine").mkdir()
        (self.folder / "mine" / "thesis.txt").write_text("all of it")
        with self.assertRaisesRegex(OtherRun, "has other files .thesis.txt.; choose another folder"):
            Store(self.folder / "mine", {})

    def test_a_result_that_changed_on_its_way_is_damaged(self) -> None:
        order = attempts.Order("0" * 32, "shards", 0, "a", Requirement("demo", ()), {}, False, None)
        outcome = attempts.Outcome({"counts": "0" * 64}, {"counts": b"other"}, 1.0, 0, "host")
        with self.assertRaisesRegex(DamagedResult, "not what the worker sent"):
            attempts.outcome_files(order, outcome, None)
        outside = attempts.Outcome({"../../counts": "0" * 64}, None, 1.0, 0, "host")
        with self.assertRaises(DamagedResult):
            attempts.outcome_files(order, outside, self.folder)

    def test_names_from_the_network_are_no_paths(self) -> None:
        for name in ("..", "a/b", "", "a" * 65, "a b"):
            with self.assertRaises(RefusedWorker):
                attempts.run_folder(self.folder, name)
        self.assertEqual(printable("a\x1b[2Jb\nü\r"), "a\\x1b[2Jb\nü\\r")

    def test_counts_of_other_prompts_are_refused(self) -> None:
        path = self.folder / "prompts.txt"
        path.write_bytes(b"a\nb\n")
        [shard] = split_lines(path, 2)

        def counts(**changed: str) -> dict[str, bytes]:
            metadata = {"fingerprint": "255", "reading": "ov", "prompts_digest": shard.key, "offset": "4", **changed}
            text = json.dumps({"__metadata__": metadata}).encode()
            return {"counts": len(text).to_bytes(8, "little") + text}

        verify = VerifyCounts("00000000000000ff", "ov")
        verify(shard, counts())
        with self.assertRaisesRegex(RefusedWorker, "the model 0000000000000001 .* expected the model 00000000000000ff"):
            verify(shard, counts(fingerprint="1"))
        for changed in ({"offset": "2"}, {"prompts_digest": "0"}):
            with self.assertRaisesRegex(DamagedResult, "other prompts, or of a part"):
                verify(shard, counts(**changed))
        with self.assertRaisesRegex(DamagedResult, "no safetensors"):
            verify(shard, {"counts": b"\0" * 20})

    def test_a_program_ends_with_the_process_that_started_it(self) -> None:
        script = (
            "from pathlib import Path; from attention_tokens_cluster.programs import run; import sys; "
            "run(Path('/bin/sh'), ['-c', 'echo $$ > started; exec sleep 600'], folder=Path(sys.argv[1]))"
        )
        starter = subprocess.Popen([sys.executable, "-c", script, str(self.folder)])
        started = self.folder / "started"
        wait_for("a program", lambda: started.exists() and started.read_text().endswith("\n"))
        program = int(started.read_text())
        self.assertTrue(is_running(program))
        starter.send_signal(signal.SIGKILL)
        starter.wait()
        wait_for("its end", lambda: not is_running(program), 10)

    def test_a_program_is_stopped_when_it_is_not_wanted_any_more(self) -> None:
        started = self.folder / "started"

        def wanted() -> bool:
            return not (started.exists() and started.read_text().endswith("\n"))

        with self.assertRaisesRegex(Stopped, "sh was stopped"):
            run(Path("/bin/sh"), ["-c", "echo $$ > started; exec sleep 600"], folder=self.folder, wanted=wanted)
        self.assertFalse(is_running(int(started.read_text())))
        self.assertEqual(run(Path("/bin/sh"), ["-c", "echo $RAYON_NUM_THREADS"], threads=7), "7\n")
        with self.assertRaisesRegex(ProgramFailed, "exit status 3.: a\\\\x1bb"):
            run(Path("/bin/sh"), ["-c", "printf 'a\\033b' >&2; exit 3"])

    def test_the_version_is_that_of_the_project(self) -> None:
        project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
        self.assertIn(f'\nversion = "{__version__}"\n', project)

    def test_durations_have_a_unit_of_their_size(self) -> None:
        self.assertEqual([duration(5), duration(600), duration(7200), duration(604_800)], ["5 s", "10 min", "2 h", "7.0 days"])


if __name__ == "__main__":
    unittest.main()
