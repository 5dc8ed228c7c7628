"""Where a runbook runs. After provisioning there is one code path; what differs between clusters is behind Target."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpurunbook.errors import ConfigError
from gpurunbook.plan import Check, Plan

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig
    from gpurunbook.runbook import Run

NAMES = ("rehearsal", "eks", "existing")


@dataclass(frozen=True)
class Part:
    """One part of a cluster: a process, a control plane, a node group. `state` is running, dead or absent."""

    name: str
    state: str
    evidence: str = ""


@dataclass(frozen=True)
class ClusterState:
    """What is there now. `answers`: the API server says it is ready; `missing`: nodes that cluster.yaml wants."""

    parts: tuple[Part, ...]
    answers: bool
    nodes: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return self.answers and not self.missing and all(part.state == "running" for part in self.parts)


class Target(Protocol):
    """A kind of cluster.

    Attributes:
        name: as given to `--target`.
        cannot_show: sentences on what a run on it does not prove; empty where everything is real.
        programs: the programs it needs, by name.
        passes_on: names of environment variables that its programs need besides the usual ones.
        wait_limit: seconds that anything may take to become ready: nodes, a GPU, a pod and its image.
    """

    @property
    def name(self) -> str: ...

    @property
    def cannot_show(self) -> tuple[str, ...]: ...

    @property
    def programs(self) -> tuple[str, ...]: ...

    @property
    def passes_on(self) -> tuple[str, ...]: ...

    @property
    def wait_limit(self) -> float: ...

    def checks(self, cluster: ClusterConfig) -> list[Check]:
        """What preflight asks besides programs and cluster.yaml. Changes nothing."""

    def context(self, run: Run) -> str:
        """The kubeconfig context of the run's cluster."""

    def environment(self, run: Run) -> dict[str, str]:
        """Variables that the target's programs need, for children and for the `export` line."""

    def observe(self, run: Run) -> ClusterState:
        """The cluster as it is now; an absent one is a state, not an error."""

    def starting(self, run: Run) -> None:
        """Asked while a cluster comes up. Raises RunbookError when it can no longer succeed."""

    def create(self, run: Run, state: ClusterState, *, stuck_taint: bool = True) -> Plan:
        """What is missing between `state` and cluster.yaml, as commands.

        `stuck_taint`: where nodes are imitated, leave the `uninitialized` taint on the GPU nodes.
        """

    def delete(self, run: Run, state: ClusterState) -> Plan:
        """What ends the cluster."""

    def left(self, run: Run) -> list[Check]:
        """After a teardown: is anything of the run still there?"""

    def stand_in_chart(self, run: Run) -> Path | None:
        """A chart to use where NVIDIA's repository cannot be reached, None where only the real one will do."""


def get(name: str) -> Target:
    """The target of that name. Raises ConfigError for a name we do not know."""
    if name == "rehearsal":
        from gpurunbook.targets.rehearsal.cluster import Rehearsal
        return Rehearsal()
    if name in NAMES:
        raise ConfigError(f"target {name!r} is not built yet", where="gpurunbook/targets",
                          next="use --target rehearsal; eks and existing are the next milestone (CHANGELOG)")
    raise ConfigError(f"unknown target {name!r}", where="--target", next=f"one of: {', '.join(NAMES)}")
