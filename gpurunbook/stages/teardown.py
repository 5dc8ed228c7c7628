"""09: everything that the run made is taken away again, from the inside out, and that is proved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gpurunbook.command import Command
from gpurunbook.plan import Check, Plan
from gpurunbook.programs.helm import Release, releases
from gpurunbook.programs.kubectl import Kubectl
from gpurunbook.stages import gpu_operator, model, objects, pulling
from gpurunbook.targets import ClusterState

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

WORKLOADS = "deployment,statefulset,daemonset,job,cronjob,replicaset,pod"
OTHERWISE = "the cluster goes all the same, and the sweep looks for what this would have deleted"
"""A controller that is broken must not keep a cluster alive that costs money."""
GONE_SECONDS = 300.0
"""How long a controller may take to delete what it made in the cloud: a load balancer, a volume."""


@dataclass(frozen=True)
class Facts:
    """What there is to take away.

    Attributes:
        release: the operator's, if it is the run's to remove.
        deployed: the model is; puller: name of the DaemonSet that pulls its image, if it is still there.
        smoke: the run's CUDA smoke pods and the ConfigMap with their program, as KIND/NAME.
        exposed: (kind, namespace, name) of Services and Ingresses that have a load balancer outside the cluster.
        claims: (namespace, name) of volume claims; volumes: names of the PersistentVolumes that their driver deletes.
    """

    state: ClusterState
    release: Release | None
    deployed: bool
    exposed: tuple[tuple[str, str, str], ...] = ()
    claims: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    puller: str = ""
    smoke: tuple[str, ...] = ()


def observe(run: Run) -> Facts:
    state = run.target.observe(run)
    if not state.answers:
        return Facts(state, None, False)
    pinned = gpu_operator.pin(run)
    found = {r.name: r for r in releases(run.ask(run.helm.list(pinned["namespace"])).stdout)}
    deployed, puller, smoke = bool(model.made(run)), pulling.made(run) or "", tuple(gpu_operator.smoke_left(run))
    if not run.target.ours:
        release = found.get(pinned["release"]) if gpu_operator.made(run) else None
        return Facts(state, release, deployed, puller=puller, smoke=smoke)
    services = run.core.list_service_for_all_namespaces(_request_timeout=30).items
    ingresses = run.client("NetworkingV1Api").list_ingress_for_all_namespaces(_request_timeout=30).items
    exposed = [("service", s) for s in services if s.spec.type == "LoadBalancer"] + [("ingress", i) for i in ingresses]
    claims = run.core.list_persistent_volume_claim_for_all_namespaces(_request_timeout=30).items
    volumes = run.core.list_persistent_volume(_request_timeout=30).items
    return Facts(state, found.get(pinned["release"]), deployed,
                 tuple((kind, item.metadata.namespace, item.metadata.name) for kind, item in exposed),
                 tuple((c.metadata.namespace, c.metadata.name) for c in claims),
                 tuple(v.metadata.name for v in volumes if v.spec.persistent_volume_reclaim_policy == "Delete"), puller, smoke)


def plan(run: Run, facts: Facts) -> Plan:
    """Inside out: load balancers and volumes while their controllers live, the pods, the operator, then the cluster."""
    commands = outside(run.kubectl, facts) if facts.state.answers else []
    if facts.deployed:
        commands.append(run.kubectl.delete("deployment", model.manifest(run).name))
    if facts.puller:
        commands.append(run.kubectl.delete("daemonset", facts.puller))
    if facts.smoke:
        commands.append(run.kubectl("delete", *facts.smoke, "-n", objects.NAMESPACE, "--ignore-not-found",
                                    why="remove the smoke pods and their program", limit=120))
    if facts.release:
        commands.append(run.helm.uninstall(facts.release.name, gpu_operator.pin(run)["namespace"]))
    whole = run.target.delete(run, facts.state)
    commands += whole.commands
    return run.plan(commands, whole.reason, elsewhere=whole.elsewhere)


def outside(kubectl: Kubectl, facts: Facts) -> list[Command]:
    """What makes the cluster's controllers delete what they made outside of it."""
    commands = [kubectl.delete(kind, name, namespace=namespace, limit=GONE_SECONDS) for kind, namespace, name in facts.exposed]
    for namespace in dict.fromkeys(namespace for namespace, _ in facts.claims):
        # A claim stays while a pod uses it.
        commands.append(kubectl("delete", WORKLOADS, "--all", "-n", namespace, limit=GONE_SECONDS,
                                why=f"end what uses the volumes of namespace {namespace}"))
        commands.append(kubectl("delete", "pvc", "--all", "-n", namespace, limit=GONE_SECONDS,
                                why=f"release the volumes of namespace {namespace}"))
    if facts.volumes:
        commands.append(kubectl("wait", "--for=delete", *(f"pv/{name}" for name in facts.volumes), f"--timeout={GONE_SECONDS:g}s",
                                why="wait until the storage driver has deleted them", limit=GONE_SECONDS + 10, changes=False))
    return [replace(command, otherwise=OTHERWISE) for command in commands]


def sweep(run: Run) -> Plan:
    """What outlived the cluster and is the run's."""
    return run.target.sweep(run)


def verify(run: Run) -> list[Check]:
    checks = run.target.left(run)
    if not any(check.state == "fail" for check in checks):
        run.journal.append("run", state="finished")
    return checks
