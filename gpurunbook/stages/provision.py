"""02: from cluster.yaml to a control plane that answers and nodes that are Ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurunbook import show
from gpurunbook.errors import CommandFailed
from gpurunbook.plan import Check, Plan, State
from gpurunbook.stages import nodes
from gpurunbook.targets import ClusterState, Wishes

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

__all__ = ["Wishes", "apply", "grant", "observe", "plan", "table", "verify", "wait"]
DEFAULT = Wishes()
STATES: dict[str, State] = {"running": "pass", "degraded": "warn"}
"""What a part's state means for the check of it; any other fails."""


def observe(run: Run) -> ClusterState:
    return run.target.observe(run)


def table(state: ClusterState) -> show.Table:
    rows = [(part.name, part.state, part.evidence) for part in state.parts]
    rows.append(("API server", "ready" if state.answers else "no answer", ""))
    rows += [(name, "registered", "") for name in state.nodes] + [(name, "absent", "") for name in state.missing]
    good = ("running", "degraded", "ready", "registered")
    return show.Table(("part", "state", "evidence"), rows, states=["pass" if r[1] in good else "unknown" for r in rows])


def plan(run: Run, state: ClusterState, wishes: Wishes = DEFAULT) -> Plan:
    return run.target.create(run, state, wishes)


def apply(run: Run, plan: Plan, wishes: Wishes = DEFAULT, *, retries: int = 0) -> None:
    """Run the plan. Where it fails for want of capacity, and AWS names zones that have some, plan again and run that.

    Raises:
        CommandFailed: of another kind, or after `retries` more attempts. What is there stays; run the notebook again.
    """
    for attempt in range(retries + 1):
        try:
            run.apply(plan)
            return
        except CommandFailed as error:
            if not error.again or attempt == retries:
                raise
            run.admit()
            show.show(show.Box(f"attempt {attempt + 1} of {retries + 1} failed; planning again", tuple(str(error).splitlines()),
                               "warn"))
            plan = run.target.create(run, observe(run), wishes)
            show.show(plan)


def wait(run: Run) -> float:
    """Wait for every node of cluster.yaml to be Ready. Returns seconds."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    wanted = sum(group.desired for group in run.cluster.groups)

    def blocker() -> str:
        run.target.starting(run)
        if not run.kubeconfig.exists():
            return "no kubeconfig yet"
        try:
            ready = [node.name for node in nodes.observe(run) if node.ready]
        except (ApiException, HTTPError) as error:
            return f"the API server does not answer yet ({type(error).__name__})"
        return "" if len(ready) >= wanted else f"{len(ready)} of {wanted} nodes Ready"

    return run.wait("all nodes Ready", blocker, limit=run.target.wait_limit(run), usual=(1, 3),
                    next="kubectl describe nodes; gpurunbook status")


def grant(run: Run) -> Plan:
    """A user for the stages that need few rights, where the target makes one; asked when the nodes are Ready."""
    return run.target.grant(run)


def verify(run: Run) -> list[Check]:
    state = observe(run)
    run.check_identity()
    if state.complete:
        run.target.created(run)
    granted = grant(run)
    return [
        Check("the API server is ready", "pass" if state.answers else "fail", str(run.kubeconfig), "gpurunbook status"),
        *[Check(part.name, STATES.get(part.state, "fail"), part.evidence or part.state, "run this stage again")
          for part in state.parts],
        Check("every node of cluster.yaml is there", "fail" if state.missing else "pass",
              ", ".join(state.missing) or f"{len(state.nodes)} nodes", "run this stage again"),
        Check("whose rights 03 and 06 to 08 use", "fail" if granted else "pass", granted.reason,
              "run this stage again"),
    ]
