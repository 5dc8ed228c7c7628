"""The model's image, pulled while 05 installs the operator: applied at the end of 04, taken away in 06."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from gpurunbook import deployment, show, yaml_file
from gpurunbook.command import Command
from gpurunbook.deployment import Manifest
from gpurunbook.masking import hide
from gpurunbook.plan import Plan
from gpurunbook.stages import model, objects, pod_events

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

MOST_NODES = 4
"""More nodes are not made to pull 10 GB each for a model that runs on one; of somebody else's, only the one it runs on."""
LATER = "06 has the image pulled when it needs it: only later"


@dataclass(frozen=True)
class Pull:
    """How far it is.

    Attributes:
        image: what is to be pulled.
        there: the DaemonSet is; foreign: it is another's; hidden: nobody lets us look whether it is.
        nodes: GPU node -> "pulled", or what it waits for.
    """

    image: str
    there: bool
    foreign: bool
    nodes: Mapping[str, str]
    hidden: bool = False
    name: str = ""

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
        wanted: somebody wants it; given: the image that was asked for, "" for the manifest's own.
        differs: the DaemonSet is absent, or not as the manifest says.
        serving: (pod, image) of a model's pod that is ready, () when there is none.
    """

    pull: Pull
    manifest: Manifest
    wanted: bool
    given: str
    differs: bool
    serving: tuple[str, ...]


def observe(run: Run, *, image: str | None = None, wanted: bool = True) -> Facts:
    """Hold the cluster against manifests/model/prepull.yaml; where it is not wanted and never was, nothing is asked.

    Args:
        image: the model's; empty: the manifest's own; None: as 04 was given it before in this run.

    Raises:
        ConfigError: no name of an image.
        RunbookError: the image was named before, and its account id cannot be had back.
    """
    before = run.journal.last("prepull")
    image = model.recall(run, before["image"] if before else "") if image is None else image
    model.check_image(image)
    asked = _manifest(run, image)
    if not wanted and before is None:
        return Facts(Pull(image, False, False, {}), asked, False, image, False, ())
    pull = _look(run, asked)
    ready = [p for p in model.pods(run, model.manifest(run)) if p.ready]
    differs = not pull.there or pull.foreign or objects.differs(run, asked)
    return Facts(pull, asked, wanted, image, differs, (ready[0].name, ready[0].image) if ready else ())


def noted(run: Run, facts: Facts) -> None:
    """04: keep in the journal which image is wanted ahead of time; 06 deploys it, unless it is given another."""
    if facts.wanted:
        run.journal.append("prepull", image=facts.given)


def look(run: Run) -> Pull:
    """How far the image is that 06 deploys."""
    return _look(run, _manifest(run, model.image_of(model.wanted(run))))


def _manifest(run: Run, image: str) -> Manifest:
    source, document = run.manifest("model", "prepull.yaml"), objects.document(run, "prepull.yaml")
    made = deployment.derive(document, run.cluster.gpu_group, image=image, run_id="" if run.target.ours else run.id)
    return deployment.manifest(source, made, document, root=run.root, folder=run.folder, stage="04")


def _look(run: Run, asked: Manifest) -> Pull:
    names = deployment.names(yaml_file.parse(asked.text, asked.path))
    found = objects.puller(run)
    hidden = found == objects.HIDDEN
    there = found is not None and not hidden
    return Pull(names.image, there, there and not objects.mine(run, found), _nodes(run, names), hidden, names.name)


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
    """Whether an image is among a node's: a kubelet tells them with their registry, and with tag or digest, never both."""
    name, _, digest = image.partition("@")
    path, _, last = name.rpartition("/")
    bare, _, tag = last.partition(":")
    whole = f"{path}/{bare}" if path else bare
    whole += f"@{digest}" if digest else f":{tag or 'latest'}"
    if _registry(image):
        return whole in names
    return whole in names or any(_registry(one) and one.partition("/")[2] == (whole if path else f"library/{whole}")
                                 for one in names)


def _registry(image: str) -> bool:
    """Whether a name begins with a registry: a first part with a dot or a port in it, or localhost."""
    first, slash, _ = image.partition("/")
    return bool(slash) and ("." in first or ":" in first or first == "localhost")


def plan(run: Run, facts: Facts) -> Plan:
    """04: have the image pulled, unless there is no need. It is a help and no condition: a failure does not end the plan."""
    name, most = facts.pull.name, MOST_NODES if run.target.ours else 1
    if facts.pull.hidden:
        return run.plan((), f"the cluster does not let DaemonSets be read, so none is made; {LATER}")
    if facts.pull.foreign:
        return run.plan((), f"a DaemonSet {name} is there that this run did not make: it is left as it is; {LATER}")
    if not facts.wanted:
        return run.plan(_delete(run, facts.pull), f"not asked for; {LATER}")
    if facts.serving and (not facts.given or facts.serving[1] == facts.pull.image):
        return run.plan((), f"the model's pod {facts.serving[0]} runs already")
    if not facts.pull.nodes:
        return run.plan((), f"no GPU node is there to pull it; {LATER}")
    if len(facts.pull.nodes) > most:
        whose = "nodes" if run.target.ours else "nodes of somebody else's"
        return run.plan((), f"{len(facts.pull.nodes)} {whose} would pull what one needs; {LATER}")
    if not facts.differs:
        return run.plan((), f"DaemonSet {name} is there as the manifest says")
    if facts.pull.pulled:
        return run.plan((), f"{hide(facts.pull.image)} is on every GPU node")
    asked = facts.manifest
    apply = objects.command(run, asked, "apply", "have the model's image pulled", changes=True)
    return run.plan([replace(apply, otherwise=LATER)],
                    f"{hide(facts.pull.image)} is pulled on {' and '.join(facts.pull.nodes)} while 05 installs the operator",
                    files={asked.path: asked.readable} if asked.changes else {})


def end(run: Run, pull: Pull) -> Plan:
    """06, when the model's pod is ready: the DaemonSet has done what it was for."""
    if pull.hidden or pull.foreign or not pull.there:
        return run.plan((), "no DaemonSet of this run pulls the image")
    return run.plan(_delete(run, pull), "with the model's pod ready nothing has to be pulled any more, and a new node need not")


def timed(run: Run, pull: Pull) -> None:
    """06, before the DaemonSet and its events go: keep in the journal when each node pulled the image, once."""
    for node, began, ended in _times(run, pull):
        if run.journal.last("pull", node=node, began=began):
            continue
        run.journal.append("pull", stage=run.stage, node=node, image=pull.image, began=began, ended=ended)


def _times(run: Run, pull: Pull) -> list[tuple[str, str, str]]:
    """(node, began, ended) of pulls that events of the DaemonSet's and the model's pods still tell, in ISO 8601."""
    asked = _manifest(run, "")
    pods = [*model.pods(run, deployment.names(yaml_file.parse(asked.text, asked.path))), *model.pods(run, model.manifest(run))]
    found: dict[str, tuple[str, str, str]] = {}
    for pod in pods:
        told = {event.reason: event for event in reversed(pod_events.of(run, pod.uid) or [])}
        if pod.image == pull.image and {"Pulling", "Pulled"} <= told.keys():
            began = told["Pulling"].first or told["Pulling"].at  # a pull that was cut off and tried again is one pull
            found.setdefault(pod.node, (pod.node, began.isoformat(), told["Pulled"].at.isoformat()))
    return list(found.values())


def made(run: Run) -> str | None:
    """Name of the DaemonSet that a teardown takes away, "" when none of this run's is there; None: it may not be read."""
    found = objects.puller(run)
    if found == objects.HIDDEN:
        return None
    return str(found.metadata.name) if found is not None and objects.mine(run, found) else ""


def _delete(run: Run, pull: Pull) -> list[Command]:
    return [run.kubectl.delete("daemonset", pull.name)] if pull.there else []
