"""A scheduler and workers as processes of their own, which tests kill, stop and mislead; and a log of the programs that ran."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REAL = Path(os.environ.get("ATTENTION_TOKENS_EXAMPLES", Path(__file__).parents[4] / "target" / "debug" / "examples"))
"""The folder of the compiled programs."""

# In place of a program: logs its call, and does what the worker's environment says before it runs the program.
_WRAPPER = f"""#!{sys.executable} -IS
import hashlib, os, subprocess, sys, time
name, arguments, setting = os.path.basename(sys.argv[0]), sys.argv[1:], os.environ.get
shard = hashlib.sha256(open("prompts.txt", "rb").read()).hexdigest() if os.path.exists("prompts.txt") else "none"
job = next((job for job in ("identity", "merge") if "--" + job in arguments), "count")
with open(setting("RUNS_LOG"), "a") as log:
    print(setting("WORKER_NAME"), job, os.getpid(), os.getcwd(), shard, file=log)
program = os.path.join(setting("REAL"), name)
if setting("WORKER_MODEL"):
    arguments[0] = setting("WORKER_MODEL")
if job == "count" and setting("WORKER_HANGS_AFTER"):
    subprocess.run([program, *arguments, "--stop-after", setting("WORKER_HANGS_AFTER")])
    time.sleep(600)
if job == "count" and setting("WORKER_ENDS_EARLY") and not os.path.exists(setting("WORKER_ENDS_EARLY")):
    os.mkdir(setting("WORKER_ENDS_EARLY"))
    arguments += ["--stop-after", "1"]
os.execv(program, [program, *arguments])
"""


def wait_for(what: str, condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Waits until a condition holds, or raises AssertionError."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"after {seconds:.0f} s: not {what}")
        time.sleep(0.02)


class Machines:
    """A scheduler with workers, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = folder / "programs"
        self.programs.mkdir(parents=True)
        for name in ("vocabulary", "patching", "concordance"):
            wrapper = self.programs / name
            wrapper.write_text(_WRAPPER)
            wrapper.chmod(0o755)
        self.log = folder / "runs.log"
        self.log.touch()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start_scheduler()

    def start_scheduler(self) -> None:
        """Starts a scheduler on a port of its own choice."""
        self.scheduler_file = self.folder / f"scheduler-{time.monotonic_ns()}.json"
        file = ["--scheduler-file", str(self.scheduler_file)]
        self._start("scheduler", ["scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", ":0", *file], {})
        wait_for("a scheduler", self.scheduler_file.exists)
        wait_for("an address", lambda: self.scheduler_file.read_text().rstrip().endswith("}"))
        self.address: str = json.loads(self.scheduler_file.read_text())["address"]

    def start_worker(self, name: str, *, shared: Path | None = None, **environment: str) -> None:
        """Starts a worker of one thread, without a nanny that would start it again."""
        local = self.folder / "scratch" / name
        environment = {"WORKER_NAME": name, "ATTENTION_TOKENS_PROGRAMS": str(self.programs), **environment}
        if shared is not None:
            environment["ATTENTION_TOKENS_SHARED"] = str(shared)
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(local), "--name", name]
        self._start(name, ["worker", self.address, "--host", "127.0.0.1", *options], environment)

    def wait_for_workers(self) -> None:
        """Waits until every worker has joined, so that each gets a task."""
        for name in self.processes:
            if name != "scheduler":
                wait_for(f"worker {name}", lambda log=self.folder / f"{name}.log": "Registered to" in log.read_text())

    def _start(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        with open(self.folder / f"{name}.log", "wb") as log:
            command = [sys.executable, "-m", "dask", *arguments]
            self.processes[name] = subprocess.Popen(command, env=self.environment(**environment), stdout=log, stderr=log)

    def environment(self, **more: str) -> dict[str, str]:
        """The environment of workers and clients."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("ATTENTION_TOKENS_")}
        return {**plain, "RUNS_LOG": str(self.log), "REAL": str(REAL), **more}

    def client(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Starts the command line with this scheduler."""
        command = [sys.executable, "-m", "attention_tokens_cluster", *map(str, arguments), "--scheduler", self.address]
        environment = self.environment(WORKER_NAME="client", ATTENTION_TOKENS_PROGRAMS=str(self.programs))
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def run(self, *arguments: str | Path, status: int = 0, seconds: float = 120) -> str:
        """Runs the command line and returns what it printed; raises AssertionError for another exit status."""
        return self.end(self.client(*arguments), status=status, seconds=seconds)

    def end(self, client: subprocess.Popen[str], *, status: int = 0, seconds: float = 120) -> str:
        """Waits for a client and returns what it printed."""
        try:
            printed, errors = client.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            client.kill()
            raise AssertionError(f"the client does not end: {client.communicate()}") from None
        assert client.returncode == status, f"exit status {client.returncode}, expected {status}: {printed}{errors}"
        return printed + errors

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a signal to a process."""
        self.processes[name].send_signal(number)

    def runs(self, name: str | None = None, job: str = "count") -> list[tuple[str, int, Path, str]]:
        """The programs that ran on a worker, or on any: worker, process, folder, SHA-256 of the prompts."""
        lines = [line.split(" ") for line in self.log.read_text().splitlines()]
        found = [(line[0], int(line[2]), Path(line[3]), line[4]) for line in lines if line[1] == job]
        return [run for run in found if name is None or run[0] == name]

    def stop(self, *names: str) -> None:
        """Ends processes: those that are named, or all."""
        for name in names or tuple(self.processes):
            process = self.processes.pop(name)
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def sha256(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def is_running(process: int) -> bool:
    """Whether a process exists. Those of the tests are waited for by their parents."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
