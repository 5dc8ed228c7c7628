"""06: the Deployment of the model's image, from the manifest to a running container."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gpurunbook import deployment as data
from gpurunbook import show, yaml_file
from gpurunbook.deployment import REFERENCE, WEIGHTS, Deployment, Manifest, derive, names
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.masking import hide
from gpurunbook.plan import Check, Plan
from gpurunbook.stages import objects, pod_events
from gpurunbook.stages.objects import NAMESPACE

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

FILE = "deployment.yaml"


@dataclass(frozen=True)
class Pod:
    """The model's pod. `why` says what it waits for; empty when it is ready."""

    name: str
    phase: str
    node: str
    ready: bool
    why: str
    restarts: int
    uid: str = ""
    image: str = ""


@dataclass(frozen=True)
class Facts:
    """`differs`: the cluster does not have the Deployment as the manifest says; `foreign`: one of its name is another's.

    `other`: the image that is being pulled ahead of time (notebook 04) is not the one asked for now; its DaemonSet's name.
    """

    deployment: Deployment
    manifest: Manifest
    differs: bool
    foreign: bool
    pods: tuple[Pod, ...]
    other: str = ""

    @property
    def table(self) -> show.Table:
        return show.Table(("pod", "phase", "node", "restarts", "waits for"),
                          [(p.name, p.phase, p.node or "-", p.restarts, p.why) for p in self.pods]
                          or [("none yet", "-", "-", "-", "-")],
                          states=["pass" if p.ready else "warn" for p in self.pods] or ["unknown"])


# The manifest

def manifest(run: Run) -> Deployment:
    """The names by which the model is found: as 06 used them in this run, else those of manifests/model/."""
    used = run.journal.last("model")
    if used:
        return Deployment(**used["deployment"])
    document = objects.document(run, FILE)
    # A cluster that is only taken down may be known by its name alone.
    return names(derive(document, run.cluster.gpu_group, run_id=_label(run)) if run.cluster.groups else document)


def _label(run: Run) -> str:
    return "" if run.target.ours else run.id


def wanted(run: Run, image: str | None = None, weights: str | None = None) -> Manifest:
    """The manifest of this run: with what is given, else what 06 was given before, else as in manifests/model/.

    An image that only 04 was given, to have it pulled, is the one of this run until 06 is given another.

    Raises:
        ConfigError: no name of an image, or no place for weights.
        RunbookError: the image was named before, and its account id cannot be had back.
    """
    pulled = (run.journal.last("prepull") or {"image": ""})["image"]
    before = run.journal.last("model") or {"image": pulled, "weights": "image"}
    newer = [r["kind"] for r in run.journal.records() if r["kind"] in ("prepull", "model")][-1:] == ["prepull"]
    if not image:
        image = recall(run, pulled if image is not None and (newer or not pulled) else before["image"])
    weights = before["weights"] if weights is None else weights
    check_image(image)
    if weights not in WEIGHTS:
        raise ConfigError(f"weights {weights!r}", where="parameter weights", next=f"one of: {', '.join(WEIGHTS)}")
    document = objects.document(run, FILE)
    made = derive(document, run.cluster.gpu_group, image=image, weights=weights, run_id=_label(run))
    record = {"image": image, "weights": weights, "deployment": asdict(names(made))}
    if run.stage == "model" and (newer or {k: before.get(k) for k in record} != json.loads(hide(json.dumps(record)))):
        run.journal.append("model", **record)
    return data.manifest(run.manifest("model", FILE), made, document, root=run.root, folder=run.folder, stage="06")


def check_image(image: str) -> None:
    """Raises ConfigError for what is no name of an image; "" is none, and right."""
    if image and not REFERENCE.fullmatch(image):
        raise ConfigError(f"{image!r} is no name of an image", where="parameter image", next="REGISTRY/NAME:TAG, or none")


def recall(run: Run, image: str) -> str:
    """An image's name out of the journal, which hides account ids; the cluster knows the whole. Raises RunbookError."""
    if "*" not in image:
        return image
    for found in (there(run, manifest(run).name), objects.puller(run)):
        live = found.spec.template.spec.containers[0].image if found not in (None, objects.HIDDEN) else ""
        if hide(live) == image:
            return str(live)
    raise RunbookError("which account's registry the image comes from is not known any more", where=image,
                       next="give the image again: -p image=REGISTRY/NAME:TAG")


# The cluster

def observe(run: Run, *, image: str | None = None, weights: str | None = None) -> Facts:
    """Hold the cluster against the manifest.

    Args:
        image, weights: see `derive`; None means as 06 was given them before in this run.
    """
    asked = wanted(run, image, weights)
    deployment = manifest(run)
    found, puller = there(run, deployment.name), objects.puller(run)
    foreign = found is not None and not objects.mine(run, found)
    pulled = puller.spec.template.spec.containers[0].image if puller is not None and objects.mine(run, puller) else ""
    return Facts(deployment, asked, foreign or objects.differs(run, asked), foreign, pods(run, deployment),
                 puller.metadata.name if pulled and pulled != image_of(asked) else "")


def image_of(asked: Manifest) -> str:
    """The image that a manifest names, whole."""
    return names(yaml_file.parse(asked.text, asked.path)).image


def there(run: Run, name: str) -> Any:
    """The Deployment of that name (a V1Deployment), None when there is none."""
    return objects.there(run, "deployment", name)


def made(run: Run) -> str:
    """Name of the Deployment that a teardown takes away, "" when this run made none that is still there."""
    found = there(run, manifest(run).name)
    return str(found.metadata.name) if found is not None and objects.mine(run, found) else ""


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
               "" if is_ready else why or pod_events.STARTING, sum(s.restart_count for s in statuses),
               item.metadata.uid, item.spec.containers[0].image)


def plan(run: Run, facts: Facts) -> Plan:
    """Apply the manifest where the cluster has it otherwise.

    Raises:
        RunbookError: a Deployment of that name is there which this run did not make.
    """
    name, asked = facts.deployment.name, facts.manifest
    if facts.foreign:
        raise RunbookError(f"a Deployment {name} is there that this run did not make: it is left as it is",
                           where=f"kubectl get deployment {name} -n {NAMESPACE} -o yaml",
                           next=f"if nobody needs it: kubectl delete deployment {name} -n {NAMESPACE}; then run this again")
    stop = [run.kubectl.delete("daemonset", facts.other)] if facts.other else []
    said = ["04 had another image pulled, which ends"] if stop else []
    if not facts.differs:
        return run.plan(stop, "; ".join([f"Deployment {name} is there as the manifest says", *said]))
    if asked.changes:
        new = dict.fromkeys(f"{key.rpartition('.')[2]} {value}" for key, _, value in asked.changes)
        said.append(f"beside {asked.path.name}: {', '.join(new)}")
    if asked.text != asked.readable:
        said.append("it is given by stdin, since an account id belongs in no file")
    return run.plan([*stop, objects.command(run, asked, "apply", "deploy the model's image", changes=True)],
                    "; ".join([f"Deployment {name} is absent or differs from the manifest", *said]),
                    files={asked.path: asked.readable} if asked.changes else {})


def wait(run: Run) -> float:
    """Wait for a ready pod of the manifest as it is now. Returns seconds."""
    deployment = manifest(run)

    def blocker() -> str:
        found, behind = pods(run, deployment), _behind(there(run, deployment.name))
        if not behind and any(p.ready for p in found):
            return ""
        held = [f"{p.name} {p.phase}: {pod_events.progress(p.node, p.why, partial(pod_events.of, run, p.uid))}"
                for p in found if not p.ready]
        return "; ".join(held) or behind or "no pod yet"

    return run.wait("model pod ready", blocker, limit=run.target.wait_limit(run), usual=(1, 600),
                    next=f"kubectl describe pods -n {NAMESPACE} -l {deployment.label}")


def _behind(found: Any) -> str:
    """What the Deployment's controller has still to do: right after a change the old pod is there, and ready."""
    if found is None:
        return "no Deployment yet"
    seen, updated = found.status.observed_generation or 0, found.status.updated_replicas or 0
    if seen < found.metadata.generation or updated < found.spec.replicas or (found.status.replicas or 0) > updated:
        return "pods of the manifest before are being replaced"
    return ""


def ready_pod(run: Run) -> Pod:
    """The pod that later stages use. Raises RunbookError when there is none."""
    deployment = manifest(run)
    for pod in pods(run, deployment):
        if pod.ready:
            return pod
    raise RunbookError(f"no pod of {deployment.name} is ready", where=f"kubectl get pods -n {NAMESPACE} -l {deployment.label}",
                       next="run notebooks/06_model.ipynb first")


def verify(run: Run) -> list[Check]:
    facts = observe(run)
    ready = [p for p in facts.pods if p.ready]
    return [
        Check("the Deployment is as the manifest says", "fail" if facts.differs else "pass", facts.deployment.name,
              "run this stage again"),
        Check("its pod is ready", "pass" if ready else "fail",
              f"{ready[0].name} on {ready[0].node}" if ready else "; ".join(p.why for p in facts.pods) or "no pod",
              f"kubectl describe pods -n {NAMESPACE} -l {facts.deployment.label}"),
    ]
