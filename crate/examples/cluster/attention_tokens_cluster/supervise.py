"""Runs a program that ends with the process that started it.

    python supervise.py PROGRAM ARGUMENT...

Standard input is a pipe from the worker. When it closes, because the worker closed it or was killed, the program is killed too:
otherwise the program of a dead worker would go on, beside the one that has taken its place. This file imports nothing of the
package, so that it starts in a few milliseconds.
"""

import os
import subprocess
import sys
import threading


def main() -> int:
    """Runs the program and returns its exit status; a program that a signal ended gives 128 plus the signal."""
    program = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    def kill_when_closed() -> None:
        while os.read(0, 4096):
            pass
        program.kill()

    threading.Thread(target=kill_when_closed, daemon=True).start()
    status = program.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    # Without the clean-up of the interpreter, which would wait for the thread's read.
    sys.stdout.flush()
    os._exit(main())
