"""How far a pod is that is not ready yet, in words: to be scheduled, its image to be pulled, its container to start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

STARTING = "its container to be ready"
SILENT = ("ContainerCreating", "PodInitializing", STARTING)
"""What a pod says of itself both while its image is pulled and while its container starts; its events tell which."""


@dataclass(frozen=True)
class Event:
    """One event of a pod; `at` is when it was seen last, `first` when it was seen first."""

    reason: str
    message: str
    at: datetime
    first: datetime | None = None


def of(run: Run, uid: str) -> list[Event] | None:
    """A pod's events, oldest first; None where they cannot be listed, which stops nobody, since they only explain."""
    from kubernetes.client import ApiException
    try:
        found = run.core.list_namespaced_event("default", field_selector=f"involvedObject.uid={uid}", _request_timeout=30).items
    except ApiException:
        return None
    events = [Event(e.reason or "", e.message or "",
                    e.last_timestamp or e.event_time or e.first_timestamp or e.metadata.creation_timestamp, e.first_timestamp)
              for e in found]
    return sorted(events, key=lambda e: e.at)


def progress(node: str, why: str, events: Callable[[], Sequence[Event] | None]) -> str:
    """What a pod waits for. `why` is what its status says; `events` are asked for only where that does not tell."""
    if not node or why not in SILENT:
        return why
    found = events()
    if not found:  # an hour after it was written an event is gone
        return f"scheduled on {node}; {'its events cannot be read' if found is None else 'no event says more'}"
    told = next((e for e in reversed(found) if e.reason in ("Pulling", "Pulled", "Created", "Started")), None)
    if told is None:
        return f"scheduled on {node}; its image is not being pulled yet"
    if told.reason == "Pulling":
        return f"{told.message[:1].lower()}{told.message[1:]}, since {told.at.astimezone(UTC):%H:%M:%S} UTC"
    return "its image is there; the container is starting" if told.reason != "Started" else "started, and not ready yet"
