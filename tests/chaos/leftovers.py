"""What a run may leave on this machine: processes, listening ports, mounts, the jails' folders, sockets, half-written files."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from pathlib import Path

import yaml

from gpurunbook import processes
from gpurunbook.journal import Journal
from tests.chaos.lane import Lane


def ports(folder: Path) -> set[int]:
    """The ports that a run's cluster was given: to be read before it is torn down."""
    found = {int(r["port"]) for r in Journal(folder).records() if r["kind"] == "pod_host"}
    config = folder / "rehearsal" / "kwok.yaml"
    if config.exists():
        options = next(yaml.safe_load_all(config.read_text()))["options"]
        found |= {int(value) for name, value in options.items() if name.endswith("Port")}
    return found


def after(lane: Lane, given: set[int]) -> dict[str, list[str]]:
    """What is left of a lane after its teardown, by kind."""
    folder = lane.folder
    tag = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
    sockets = Path(tempfile.gettempdir()) / f"gpurunbook-{os.getuid()}-{tag}"
    ours = (sockets, folder / "rehearsal" / "pods", folder / "rehearsal" / "clusters" / folder.name, folder / "kubeconfig")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {"process": lane.left(), "process of the run": [f"{p.pid} {p.name}" for p in processes.of_runs(folder)],
            "port": [str(port) for port in sorted(given) if _listens(port)],
            "mount": [line for line in mounts if str(lane.root) in line],
            "folder": [str(path) for path in ours if path.exists()],
            "half-written file": [str(path) for path in folder.rglob("*.making")]}


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
