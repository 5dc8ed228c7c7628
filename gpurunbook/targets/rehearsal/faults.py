"""Which pods the world has broken until they are made anew: told from the pods seen so far. Nothing is kept on disk.

The first pod that is seen for an owner is the broken one (cut_streams), and on each node the first pod of the driver
(cuda_error). A new pod host sees anew, so that what a person had mended may break once more.
"""

from __future__ import annotations

from gpurunbook.targets.rehearsal.api import Object
from gpurunbook.targets.rehearsal.gpu_operands import DRIVER
from gpurunbook.targets.rehearsal.world import World

GPU = "nvidia.com/gpu"
HASH = "pod-template-hash"
CUDA_ERROR = "GPURUNBOOK_CUDA_ERROR"
"""The variable by which a pod's program hears what the CUDA driver would answer."""


class Faults:
    """What the pod host has seen of the cluster's pods."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._first: dict[tuple[str, str, str], str] = {}  # an owner -> the uid of its first pod
        self._drivers: dict[str, dict[str, bool]] = {}  # a node -> its driver pods by uid, first first: running?

    def see(self, kind: str, pod: Object) -> None:
        """Take an event of the watch on all pods."""
        uid, labels = pod["metadata"]["uid"], pod["metadata"].get("labels", {})
        node = pod["spec"].get("nodeName")
        if self._world.cut_streams and node:
            self._first.setdefault(owner(pod), uid)
        if self._world.cuda_error and node and labels.get("app") == DRIVER.name:
            running = kind != "DELETED" and pod.get("status", {}).get("phase") == "Running"
            self._drivers.setdefault(node, {})[uid] = running

    def cuts(self, pod: Object) -> bool:
        """Whether the streams of exec into this pod break."""
        return self._world.cut_streams and self._first.get(owner(pod)) == pod["metadata"]["uid"]

    def environment(self, pod: Object) -> dict[str, str]:
        """The variables that a pod gets besides its own."""
        if not self._world.cuda_error or not asks_for_gpu(pod):
            return {}
        _, *later = self._drivers.get(pod["spec"]["nodeName"], {"": False}).values()
        return {} if any(later) else {CUDA_ERROR: str(self._world.cuda_error)}


def owner(pod: Object) -> tuple[str, str, str]:
    """Namespace, kind and name of what makes the pod anew; of a Deployment's pod, the Deployment's name."""
    metadata = pod["metadata"]
    controller = next((one for one in metadata.get("ownerReferences", []) if one.get("controller")), None)
    if controller is None:
        return metadata["namespace"], "Pod", metadata["name"]
    suffix = "-" + metadata.get("labels", {}).get(HASH, "") if controller["kind"] == "ReplicaSet" else ""
    return metadata["namespace"], controller["kind"], controller["name"].removesuffix(suffix)


def asks_for_gpu(pod: Object) -> bool:
    """Whether any of its containers has the device plug-in's resource among its limits."""
    return any(GPU in container.get("resources", {}).get("limits", {}) for container in pod["spec"]["containers"])
