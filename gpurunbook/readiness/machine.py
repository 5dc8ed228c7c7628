"""The lower rungs: the node joins, is Ready, and is let go by the cloud controller. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace

from gpurunbook.readiness.objects import OVER, became, latest, made, name, namespace, phase, when_seen
from gpurunbook.readiness.rungs import Step
from gpurunbook.readiness.snapshot import Object, condition, labels, selects, when
from gpurunbook.readiness.view import Below, Here
from gpurunbook.stages.taint import UNINITIALIZED, freshness

FLAP_SECONDS = 600
LATE = timedelta(seconds=5)
"""How long after a change an event of it may be written."""
ZONE = "topology.kubernetes.io/zone"


def joined(here: Here, below: Below) -> Step:
    return here.done("joined", made(here.node), f"the API server has had the node since {_short(made(here.node))}")


def is_ready(here: Here, below: Below) -> Step:
    node, found = here.node, condition(here.node, "Ready")
    since = became(node, "Ready")
    if falls := _falls(here, since, found.get("status") == "True"):
        return here.trouble("ready", "node-flapping", f"not Ready {falls} times within ten minutes; now Ready is "
                            f"{found.get('status')}: {found.get('message', '')}", since)
    if found.get("status") != "True":
        said = ": ".join(filter(None, (str(found.get("reason") or ""), str(found.get("message") or ""))))
        evidence = f"Ready is {found.get('status', 'not set')}: {said or 'the kubelet has not said anything yet'}"
        if here.view.late("ready", latest(since, made(node))):
            return here.trouble("ready", "node-not-ready", evidence, since)
        return here.waiting("ready", since, evidence)
    if node.get("spec", {}).get("unschedulable"):
        if blocked := _blocked(here):
            budget, pod = blocked
            return here.trouble("ready", "pdb-blocks-drain", f"the node is cordoned; PodDisruptionBudget {namespace(budget)}/"
                                f"{name(budget)} allows 0 disruptions and selects {name(pod)} on it", since, pod,
                                name=name(budget))
        return here.done("ready", since, "Ready; cordoned: new pods stay away (kubectl uncordon gives it back)"
                         + _unread(here, "events", "budgets"))
    return here.done("ready", since, str(found.get("message") or "condition Ready is True") + _unread(here, "events"))


def _unread(here: Here, *kinds: str) -> str:
    """What was not looked at, since it may not be read."""
    unread = here.unknown("ready", *kinds)
    return f"; {unread.evidence}" if unread else ""


def _falls(here: Here, since: datetime | None, is_up: bool) -> int:
    """How often the node was lost in the last ten minutes, 0 when less than twice: a kubelet may be restarted once.

    An event outlives the node it is about: what was before this one's making is another's.
    """
    view, began = here.view, made(here.node)
    start = max(filter(None, (view.now - timedelta(seconds=FLAP_SECONDS), began)))
    events = view.events("Node", here.node, "NodeNotReady")
    falls = sum(_after(event, start) for event in events)
    told = latest(*map(when_seen, events))
    if not is_up and falls and told and since and since - told > LATE:  # lost again, and nobody has written of it yet
        falls += 1
    return falls if falls >= 2 else 0


def _after(event: Object, start: datetime) -> int:
    """How many of an event's occurrences are later than that: all that fit in, evenly spread."""
    first, last = _first(event), when_seen(event)
    if not first or not last or last < start:
        return 0
    count = max(1, int(event.get("count") or (event.get("series") or {}).get("count") or 1))
    return count if first >= start or last <= first else max(1, round(count * (last - start) / (last - first)))


def _first(event: Object) -> datetime | None:
    return when(event.get("firstTimestamp")) or when(event.get("eventTime")) or when_seen(event)


def _blocked(here: Here) -> tuple[Object, Object] | None:
    """A budget that allows nothing, and a pod on the node that a drain would evict."""
    pods = [p for p in here.pods if phase(p) not in OVER and not _daemon(p)]
    for budget in here.view.snapshot.budgets:
        status = budget.get("status") or {}
        if status.get("disruptionsAllowed") != 0:
            continue
        for pod in pods:
            if namespace(pod) == namespace(budget) and selects(budget.get("spec", {}).get("selector"), labels(pod)):
                return budget, pod
    return None


def _daemon(pod: Object) -> bool:
    return any(ref.get("kind") in ("DaemonSet", "Node") for ref in pod.get("metadata", {}).get("ownerReferences") or [])


def initialized(here: Here, below: Below) -> Step:
    node = here.node
    provider, zone = node.get("spec", {}).get("providerID", ""), labels(node).get(ZONE, "")
    place = f"providerID {provider or 'not set'}, zone {zone or 'not set'}"
    taint: Object = next((t for t in _taints(node) if t.get("key") == UNINITIALIZED), {})
    if not taint:
        return here.done("initialized", None, f"no taint; {place}")
    evidence = f"taint {UNINITIALIZED} is there; {place}"
    since = latest(when(taint.get("timeAdded"))) or made(node)
    if not here.view.late("initialized", since):
        return here.waiting("initialized", since, evidence)
    if unread := here.unknown("initialized", "leases"):
        return Step("initialized", "unknown", since, f"{evidence}; {unread.evidence}")
    lease = next((item for item in here.view.snapshot.leases if _fresh(item, here.view.now)), None)
    if lease:
        said = f"lease {namespace(lease)}/{name(lease)} renewed {_short(when(lease['spec'].get('renewTime')))}"
        return here.trouble("initialized", "taint-controller-alive", f"{evidence}; {said}", since)
    return here.trouble("initialized", "taint-no-controller", f"{evidence}; no cloud controller renews a lease", since)


def _taints(node: Object) -> Sequence[Object]:
    found: Sequence[Object] = node.get("spec", {}).get("taints") or []
    return found


def _fresh(lease: Object, now: datetime) -> bool:
    """As 04 judges it."""
    spec = lease.get("spec") or {}
    return freshness(SimpleNamespace(
        renew_time=when(spec.get("renewTime")), lease_duration_seconds=spec.get("leaseDurationSeconds"),
        holder_identity=spec.get("holderIdentity")), now).state == "fresh"


def _short(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z") if time else "a time that is not told"
