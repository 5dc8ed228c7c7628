"""Of a cluster that is not ours: is anything of the run's still there, and is everything of others'?"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from gpurunbook.deployment import RUN_LABEL
from gpurunbook.plan import Check
from gpurunbook.stages import crds, gpu_operator, model, objects, pulling
from gpurunbook.targets import adoption

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

IMAGE_STAYS = "an image that was pulled stays on its node until the kubelet needs the room"


def mine(run: Run) -> list[Check]:
    """Is anything there that this run made?"""
    pinned = gpu_operator.pin(run)
    namespace, release, deployed = pinned["namespace"], pinned["release"], model.made(run)
    checks = [Check("the run's Deployment is gone", "fail" if deployed else "pass", deployed or "none with this run's label",
                    f"kubectl delete deployment {deployed} -n {objects.NAMESPACE}")]
    puller, smoke = pulling.made(run), gpu_operator.smoke_left(run)
    beside = [*([f"daemonset/{puller}"] if puller else []), *smoke]
    said = [", ".join(beside) or "none", *([f"DaemonSets: {objects.HIDDEN}"] if puller is None else []),
            *([IMAGE_STAYS] if any(" apply " in line for line in _tried(run)) else [])]
    checks.append(Check("its pre-pull and its smoke pods are gone", "fail" if beside else "unknown" if puller is None else "pass",
                        "; ".join(said), f"kubectl delete {' '.join(beside)} -n {objects.NAMESPACE}" if beside else
                        f"kubectl get daemonsets -n {objects.NAMESPACE} -l {RUN_LABEL}={run.id}"))
    if (found := gpu_operator.before(run)) and gpu_operator.made(run):
        kept = run.core.list_namespaced_secret(namespace, label_selector=f"owner=helm,name={release}",
                                               _request_timeout=adoption.SECONDS).items
        checks.append(Check("the run's release is gone", "fail" if kept else "pass", f"{release}: {len(kept)} revisions",
                            f"helm uninstall {release} -n {namespace}"))
        known = found["definitions"]
        new = sorted(set(crds.names(run)) - set(known)) if known is not None else []
        checks.append(Check("the chart's CRDs are gone", "unknown" if known is None else "warn" if new else "pass",
                            "they may not be listed" if known is None else ", ".join(new) or "none",
                            f"if nobody uses them: kubectl delete crd {' '.join(new)}"))
    if gpu_operator.made_namespace(run):
        there = namespace in _namespaces(run)
        others = adoption.beside(run.client, namespace, release) if there else []
        checks.append(Check("the run's namespace is gone", "pass" if not there else "warn" if others else "fail",
                            f"{namespace}: others use it: {', '.join(others)}" if others else namespace,
                            f"kubectl delete namespace {namespace}" + (", when nobody uses it any more" if others else "")))
    return checks


def theirs(run: Run) -> Check:
    """Is everything there that was there when the teardown began, and was not the run's, and every CRD of before 05?

    What none of the run's commands could have taken is somebody's own doing: a warning.
    """
    name, known, found = "what others have in the cluster is there", run.journal.last("foreign"), gpu_operator.before(run)
    before = found["definitions"] or () if found else ()
    lost = [f"CRD {crd}" for crd in sorted(set(before) - set(crds.names(run)))] if before else []
    ours = list(lost) if gpu_operator.made(run) else []
    if known:
        own = {gpu_operator.pin(run)["namespace"]} if gpu_operator.made_namespace(run) else set()
        gone = [f"Namespace {one}" for one in sorted(set(known["namespaces"]) - own - set(_namespaces(run)))]
        gone += sorted(set(known["workloads"]) - set(_foreign(run)))
        lost += gone
        ours += [one for one in gone if _within_reach(run, one)]
    if lost:
        whose = "" if ours else "; none of the run's commands could have taken it"
        return Check(name, "fail" if ours else "warn", f"gone since the run began: {', '.join(lost)}{whose}",
                     f"look who did it: {run.journal.path}")
    if known is None:
        return Check(name, "unknown", "it was not counted before", "")
    return Check(name, "pass", f"{len(known['namespaces'])} namespaces, {len(known['workloads'])} workloads, {len(before)} CRDs")


def _within_reach(run: Run, what: str) -> bool:
    """Whether a command of the teardown could have taken a "Namespace NAME" or "KIND NAMESPACE/NAME"."""
    namespace = gpu_operator.pin(run)["namespace"]
    kind, _, name = what.partition(" ")
    if what == f"Deployment {objects.NAMESPACE}/{model.manifest(run).name}":
        return True
    return gpu_operator.made(run) and (name if kind == "Namespace" else name.partition("/")[0]) == namespace


def count(run: Run) -> None:
    """Note what others have, so that it can be compared afterwards; one who may not see it all goes without."""
    from kubernetes.client import ApiException
    with suppress(ApiException):
        run.journal.append("foreign", namespaces=_namespaces(run), workloads=_foreign(run))


def _namespaces(run: Run) -> list[str]:
    return sorted(item.metadata.name for item in run.core.list_namespace(_request_timeout=adoption.SECONDS).items)


def _foreign(run: Run) -> list[str]:
    pinned = gpu_operator.pin(run)
    release = pinned["release"] if gpu_operator.made(run) else ""
    return adoption.foreign(adoption.workloads(run.client), run.id, pinned["namespace"], release)


def unseen(run: Run, why: str) -> Check:
    """Where the cluster cannot be asked: what nobody could look at may be there, unless the run never began to change any."""
    tried = _tried(run)
    if not tried:
        return Check("the run made nothing in the cluster", "pass", "04 to 06 began no command that changes anything")
    pinned, label = gpu_operator.pin(run), f"-l {RUN_LABEL}={run.id}"
    looks = [f"kubectl get deployments,daemonsets,pods,configmaps -n {objects.NAMESPACE} {label}"]
    if gpu_operator.made(run):
        looks.append(f"kubectl get secrets -n {pinned['namespace']} -l owner=helm,name={pinned['release']}")
    if gpu_operator.made_namespace(run):
        looks.append(f"kubectl get namespace {pinned['namespace']}")
    begun = "; ".join(" ".join(line.split()[:4]) for line in tried)
    return Check("what the run made is gone from the cluster", "fail", f"it cannot be asked: {why}; begun: {begun}",
                 f"with a kubeconfig of yours: {'; '.join(looks)}")


def _tried(run: Run) -> list[str]:
    """What 04 to 06 began to change since the run was last torn down; one that was killed may have been heard all the same."""
    tried: list[str] = []
    for r in run.journal.records():
        if r["kind"] == "run" and r["state"] == "finished":
            tried = []
        if r["kind"] == "intent" and r["changes"] and r["stage"] in ("taint", "gpu_operator", "model"):
            tried.append(r["shown"])
    return list(dict.fromkeys(tried))
