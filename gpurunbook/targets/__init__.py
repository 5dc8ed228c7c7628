"""Where a runbook runs. After provisioning there is one code path; what differs between clusters is behind Target."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.plan import Check, Plan

if TYPE_CHECKING:
    from gpurunbook.command import Command, Result
    from gpurunbook.config import ClusterConfig
    from gpurunbook.live import Live
    from gpurunbook.runbook import Run

NAMES = ("rehearsal", "eks", "existing")
ROLE_A = ("nodes", "model", "next_token", "latency")
"""Stages for which the rights of manifests/rbac/runbook-model.yaml are enough."""


@dataclass(frozen=True)
class Part:
    """One part of a cluster: a process, a control plane, a node group.

    `state` is running, degraded (it runs, and something ails it), dead, failed, absent, or on its way.
    """

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
        return self.answers and not self.missing and all(part.state in ("running", "degraded") for part in self.parts)


@dataclass(frozen=True)
class Wishes:
    """What a person asks for in notebook 02; each target reads what it knows of.

    Attributes:
        stuck_taint: where nodes are imitated, leave the `uninitialized` taint on the GPU nodes.
        max_hours, budget, confirm: what a cluster that costs money may take, in hours and US dollars, and its name typed
            out by the person who agrees.
        accept_unknown_prices: go on where AWS does not say what something costs.
        kubeconfig, context, selector: the cluster that is there already, and the label of its GPU nodes.
        pace: where time is imitated: `instant`, `real`, or how much of real time, such as 0.1.
    """

    stuck_taint: bool = True
    max_hours: float = 0.0
    budget: float = 0.0
    confirm: str = ""
    accept_unknown_prices: bool = False
    kubeconfig: str = ""
    context: str = ""
    selector: str = ""
    pace: str = "instant"


@dataclass(frozen=True)
class Spent:
    """An estimate of what a run has cost: a sentence, and the bill's rows (part, how many, US dollars an hour, note)."""

    sentence: str
    rows: tuple[tuple[str, ...], ...]
    left_out: str
    counting: bool


class Target(ABC):
    """A kind of cluster. What a kind has nothing to say about, it leaves as it is here.

    Attributes:
        name: as given to `--target`.
        cannot_show: sentences on what a run on it does not prove; empty where everything is real.
        programs: the programs it needs, by name.
        poll: seconds between two looks while waiting.
        ours: the cluster is made and deleted by the run.
        only_shipped: the walk runs no notebook whose code was changed, unless a person allows it.
    """

    name: ClassVar[str]
    cannot_show: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]] = ("kubectl", "helm")
    poll: ClassVar[float] = 2.0
    ours: ClassVar[bool] = True
    only_shipped: ClassVar[bool] = False

    @property
    def passes_on(self) -> tuple[str, ...]:
        """Names of environment variables that its programs need besides the usual ones."""
        return ()

    def hide_secrets(self, cluster: ClusterConfig) -> None:
        """Tell gpurunbook.masking what must not reach a file, as far as it is known. Never fails."""

    def machine(self, cluster: ClusterConfig) -> list[Check]:
        """What doctor asks of this machine besides programs. Changes nothing."""
        return []

    def set_up(self, say: Callable[[str], None]) -> None:
        """Make what `machine` asks for, as far as that can be made; `say` gets each line of progress. Raises RunbookError."""

    def checks(self, cluster: ClusterConfig, image: str) -> list[Check]:
        """What preflight asks besides programs, cluster.yaml and `machine`. Changes nothing."""
        return []

    def describe(self, folder: Path, cluster: ClusterConfig) -> ClusterConfig:
        """The cluster that a run in this folder walks through: what cluster.yaml says, unless it is not ours."""
        return cluster

    def wait_limit(self, run: Run) -> float:
        """Seconds that anything may take to become ready: nodes, a GPU, a pod and its image."""
        return 1800.0

    def patience(self, run: Run) -> float:
        """By what the usual times of AWS are multiplied before something counts as too slow in this run's cluster."""
        return 1.0

    @abstractmethod
    def context(self, run: Run) -> str:
        """The kubeconfig context of the run's cluster, with the user for the run's stage where the target makes one."""

    def identity(self, run: Run, seen: dict[str, str]) -> dict[str, str]:
        """What tells the cluster from others besides `seen` (server, CA, UID). Raises RunbookError where that cannot be."""
        return {}

    def permit(self, run: Run, command: Command) -> None:
        """Asked before what changes something beside the cluster. Raises RunbookError when that would be somebody else's."""

    def environment(self, run: Run) -> dict[str, str]:
        """Variables that the target's programs need, for children and for the `export` line."""
        return {}

    @abstractmethod
    def observe(self, run: Run) -> ClusterState:
        """The cluster as it is now; an absent one is a state, not an error."""

    def starting(self, run: Run) -> None:
        """Asked while a cluster comes up. Raises RunbookError when it can no longer succeed."""

    def estimate(self, cluster: ClusterConfig, hours: float) -> Any:
        """What the cluster costs for so long, as something with a `table` and `to_json`; None where it costs nothing."""
        return None

    def spent(self, folder: Path) -> Spent | None:
        """What a run in this folder has cost; None where it cost nothing."""
        return None

    def begun(self, folder: Path) -> bool:
        """Whether a run in this folder has been agreed to."""
        return False

    def agree(self, cluster: ClusterConfig, wishes: Wishes) -> None:
        """Before anything costs money. Raises ConfigError when nobody has agreed to it."""

    def keep(self, folder: Path, wishes: Wishes) -> None:
        """Before anything is written into a run that is there. Raises ConfigError where it cannot become what is wished for."""

    def try_account(self, run: Run, name: str, wishes: Wishes, blocked: str = "") -> Plan:
        """A throw-away cluster made and deleted again, where there is an account to try. `blocked`: why none is made."""
        return run.plan((), "not asked for" if not name else f"target {self.name} has no account to try")

    @abstractmethod
    def create(self, run: Run, state: ClusterState, wishes: Wishes) -> Plan:
        """What is missing between `state` and cluster.yaml, as commands."""

    def grant(self, run: Run) -> Plan:
        """What is missing of a user with role A, and no more rights, for the stages that need no more (ROLE_A)."""
        return run.plan((), "your own: every stage asks as you; how little 03 and 06 to 08 need stands in manifests/rbac/")

    def created(self, run: Run) -> None:
        """Called when the cluster is verified: what must be known after it is gone goes into the journal."""

    def admit(self, run: Run) -> None:
        """Asked before each stage that works in the cluster. Raises RunbookError when its time or its budget is over."""

    def meter(self, run: Run) -> str:
        """What a status line says besides: the cost so far. Quick: it is asked twice a second."""
        return ""

    def following(self, run: Run, command: Command, live: Live) -> AbstractContextManager[object]:
        """Held while a command runs: tells `live` what the command does not."""
        return nullcontext()

    def explain(self, run: Run, result: Result) -> RunbookError | None:
        """Why a command of ours failed, where the target can tell; None: what it printed says it all."""
        return None

    @abstractmethod
    def delete(self, run: Run, state: ClusterState) -> Plan:
        """What ends the cluster."""

    def sweep(self, run: Run) -> Plan:
        """What is left after `delete`, found afresh, and ours."""
        return run.plan((), "nothing to sweep: the plan above took all there was")

    @abstractmethod
    def left(self, run: Run) -> list[Check]:
        """After a teardown: is anything of the run still there?"""

    def stand_in_chart(self, run: Run) -> Path | None:
        """A chart to use where NVIDIA's repository cannot be reached, None where only the real one will do."""
        return None


def get(name: str) -> Target:
    """The target of that name. Raises ConfigError for a name we do not know."""
    if name == "rehearsal":
        from gpurunbook.targets.rehearsal.cluster import Rehearsal
        return Rehearsal()
    if name == "eks":
        from gpurunbook.targets.eks.target import Eks
        return Eks()
    if name == "existing":
        from gpurunbook.targets.existing import Existing
        return Existing()
    raise ConfigError(f"unknown target {name[:60]!r}", where="--target", next=f"one of: {', '.join(NAMES)}")
