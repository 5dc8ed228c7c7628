"""Does exec into the model's pod answer, and is its stream whole? Two short reads through kubectl."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpurunbook.errors import CommandFailed
from gpurunbook.readiness.snapshot import Names, Object, Probe

if TYPE_CHECKING:
    from gpurunbook.command import Result
    from gpurunbook.runbook import Run

LIMIT = 20.0
NO_PROGRAM = ("executable file not found", "no such file or directory")


def ask(run: Run, names: Names, pod: Object) -> Probe:
    """Exec an echo, whose word proves that all of the answer came, and then `tar --version`, which kubectl cp needs."""
    word, now = f"whole-{secrets.token_hex(8)}", datetime.now(UTC)
    echo = _exec(run, names, pod, "echo", word, why="does exec answer, and is its stream whole?")
    uid = str(pod["metadata"]["uid"])
    if echo is None:
        return Probe(uid, now, -1, False, said=f"timed out: no answer within {LIMIT:g} s")
    if word not in echo.stdout:
        return Probe(uid, now, echo.code, False, said=_last(echo))
    tar = _exec(run, names, pod, "tar", "--version", why="is there a tar, which kubectl cp needs?")
    return with_tar(Probe(uid, datetime.now(UTC), echo.code, True), tar)


def with_tar(probe: Probe, tar: Result | None) -> Probe:
    """What the second question adds; an answer that says neither yes nor no leaves it open."""
    if tar is None:
        return probe
    absent = tar.code != 0 and any(text in f"{tar.stderr}{tar.stdout}" for text in NO_PROGRAM)
    there = tar.code == 0 and "tar" in tar.stdout
    return Probe(probe.pod, probe.when, probe.code, True, False if absent else True if there else None, _last(tar))


def _exec(run: Run, names: Names, pod: Object, *command: str, why: str) -> Result | None:
    """The result, whatever its exit code; None when there was none within the limit."""
    container = names.container or pod["spec"]["containers"][0]["name"]
    try:
        return run.ask(run.kubectl.exec(pod["metadata"]["name"], *command, container=container, why=why, limit=LIMIT,
                                        namespace=names.model_namespace), check=False)
    except CommandFailed:
        return None


def _last(result: Result) -> str:
    lines = (result.stderr.strip() or result.stdout.strip()).splitlines()
    return lines[-1] if lines else ""
