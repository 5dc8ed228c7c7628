"""The lower rungs: the node joins, is Ready, and is let go by the cloud controller. Pure rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from gpurunbook.readiness.rungs import Step
from gpurunbook.readiness.snapshot import Object, condition, labels, selects, when
from gpurunbook.readiness.view import OVER, Below, Here, became, latest, made, name, namespace, phase
from gpurunbook.stages.taint import UNINITIALIZED

FLAP_SECONDS = 600
ZONE = "topology.kubernetes.io/zone"


def joined(here: Here, below: Below) -> Step:
    return here.done("joined", made(here.node), f"the API server has had the node since {_short(made(here.node))}")


def is_ready(here: Here, below: Below) -> Step:
    node, found = here.node, condition(here.node, "Ready")
    since = became(node, "Ready")
    if changes := _flaps(here):
        return here.trouble("ready", "node-flapping", f"Ready changed {changes} times within ten minutes; now "
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
        return here.done("ready", since, "Ready; cordoned: new pods stay away (kubectl uncordon gives it back)")
    return here.done("ready", since, str(found.get("message") or "condition Ready is True"))


def _flaps(here: Here) -> int:
    """How often Ready changed in the last ten minutes, 0 when less than twice. A new node's first NodeReady is no change."""
    view, began = here.view, made(here.node)
    # An event outlives the node it is about; one that was made anew under the same name has not flapped.
    down = [e for e in view.events("Node", here.node, "NodeNotReady") if not began or ((last := _last(e)) and last > began)]
    first = min((t for e in down if (t := _first(e))), default=None)
    if first is None:
        return 0
    back = [e for e in view.events("Node", here.node, "NodeReady") if (last := _last(e)) and last >= first]
    changes = sum(_recent(event, view.now) for event in [*down, *back])
    return changes if changes >= 2 and any(_recent(event, view.now) for event in down) else 0


def _recent(event: Object, now: datetime) -> int:
    """How many of an event's occurrences lie in the last ten minutes: all that fit in between, evenly spread."""
    first, last, window = _first(event), _last(event), timedelta(seconds=FLAP_SECONDS)
    if not first or not last or now - last > window:
        return 0
    count = max(1, int(event.get("count") or (event.get("series") or {}).get("count") or 1))
    if now - first <= window or last <= first:
        return count
    return max(1, round(count * (window - (now - last)) / (last - first)))


def _first(event: Object) -> datetime | None:
    return when(event.get("firstTimestamp")) or when(event.get("eventTime")) or _last(event)


def _last(event: Object) -> datetime | None:
    return (when(event.get("lastTimestamp")) or when((event.get("series") or {}).get("lastObservedTime"))
            or when(event.get("eventTime")))


def _blocked(here: Here) -> tuple[Object, Object] | None:
    """A budget that allows nothing, and a pod on the node that a drain would evict."""
    pods = [p for p in here.pods if phase(p) not in OVER and not _daemon(p)]
    for budget in here.view.snapshot.budgets:
        status = budget.get("status") or {}
        if status.get("disruptionsAllowed") != 0:
            continue
        for pod in pods:
            if namespace(pod) == namespace(budget) and selects(budget.get("spec", {}).get("selector") or {}, labels(pod)):
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
    spec = lease.get("spec") or {}
    renewed = when(spec.get("renewTime"))
    return renewed is not None and now - renewed <= timedelta(seconds=float(spec.get("leaseDurationSeconds") or 15))


def _short(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z") if time else "a time that is not told"
