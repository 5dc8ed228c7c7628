"""What is tried again when the network fails, how often, and after which pause. A refusal is never tried again.

A write is repeated only where a second one does no more than the first. kubectl and helm come back by themselves when an
API server answers with Retry-After (client-go, up to ten times), so that is not counted here.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gpurunbook.command import Command, Result

TRIES = 4
PATIENCE = 20.0
"""Seconds after its beginning in which a call is tried again."""
FIRST = 0.25
"""Seconds before the second try, on average; each further pause is twice as long."""

PASSING = re.compile(
    r"\bEOF\b|connection (reset|refused|timed out)|broken pipe|i/o timeout|TLS handshake timeout|Client\.Timeout exceeded"
    r"|client connection (lost|force closed)|server sent GOAWAY|no route to host|network is unreachable|no such host"
    r"|temporary failure in name resolution|currently unable to handle the request|etcdserver: (request timed out|leader changed)"
    r"|use of closed network connection", re.IGNORECASE)
"""How Go's net/http, client-go and etcd name what may be over in a second."""
LASTING = re.compile(r"x509:|certificate|Unauthorized|[Ff]orbidden")
UNREACHED = "kubernetes cluster unreachable"
"""Helm's words, from Helm 4 on without a capital, when its first question has no answer: nothing was written."""
READS = {"kubectl": {"get", "diff", "describe", "version", "wait", "logs"}, "helm": {"list", "get", "status", "history"}}


def pause(failed: int, asked: float = 0.0) -> float:
    """Seconds to wait after so many failures, with jitter; never less than an API server has asked for."""
    return asked + FIRST * 2.0 ** (failed - 1) * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, hides nothing


def repeatable(argv: Sequence[str], said: str) -> bool:
    """Whether a failed call of kubectl or helm may be made again as it is: it reads, or twice is the same as once."""
    program, words = Path(argv[0]).name, [word for word in argv[1:] if not word.startswith("-")]
    verb = words[0] if words else ""
    if verb in READS.get(program, ()):
        return True
    if program == "helm":
        return UNREACHED in said.lower()
    return program == "kubectl" and (verb == "apply" or (verb == "delete" and "--ignore-not-found" in argv))


def passing(result: Result) -> bool:
    """Whether a call failed for what may be over in a second, and may be made again."""
    said = result.stderr
    return (result.code != 0 and not result.ended_by and bool(PASSING.search(said)) and not LASTING.search(said)
            and repeatable(result.command.argv, said))


def until_through(run: Callable[[Command], Result], command: Command, tell: Callable[[str], None]) -> Result:
    """Run a command, again while its failure is `passing`, at most TRIES times and not after PATIENCE. Returns the last result.

    Args:
        tell: gets a sentence before each further try.
    """
    began, failed = time.monotonic(), 0
    while passing(result := run(command)):
        failed += 1
        seconds = pause(failed)
        if failed == TRIES or time.monotonic() + seconds > began + PATIENCE:
            break
        tell(f"the network failed; try {failed + 1} of {TRIES} in {seconds:.1f} s: {command.short}")
        time.sleep(seconds)
    return result
