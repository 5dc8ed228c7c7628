"""The model's manifests as data: their names, what a run makes of them, and how the image is built."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import show
from gpurunbook.files import to_yaml
from gpurunbook.masking import hide

if TYPE_CHECKING:
    from gpurunbook.config import NodeGroup

RUN_LABEL = "gpurunbook.dev/run"
"""On what a run makes and its pods, where the cluster is not ours: the id of the run that made them."""
REFERENCE = re.compile(r"[a-z0-9][\w.-]*(:\d+)?(/[a-z0-9][\w.-]*)*(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?")
"""An image's name: registry and port, path, tag, digest."""
WEIGHTS = ("image", "volume")
WEIGHTS_FOLDER = "/weights"
WEIGHTS_SIZE = "15Gi"
"""dolly-v2-3b's weights are 5.7 GB; while a file is fetched the model hub's cache may hold it twice."""
Document = dict[str, Any]


@dataclass(frozen=True)
class Deployment:
    """A manifest's own words: names, label of its pods, container, image, node label; labels are KEY=VALUE[,KEY=VALUE]."""

    name: str
    label: str
    container: str
    image: str
    selector: str


@dataclass(frozen=True)
class Manifest:
    """What is to be in the cluster.

    Attributes:
        path: the file it stands in, or will stand in once the plan is applied.
        text: as it is given to kubectl.
        changes: (field, in manifests/model/deployment.yaml, here); empty when that file is used as it is.
    """

    path: Path
    text: str
    changes: tuple[tuple[str, str, str], ...]

    @property
    def readable(self) -> str:
        """The file's text: account ids in the image's name are hidden there, as in all that a run writes."""
        return hide(self.text)

    @property
    def table(self) -> show.Table:
        """What differs from the file in manifests/model/."""
        return show.Table(("field", "in the manifest", "here"), self.changes or [("none", "", "used as it is")])


def names(document: Document) -> Deployment:
    spec = document["spec"]["template"]["spec"]
    container = spec["containers"][0]
    selector = ",".join(f"{key}={value}" for key, value in spec.get("nodeSelector", {}).items())
    label = ",".join(f"{key}={value}" for key, value in document["spec"]["selector"]["matchLabels"].items())
    return Deployment(document["metadata"]["name"], label, container["name"], container["image"], selector)


def derive(document: Document, group: NodeGroup, *, image: str = "", weights: str = "image", run_id: str = "") -> Document:
    """The manifest for a group of nodes: equal to `document` where nothing is asked for that it does not say already.

    Args:
        document: a Deployment or a DaemonSet.
        image: another image; empty keeps the manifest's.
        weights: "image" leaves them where the image has them, or where it downloads them to; "volume" adds an emptyDir
            for them. It lies on the node's own disk: a plain EKS cluster has no CSI driver, and a claim would be one
            more thing that a teardown can leave behind.
        run_id: label the object and its pods with the run that makes it, and select them by it too: somebody else's
            pod may carry the manifest's label.
    """
    made = copy.deepcopy(document)
    pod = made["spec"]["template"]["spec"]
    container = pod["containers"][0]
    container["image"] = image or container["image"]
    pod["nodeSelector"] = group.picks
    if group.taints:
        pod["tolerations"] = [*pod.get("tolerations", []), *(
            {"key": t.key, "operator": "Exists", "effect": t.effect} for t in group.taints)]
    if weights == "volume":
        pod["volumes"] = [*pod.get("volumes", []), {"name": "weights", "emptyDir": {"sizeLimit": WEIGHTS_SIZE}}]
        container["volumeMounts"] = [*container.get("volumeMounts", []), {"name": "weights", "mountPath": WEIGHTS_FOLDER}]
        container["env"] = [*container.get("env", []), {"name": "HF_HOME", "value": WEIGHTS_FOLDER}]
    if run_id:
        for labels in (made["metadata"].setdefault("labels", {}), made["spec"]["selector"]["matchLabels"],
                       made["spec"]["template"]["metadata"]["labels"]):
            labels[RUN_LABEL] = run_id
    return made


def manifest(source: Path, made: Document, document: Document, *, root: Path, folder: Path, stage: str) -> Manifest:
    """A derived manifest as a file: `source` itself where it is the same `document`, else one in the run's artifacts."""
    if made == document:
        return Manifest(source, source.read_text(), ())
    head = f"# Made from {source.relative_to(root)} for run {folder.name}: notebook {stage} shows what differs.\n"
    return Manifest(folder / "artifacts" / source.name, head + to_yaml([made]), changes(document, made))


def changes(before: Document, after: Document) -> tuple[tuple[str, str, str], ...]:
    """(field, before, after) of two manifests, fields as kubectl explains them."""
    old, new = _flat(before), _flat(after)
    return tuple((key, old.get(key, "-"), new.get(key, "-")) for key in {**old, **new} if old.get(key) != new.get(key))


def _flat(value: Any, key: str = "") -> dict[str, str]:
    if isinstance(value, Mapping) and value:
        items = [(f"{key}.{k}" if key else str(k), v) for k, v in value.items()]
    elif isinstance(value, list) and value:
        items = [(f"{key}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {key: str(value)}
    return {k: v for name, one in items for k, v in _flat(one, name).items()}


def build(region: str, weights: str = "image") -> tuple[str, ...]:
    """Lines that build the image of manifests/model/Dockerfile and push it to the account's own registry; never run here.

    Two that prepare (the second lasts 12 hours), then the build and the push. The account's id is in none of them.
    """
    region = region or "$AWS_REGION"
    china = ".cn" if region.startswith("cn-") else ""
    registry = f"$(aws sts get-caller-identity --query Account --output text).dkr.ecr.{region}.amazonaws.com{china}"
    stage = "baked" if weights == "image" else "slim"
    return (f"aws ecr create-repository --repository-name dolly --region {region}",
            f"aws ecr get-login-password --region {region} | docker login --username AWS --password-stdin {registry}",
            f"docker build --platform linux/amd64 --target {stage} -t {registry}/dolly:1 manifests/model",
            f"docker push {registry}/dolly:1")
