"""The errors of the package. All are sent between processes, so each has its message as its only argument."""


class ClusterError(Exception):
    """An error that a user can do something about. Its message says what."""


class ProgramMissing(ClusterError):
    """A program of attention-tokens is not on a machine."""


class ProgramFailed(ClusterError):
    """A program ended with an error."""


class Stopped(ClusterError):
    """A task was cancelled while its program was running."""


class RefusedWorker(ClusterError):
    """A worker has another model, another program or another version of this package than the client."""


class DamagedResult(ClusterError):
    """A result is not what the worker computed, or belongs to other input."""


class ShardFailed(ClusterError):
    """A task failed more often than it may be tried again."""


class NoWorkers(ClusterError):
    """No worker can run the tasks."""


class SchedulerLost(ClusterError):
    """The connection to the scheduler ended."""


class OtherRun(ClusterError):
    """The output folder is of a run with other settings, or another client is writing it."""


def printable(text: str) -> str:
    """A text from another machine, without characters that act on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
