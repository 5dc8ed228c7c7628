"""What an interrupted runner left at work: its program is ended, its intent closed, and the cluster looked at afresh."""

from __future__ import annotations

from gpurunbook.command import end_group
from gpurunbook.journal import Journal, Record
from gpurunbook.processes import Process


def close(journal: Journal) -> list[Record]:
    """Close every intent whose runner is gone. Returns those intents, oldest first.

    A helm that outlives its kernel holds the release's lock, so it gets the same graces as at a Ctrl-C.
    """
    closed = []
    for intent in journal.in_flight():
        if Process(**intent["by"]).alive:
            continue
        program = Process(**intent["program"]) if "program" in intent else None
        if program and program.alive:
            end_group(program.pid)
        journal.append("result", id=intent["id"], code=None, error="interrupted: result unknown")
        closed.append(intent)
    return closed
