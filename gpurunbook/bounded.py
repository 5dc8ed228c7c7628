"""`python -m gpurunbook.bounded SECONDS PROGRAM ARGS`: does as PROGRAM does, and ends it with its group at the limit.

For programs that a library starts and would wait for without end, such as the one that a kubeconfig signs in with.
"""

from __future__ import annotations

import os
import sys

from gpurunbook.command import Command, run
from gpurunbook.errors import RunbookError


def main(seconds: str, *argv: str) -> int:
    """The exit code, 124 at the limit, as timeout(1) has it."""
    def told(_: float, line: str) -> None:
        if line:
            sys.stderr.write(f"{line}\n")

    try:
        done = run(Command(argv, why="", limit=float(seconds), data=True), env=os.environ, check=False, watch=told)
    except RunbookError as problem:
        sys.stderr.write(f"{problem.what}\n")
        return 124
    sys.stdout.buffer.write(done.raw)
    return done.code if done.code >= 0 else 128 - done.code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
