"""The simulated GPU operator: NFD and NVIDIA's controller, played from outside the cluster.

A chart makes the objects (ClusterPolicy, Deployments, NFD's DaemonSet) and KWOK makes their pods Ready, but no program
runs in those pods. This module does what those programs do to the API, for any chart that makes a ClusterPolicy: NFD's
node labels, the operator's labels, RuntimeClass and operand DaemonSets, one after the other, GPU feature discovery's
labels, `nvidia.com/gpu` in the nodes' capacity and allocatable, the policy's status, and events about it.

Pods are Ready when their status says so, whoever runs them: KWOK, or the pod host where a drill gives it their image.
Two things are as on a real node whatever a drill says: without the toolkit no pod of runtime class `nvidia` gets a
sandbox on Ubuntu, and without the driver the toolkit waits for it (gpu_operands.held, sandbox.py).

What it does not simulate:

- time, unless the run has a pace (pace.py): else a step takes as long as KWOK's pods. With one, each operand takes its
  usual time after those of the wave before it; the real ones start together and wait for each other in init containers;
- failures of its own: a driver that does not compile, GPUs that are unhealthy and an NFD that sees no GPU are drills'
  (world.py); what a broken driver means for a pod that computes is the pod host's;
- the validator's own last step: on a real node its pod becomes Ready after the device plugin's, here before it, and
  the validation pods that it starts are not made;
- the operands' service accounts, volumes, commands, services and monitors; MIG, vGPU, sandboxes, DRA (GPUCluster),
  NVIDIADriver objects, the operands that are off by default; of driver upgrades only the restart of a pod that fails;
- the kubelet's five minutes: it reports capacity for a while after a device plugin is gone, here both become 0 at once;
- another device plugin beside the operator's: it is left alone, and changes no capacity;
- leftovers: a real uninstall leaves the operator's own node labels; here they go;
- a moment of `ready` before NFD has labelled the nodes, which the real operator reports; here it is `notReady`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress

from gpurunbook.targets.rehearsal import sandbox
from gpurunbook.targets.rehearsal.api import UNREACHABLE, Api, ApiError, Object
from gpurunbook.targets.rehearsal.gpu_health import ill
from gpurunbook.targets.rehearsal.gpu_labels import OS_ID, PRESENT
from gpurunbook.targets.rehearsal.gpu_operands import DRIVER, GFD, PLUGIN
from gpurunbook.targets.rehearsal.gpu_plan import NFD_WORKER, POLICIES, RUNTIME_CLASSES, Change, Cluster, plan
from gpurunbook.targets.rehearsal.pod_status import now
from gpurunbook.targets.rehearsal.world import PLAIN, World

log = logging.getLogger(__name__)

NODES, PODS, DAEMONSETS = "/api/v1/nodes", "/api/v1/pods", "/apis/apps/v1/daemonsets"
CRDS, JOBS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "/apis/batch/v1/jobs"
SELECTED_PODS = (",".join(f"{key}={value}" for key, value in NFD_WORKER.items()),
                 f"app in ({DRIVER.name},{PLUGIN.name},{GFD.name})")

SETTLE = 0.02
"""Seconds to wait after an event, so that one look answers the events that come with it."""
RETRY, MOST_RETRY = 0.2, 30.0
"""Seconds to wait after a refused or broken call, unless an event comes; doubled each time, up to the second."""
HOPELESS = (400, 422)
"""Answers that no waiting cures: the request itself is wrong."""


async def run(api: Api, world: World = PLAIN) -> None:
    """Play the operator until cancelled; never returns.

    May start before or after the chart is installed, and again at any time: every look starts from what the API server
    has, and writes only what differs. A server that is away or busy is asked again.

    Raises:
        ExceptionGroup: of ApiError, when the server calls one of our requests malformed.
    """
    changed, doomed, first = asyncio.Event(), set[str](), dict[str, str]()
    changed.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(_notice(api, changed, NODES, _node_state))
        for path in (POLICIES, DAEMONSETS, RUNTIME_CLASSES):
            group.create_task(_notice(api, changed, path))
        for selector in SELECTED_PODS:
            group.create_task(_notice(api, changed, PODS, labelSelector=selector))
        group.create_task(_clean_up_jobs(api, changed, doomed))
        group.create_task(sandbox.report(api))
        delay = RETRY
        while True:
            await changed.wait()
            await asyncio.sleep(SETTLE)
            changed.clear()
            try:
                await _delete_crds(api, doomed)
                await _reconcile(api, world, first)
                delay = RETRY
            except UNREACHABLE as error:
                if isinstance(error, ApiError) and error.status in HOPELESS:
                    raise
                log.info("looks again in %g s at most: %s", delay, error)
                with suppress(TimeoutError):  # not wait_for: of Python 3.11, it can lose a cancellation
                    async with asyncio.timeout(delay):
                        await changed.wait()
                changed.set()
                delay = min(2 * delay, MOST_RETRY)


async def observe(api: Api) -> Cluster:
    """Read all that the plan depends on. Raises what `Api.get` raises."""
    policies, daemonsets, runtime_classes = await asyncio.gather(
        _list(api, POLICIES), _list(api, DAEMONSETS), _list(api, RUNTIME_CLASSES))
    # A large cluster without an operator costs two empty lists, not all its nodes.
    selectors = ("",) if policies else (OS_ID, PRESENT)
    nodes, pods = await asyncio.gather(_select(api, NODES, selectors), _select(api, PODS, SELECTED_PODS))
    return Cluster(policies, nodes, daemonsets, pods, runtime_classes)


async def _reconcile(api: Api, world: World, first: dict[str, str]) -> None:
    time = now()
    cluster = await observe(api)
    for change in plan(cluster, time, world, ill(cluster, first, world.since) if world.unhealthy else ()):
        log.debug("%s %s %s", change.verb, change.path, change.body)
        await _make(api, change)


async def _make(api: Api, change: Change) -> None:
    match change.verb:
        case "apply":
            await api.request("PATCH", change.path, change.body, content_type="application/apply-patch+yaml",
                              fieldManager="gpu-operator", force="true")
        case "merge":
            await api.patch(change.path, change.body)
        case "delete":
            await _delete(api, change.path)


def _version(item: Object) -> str:
    version: str = item["metadata"]["resourceVersion"]
    return version


def _node_state(node: Object) -> str:
    """What of a node matters here: not its heartbeats."""
    metadata, status = node["metadata"], node.get("status", {})
    return json.dumps([metadata.get("labels"), metadata.get("annotations"), node["spec"],
                       status.get("capacity"), status.get("allocatable"), status.get("nodeInfo")], sort_keys=True)


async def _notice(api: Api, changed: asyncio.Event, path: str, state: Callable[[Object], str] = _version,
                  **query: str) -> None:
    """Set `changed` when the `state` of an object of this kind differs from its last one, and when one is deleted."""
    seen: dict[str, str] = {}
    async for kind, item in api.watch(path, **query):
        uid = item["metadata"]["uid"]
        if kind == "DELETED":
            seen.pop(uid, None)
            changed.set()
        elif seen.get(uid) != (latest := state(item)):
            seen[uid] = latest
            changed.set()


async def _clean_up_jobs(api: Api, changed: asyncio.Event, doomed: set[str]) -> None:
    """Note which CRD files the chart's clean-up Job (`operator.cleanupCRD`) deletes: KWOK only marks its pod as done.

    The ClusterPolicy of such a release is kept by Helm and goes with its CRD.
    """
    async for kind, job in api.watch(JOBS, labelSelector="app.kubernetes.io/component=gpu-operator"):
        container = job["spec"]["template"]["spec"]["containers"][0]
        arguments = container.get("args", [])
        # A finished one that is seen again after a broken watch must not delete the CRDs of a later release.
        done = kind == "DELETED" or "completionTime" in job.get("status", {})
        if not done and "manage-crds" in container.get("command", [""])[0] and "delete" in arguments:
            doomed |= {argument.rpartition("/")[2] for argument in arguments}
            changed.set()


async def _delete_crds(api: Api, files: set[str]) -> None:
    for crd in await _list(api, CRDS) if files else []:
        if _crd_file(crd) in files:
            await _delete(api, f"{CRDS}/{crd['metadata']['name']}")
    files.clear()


def _crd_file(crd: Object) -> str:
    """The file in NVIDIA's image that holds this CRD."""
    group = crd["spec"]["group"]
    return "nfd-api-crds.yaml" if group == "nfd.k8s-sigs.io" else f"{group}_{crd['spec']['names']['plural']}.yaml"


async def _list(api: Api, path: str, **query: str) -> list[Object]:
    """All objects; none where the server does not know the kind (yet, or no more)."""
    try:
        items: list[Object] = (await api.get(path, **query)).get("items", [])
    except ApiError as error:
        if error.status != 404:
            raise
        return []
    return items


async def _select(api: Api, path: str, selectors: tuple[str, ...]) -> list[Object]:
    """The objects that match any of the label selectors, once each."""
    lists = await asyncio.gather(*(_list(api, path, labelSelector=selector) for selector in selectors))
    return list({item["metadata"]["uid"]: item for items in lists for item in items}.values())


async def _delete(api: Api, path: str) -> None:
    try:
        await api.delete(path)
    except ApiError as error:
        if error.status != 404:
            raise
