"""The model's image, pulled while 05 installs the operator: applied at the end of 04, taken away in 06."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from gpurunbook import deployment, show
from gpurunbook.deployment import Manifest
from gpurunbook.masking import hide
from gpurunbook.plan import Plan
from gpurunbook.stages import model, objects, pod_events

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

MOST_NODES = 4
"""More nodes are not made to pull 10 GB each for a model that runs on one."""
LATER = "06 has the image pulled when it needs it: only later"


@dataclass(frozen=True)
class Pull:
    """How far it is.

    Attributes:
        image: what is to be pulled.
        there: the DaemonSet is; foreign: it is another's.
        nodes: GPU node -> "pulled", or what it waits for.
    """

    image: str
    there: bool
    foreign: bool
    nodes: Mapping[str, str]

    @property
    def pulled(self) -> bool:
        return bool(self.nodes) and all(state == "pulled" for state in self.nodes.values())

    @property
    def table(self) -> show.Table:
        """The image on each GPU node."""
        return show.Table(("node", self.image), list(self.nodes.items()) or [("none yet", "-")],
                          states=["pass" if state == "pulled" else "warn" for state in self.nodes.values()] or ["unknown"])


@dataclass(frozen=True)
class Facts:
    """What 04 goes by.

    Attributes:
        wanted: somebody wants it; given: and said which image.
        differs: the DaemonSet is absent, or not as the manifest says.
        serving: (pod, image) of a model's pod that is ready, () when there is none.
    """

    pull: Pull
    manifest: Manifest
    wanted: bool
    given: bool
    differs: bool
    serving: tuple[str, ...]


def observe(run: Run, *, image: str = "", wanted: bool = True) -> Facts:
    """Hold the cluster against manifests/model/prepull.yaml.

    Args:
        image: the model's; empty: the manifest's own. 06 uses it too, unless it is given another.

    Raises:
        ConfigError: no name of an image.
    """
    model.check_image(image)
    before = run.journal.last("prepull") or {"image": ""}
    if before["image"] != hide(image):
        run.journal.append("prepull", image=image)
    asked = _manifest(run, image)
    pull = _look(run, asked)
    ready = [p for p in model.pods(run, model.manifest(run)) if p.ready]
    return Facts(pull, asked, wanted, bool(image), not pull.there or pull.foreign or objects.differs(run, asked),
                 (ready[0].name, ready[0].image) if ready else ())


def look(run: Run) -> Pull:
    """How far the image is that 06 deploys."""
    return _look(run, _manifest(run, model.image_of(model.wanted(run))))


def _manifest(run: Run, image: str) -> Manifest:
    source = run.manifest("model", "prepull.yaml")
    document = yaml.safe_load(source.read_text())
    made = deployment.derive(document, run.cluster.gpu_group, image=image, run_id="" if run.target.ours else run.id)
    return deployment.manifest(source, made, document, root=run.root, folder=run.folder, stage="04")


def _look(run: Run, asked: Manifest) -> Pull:
    names = deployment.names(yaml.safe_load(asked.text))
    found = objects.there(run, "daemonset", names.name)
    foreign = found is not None and not objects.mine(run, found)
    return Pull(names.image, found is not None, foreign, _nodes(run, names))


def _nodes(run: Run, names: deployment.Deployment) -> dict[str, str]:
    found = run.core.list_node(label_selector=run.cluster.gpu_group.selector, _request_timeout=30).items
    held = {n.metadata.name: [name for one in n.status.images or [] for name in one.names or []] for n in found}
    pods = {p.node: p for p in model.pods(run, names) if p.image == names.image}

    def far(node: str) -> str:
        pod = pods.get(node)
        if has(held[node], names.image) or (pod and pod.ready):
            return "pulled"
        return pod_events.progress(node, pod.why, partial(pod_events.of, run, pod.uid)) if pod else "nothing pulls it ahead"

    return {node: far(node) for node in sorted(held)}


def has(names: list[str], image: str) -> bool:
    """Whether an image is among a node's: a kubelet tells them with their registry, and their tag or digest."""
    whole = image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
    return any(name == whole or name.endswith(f"/{whole}") for name in names)


def plan(run: Run, facts: Facts) -> Plan:
    """04: have the image pulled, unless there is no need. It is a help and no condition: a failure does not end the plan."""
    name = model.PREPULL
    if facts.pull.foreign:
        return run.plan((), f"a DaemonSet {name} is there that this run did not make: it is left as it is; {LATER}")
    if not facts.wanted:
        return run.plan(_delete(run) if facts.pull.there else (), f"not asked for; {LATER}")
    if facts.serving and (not facts.given or facts.serving[1] == facts.pull.image):
        return run.plan((), f"the model's pod {facts.serving[0]} runs already")
    if len(facts.pull.nodes) > MOST_NODES:
        return run.plan((), f"{len(facts.pull.nodes)} nodes would pull what one needs; {LATER}")
    if not facts.differs:
        return run.plan((), f"DaemonSet {name} is there as the manifest says")
    if facts.pull.pulled:
        return run.plan((), f"{hide(facts.pull.image)} is on every GPU node")
    asked = facts.manifest
    apply = objects.command(run, asked, "apply", "have the model's image pulled", changes=True)
    return run.plan([replace(apply, otherwise=LATER)],
                    f"{hide(facts.pull.image)} is pulled on {len(facts.pull.nodes)} GPU node(s) while 05 installs the operator",
                    files={asked.path: asked.readable} if asked.changes else {})


def end(run: Run, pull: Pull) -> Plan:
    """06, when the model's pod is ready: the DaemonSet has done what it was for. When it was pulled goes into the journal."""
    for node, began, ended in _times(run, pull):
        run.journal.append("pull", stage=run.stage, node=node, image=pull.image, began=began, ended=ended)
    if not pull.there or pull.foreign:
        return run.plan((), "no DaemonSet of this run pulls the image")
    return run.plan(_delete(run), "the model's pod is ready: nothing has to be pulled any more, and a new node need not do it")


def _times(run: Run, pull: Pull) -> list[tuple[str, str, str]]:
    """(node, began, ended) of pulls that events of the DaemonSet's and the model's pods still tell, in ISO 8601."""
    pods = [*model.pods(run, deployment.names(yaml.safe_load(_manifest(run, "").text))), *model.pods(run, model.manifest(run))]
    found: dict[str, tuple[str, str, str]] = {}
    for pod in pods:
        told = {event.reason: event.at.isoformat() for event in reversed(pod_events.of(run, pod.uid))}
        if pod.image == pull.image and {"Pulling", "Pulled"} <= told.keys():
            found.setdefault(pod.node, (pod.node, told["Pulling"], told["Pulled"]))
    return list(found.values())


def made(run: Run) -> str:
    """Name of the DaemonSet that a teardown takes away, "" when this run made none that is still there."""
    found: Any = objects.there(run, "daemonset", model.PREPULL)
    return model.PREPULL if found is not None and objects.mine(run, found) else ""


def _delete(run: Run) -> list[Any]:
    return [run.kubectl.delete("daemonset", model.PREPULL)]
