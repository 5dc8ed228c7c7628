"""A cloud controller that is alive and does nothing: it renews its lease, as AWS's does in EKS's control plane."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime
from typing import NoReturn

from gpurunbook.targets.rehearsal.api import UNREACHABLE, Api, Object
from gpurunbook.targets.rehearsal.world import World

NAME, NAMESPACE = "cloud-controller-manager", "kube-system"
PATH = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{NAME}"
DURATION, RENEW = 15, 2.0
"""Seconds; Kubernetes' defaults of --leader-elect-lease-duration and --leader-elect-retry-period."""
log = logging.getLogger(__name__)


async def run(api: Api, world: World) -> NoReturn:
    """Renew the lease until cancelled."""
    acquired = datetime.now(UTC)
    while True:
        try:
            await api.request("PATCH", PATH, lease(world, acquired, datetime.now(UTC)),
                              content_type="application/apply-patch+yaml", fieldManager=NAME, force="true")
        except UNREACHABLE as error:
            log.info("the cloud controller's lease is not renewed this time: %s", error)
        await asyncio.sleep(RENEW)


def lease(world: World, acquired: datetime, renewed: datetime) -> Object:
    """The Lease, held by a machine of the control plane's and a UUID, as leader election writes it."""
    machine = f"ip-172-16-{world.seed % 250 + 2}-{world.seed // 250 % 250 + 2}.ec2.internal"
    who = f"{machine}_{uuid.uuid5(uuid.NAMESPACE_DNS, machine)}"
    form = "%Y-%m-%dT%H:%M:%S.%fZ"
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"holderIdentity": who, "leaseDurationSeconds": DURATION, "leaseTransitions": 0,
                     "acquireTime": acquired.strftime(form), "renewTime": renewed.strftime(form)}}
