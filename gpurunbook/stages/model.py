"""06: the Deployment of the model's image, from the manifest to a running container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from gpurunbook import show
from gpurunbook.command import failure
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check, Plan

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

NAMESPACE = "default"


@dataclass(frozen=True)
class Deployment:
    """The manifest's own words: names, label, container, image, and the node label it selects (KEY=VALUE)."""

    name: str
    label: str
    container: str
    image: str
    selector: str


@dataclass(frozen=True)
class Pod:
    """The model's pod. `why` says what it waits for; empty when it is ready."""

    name: str
    phase: str
    node: str
    ready: bool
    why: str
    restarts: int


@dataclass(frozen=True)
class Facts:
    """`differs`: the cluster does not have the Deployment as the manifest says."""

    deployment: Deployment
    differs: bool
    pods: tuple[Pod, ...]

    @property
    def table(self) -> show.Table:
        return show.Table(("pod", "phase", "node", "restarts", "waits for"),
                          [(p.name, p.phase, p.node or "-", p.restarts, p.why) for p in self.pods]
                          or [("none yet", "-", "-", "-", "-")],
                          states=["pass" if p.ready else "warn" for p in self.pods] or ["unknown"])


def manifest(run: Run) -> Deployment:
    document: dict[str, Any] = yaml.safe_load(run.manifest("model", "deployment.yaml").read_text())
    spec = document["spec"]["template"]["spec"]
    container = spec["containers"][0]
    selector = ",".join(f"{key}={value}" for key, value in spec.get("nodeSelector", {}).items())
    return Deployment(document["metadata"]["name"], f"app={document['spec']['selector']['matchLabels']['app']}",
                      container["name"], container["image"], selector)


def observe(run: Run) -> Facts:
    diff = run.ask(run.kubectl.diff(run.manifest("model", "deployment.yaml")), check=False)
    if diff.code not in (0, 1):
        raise failure(diff)
    deployment = manifest(run)
    return Facts(deployment, diff.code == 1, pods(run, deployment))


def pods(run: Run, deployment: Deployment) -> tuple[Pod, ...]:
    """The Deployment's pods that are not being deleted."""
    found = run.core.list_namespaced_pod(NAMESPACE, label_selector=deployment.label, _request_timeout=30).items
    return tuple(_pod(item) for item in found if item.metadata.deletion_timestamp is None)


def _pod(item: Any) -> Pod:
    conditions = {c.type: c for c in item.status.conditions or []}
    statuses = item.status.container_statuses or []
    why = ""
    for status in statuses:
        if status.state and status.state.waiting:
            why = ": ".join(filter(None, (status.state.waiting.reason, status.state.waiting.message)))
    scheduled, ready = conditions.get("PodScheduled"), conditions.get("Ready")
    if scheduled and scheduled.status != "True":
        why = f"{scheduled.reason}: {scheduled.message}"
    is_ready = bool(ready and ready.status == "True")
    return Pod(item.metadata.name, item.status.phase, item.spec.node_name or "", is_ready,
               "" if is_ready else why or "its container to be ready", sum(s.restart_count for s in statuses))


def plan(run: Run, facts: Facts) -> Plan:
    if not facts.differs:
        return run.plan((), f"Deployment {facts.deployment.name} is there as the manifest says")
    return run.plan([run.kubectl.apply(run.manifest("model", "deployment.yaml"), why="deploy the model's image")],
                    f"Deployment {facts.deployment.name} is absent or differs from the manifest")


def wait(run: Run) -> float:
    """Wait for a ready pod. Returns seconds."""
    deployment = manifest(run)

    def blocker() -> str:
        found = pods(run, deployment)
        if any(p.ready for p in found):
            return ""
        return "; ".join(f"{p.name} {p.phase}: {p.why}" for p in found) or "no pod yet"

    return run.wait("model pod ready", blocker, limit=run.target.wait_limit, usual=(1, 600),
                    next=f"kubectl describe pods -l {deployment.label}")


def ready_pod(run: Run) -> Pod:
    """The pod that later stages use. Raises RunbookError when there is none."""
    deployment = manifest(run)
    for pod in pods(run, deployment):
        if pod.ready:
            return pod
    raise RunbookError(f"no pod of {deployment.name} is ready", where=f"kubectl get pods -l {deployment.label}",
                       next="run notebooks/06_model.ipynb first")


def verify(run: Run) -> list[Check]:
    facts = observe(run)
    ready = [p for p in facts.pods if p.ready]
    return [
        Check("the Deployment is as the manifest says", "fail" if facts.differs else "pass", facts.deployment.name,
              "run this stage again"),
        Check("its pod is ready", "pass" if ready else "fail",
              f"{ready[0].name} on {ready[0].node}" if ready else "; ".join(p.why for p in facts.pods) or "no pod",
              f"kubectl describe pods -l {facts.deployment.label}"),
    ]
