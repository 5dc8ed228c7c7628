"""04: the taint that a cloud controller should have removed: why it is still there, and whether anybody is coming.

A controller that is alive and only slow is waited for. Stuck beyond the limit, or nobody there: the taint is removed by
hand, with the reason in the journal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from gpurunbook import show
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import nodes
from gpurunbook.stages.nodes import Node

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"
YOUNG_SECONDS = 60
"""How long a cloud controller may take on a real cluster: normally it is done within seconds."""
LEASE, LEASE_NAMESPACE = "cloud-controller-manager", "kube-system"
"""Every cloud controller elects its leader by this lease; on EKS, where it runs out of sight, the lease is seen all the same."""
MARGIN_SECONDS = 30
"""What a lease may be late: another replica takes over, and clocks differ."""
ZONE, MARK = "topology.kubernetes.io/zone", "k8s.io/cloud-provider-aws"
"""Labels that a cloud controller writes, the second only AWS's (seen in terraform-aws-eks#2754)."""
LATER = "without a cloud controller load balancers and volumes fail later (k0rdent/kcm#290)"


@dataclass(frozen=True)
class Lease:
    """The controller's lease: fresh, old, absent (nothing tells), or unknown (it may not be read); and what was seen."""

    state: Literal["fresh", "old", "absent", "unknown"]
    seen: str


@dataclass(frozen=True)
class Reason:
    """Why the taint is there, and what follows.

    Attributes:
        cause: taint-controller-alive or taint-no-controller where it is to be removed, "" where not.
        left: nodes whose controller may still come; `removed`: those to be freed by hand.
        evidence: what was asked, what was seen, what it tells.
        dead: nothing shows a controller at work, and work of one is missing.
    """

    cause: str
    sentence: str
    left: tuple[Node, ...] = ()
    removed: tuple[Node, ...] = ()
    evidence: tuple[tuple[str, str, str], ...] = ()
    dead: bool = False

    @property
    def table(self) -> show.Table:
        return show.Table(("asked", "seen", "tells"), self.evidence, self.sentence)


def observe(run: Run) -> list[Node]:
    """The nodes of the GPU group."""
    return [n for n in nodes.observe(run) if n.group == run.cluster.gpu_group.name]


def stuck(found: Sequence[Node]) -> list[Node]:
    """Those that carry the taint."""
    return [n for n in found if any(t.startswith(f"{UNINITIALIZED}:") for t in n.taints)]


def limit(run: Run) -> float:
    """Seconds from a node's making after which nobody is waited for."""
    return YOUNG_SECONDS * run.target.patience(run)


# Why

def reason(run: Run, found: Sequence[Node]) -> Reason:
    """Ask the cluster why the nodes of the GPU group still carry the taint. Asks nothing where none does."""
    held = stuck(found)
    if not held:
        return Reason("", "no GPU node carries the taint")
    now, items = datetime.now(UTC), run.core.list_node(_request_timeout=30).items
    ages = {i.metadata.name: (now - i.metadata.creation_timestamp).total_seconds() for i in items}
    names = {n.name for n in held}
    others = [i.metadata.labels or {} for i in items if i.metadata.name not in names]
    return judge(found, others, ages, lease(run), limit=limit(run))


def lease(run: Run) -> Lease:
    """The cloud controller's lease. Raises RunbookError when the API server answers neither with it nor with a refusal."""
    from kubernetes.client import ApiException
    try:
        items = run.client("CoordinationV1Api").list_namespaced_lease(
            LEASE_NAMESPACE, field_selector=f"metadata.name={LEASE}", _request_timeout=30).items
    except ApiException as error:
        if error.status == 403:
            return Lease("unknown", "it may not be read")
        raise RunbookError(f"the lease {LEASE} cannot be read: {error.reason}", where=f"leases in {LEASE_NAMESPACE}",
                           next=f"kubectl get lease {LEASE} -n {LEASE_NAMESPACE}") from error
    return freshness(items[0].spec, datetime.now(UTC)) if items else Lease("absent", "there is none")


def freshness(spec: Any, now: datetime) -> Lease:
    """A lease by its spec (holder_identity, lease_duration_seconds, renew_time)."""
    if spec.renew_time is None:
        return Lease("old", "it was never renewed")
    age, lasts = (now - spec.renew_time).total_seconds(), spec.lease_duration_seconds or 15
    seen = f"renewed {max(age, 0):.0f} s ago by {spec.holder_identity or 'nobody'}, lasts {lasts} s"
    return Lease("fresh" if spec.holder_identity and age <= lasts + MARGIN_SECONDS else "old", seen)


def judge(found: Sequence[Node], others: Sequence[Mapping[str, str]], ages: Mapping[str, float], held_by: Lease, *,
          limit: float) -> Reason:
    """Wait or remove, node by node; at least one of `found` carries the taint.

    Args:
        found: the GPU group's nodes.
        others: labels of the cluster's other nodes.
        ages: seconds since each node was made; one that is missing counts as old.
        limit: in seconds.
    """
    held, alive = stuck(found), held_by.state == "fresh"
    marked = sum(MARK in labels for labels in others)
    # Provider ID, zone and taint are one write of the controller's: who has both and the taint gets no visit any more.
    left = tuple(n for n in held if ages.get(n.name, math.inf) < limit and held_by.state != "old" and (alive or _unplaced(n)))
    removed = tuple(n for n in held if n not in left)
    missing = [n for n in held if _unplaced(n)]
    evidence = (
        (f"lease {LEASE_NAMESPACE}/{LEASE}", held_by.seen,
         {"fresh": "a controller is alive", "old": "no controller is alive", "absent": "nothing: not every controller shows one",
          "unknown": "nothing"}[held_by.state]),
        ("providerID and zone of the nodes with the taint", f"{len(held) - len(missing)} of {len(held)} have both",
         "no controller has finished with the rest" if missing else "somebody has initialized them, and the taint stayed"),
        ("nodes of the GPU group", f"{len(found) - len(held)} of {len(found)} are free of the taint",
         "a controller, or a person, was at work here" if len(found) > len(held) else "nothing"),
        ("other nodes of the cluster",
         f"{sum(ZONE in labels for labels in others)} of {len(others)} have a zone, {marked} the mark of AWS's controller",
         "AWS's controller was at work here" if marked else "AWS's controller left no mark"),
        ("age of the nodes with the taint", f"{_ages(held, ages)}; limit {limit:g} s",
         "a controller may still come" if left else "nobody is waited for"))
    if not removed:
        return Reason("", _left(left, limit), left, (), evidence)
    told = {"fresh": f"the cloud controller is alive, and has not taken it within {limit:g} s",
            "old": f"no cloud controller is alive: its lease was {held_by.seen}",
            "absent": "no cloud controller is to be seen: it has no lease here",
            "unknown": "whether there is a cloud controller is unknown: its lease may not be read"}[held_by.state]
    dead = not alive and (held_by.state == "old" or bool(missing))
    told += ("; providerID or zone is missing" if missing else "; providerID and zone are set") + (f"; {LATER}" if dead else "")
    return Reason("taint-controller-alive" if alive else "taint-no-controller", told, left, removed, evidence, dead)


def _unplaced(node: Node) -> bool:
    return not (node.provider_id and node.zone)


def _ages(held: Sequence[Node], ages: Mapping[str, float]) -> str:
    known = sorted(ages[n.name] for n in held if n.name in ages)
    return f"{known[0]:.0f} to {known[-1]:.0f} s" if known[1:] else f"{known[0]:.0f} s" if known else "unknown"


def _left(left: Sequence[Node], limit: float) -> str:
    return f"left to the cloud controller, since younger than {limit:g} s: {', '.join(n.name for n in left)}" if left else ""


def young(run: Run, held: Sequence[Node]) -> list[Node]:
    """Those of the stuck nodes that are not stuck yet: their cloud controller may still come."""
    return list(reason(run, held).left)


# What to do

def wait(run: Run, found: Sequence[Node]) -> float:
    """Wait for the controller of the nodes that are left to it, until they are free or too old. Returns seconds."""
    names = {n.name for n in young(run, found)}

    def blocker() -> str:
        return _left([n for n in young(run, observe(run)) if n.name in names], limit(run))

    return run.wait("the cloud controller takes the taint", blocker, limit=limit(run) + MARGIN_SECONDS, usual=(1, 10),
                    next=f"kubectl get lease {LEASE} -n {LEASE_NAMESPACE}; kubectl describe nodes") if names else 0.0


def plan(run: Run, found: list[Node]) -> Plan:
    """Remove the taint where nobody is coming to: by the group's selector where that is all of them, else by name."""
    why, group = reason(run, found), run.cluster.gpu_group
    said, removed = _left(why.left, limit(run)), list(why.removed)
    if not removed:
        return run.plan((), said or "no GPU node carries the taint: nothing to remove")
    if run.stage == "taint":
        run.journal.append("taint", stage=run.stage, cause=why.cause, reason=why.sentence, dead=why.dead,
                           nodes=[n.name for n in removed], evidence=[list(row) for row in why.evidence])
    whole = removed == found and all(group.picks.items() <= n.labels.items() for n in found)
    command = (run.kubectl.untaint_nodes(UNINITIALIZED, selector=group.selector) if whole else
               run.kubectl.untaint_nodes(UNINITIALIZED, names=[n.name for n in removed]))
    notes = [show.Box("nothing shows a cloud controller at work", (LATER,), "warn")] if why.dead else []
    return run.plan([command], f"{len(removed)} GPU node(s) still carry {UNINITIALIZED}: the scheduler puts nothing there, "
                               f"neither the operator's pods nor the model's; {why.sentence}" + (f"; {said}" if said else ""),
                    notes=notes)


def verify(run: Run) -> list[Check]:
    found = observe(run)
    held = stuck(found)
    left = young(run, held)
    other = sorted({t for n in found for t in n.taints} - {f"{UNINITIALIZED}:NoSchedule"})
    names = " ".join(n.name for n in held)
    removal = run.journal.last("taint")
    return [Check("no GPU node is uninitialized", "pass" if not held else "warn" if held == left else "fail",
                  (f"{names} (new: left to the cloud controller)" if held == left else names) if held else
                  f"{len(found)} GPU node(s) free of it",
                  "in a minute, run this stage again" if held == left else f"kubectl taint nodes {names} {UNINITIALIZED}-"),
            Check("other taints on GPU nodes", "warn" if other else "pass", ", ".join(other) or "none",
                  "a pod needs a toleration for each: kubectl describe node"),
            *([Check("a cloud controller is at work", "warn", removal["reason"],
                     f"ask whoever runs the control plane; kubectl get lease {LEASE} -n {LEASE_NAMESPACE}")]
              if removal and removal["dead"] else [])]
