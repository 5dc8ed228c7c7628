"""Is the cluster behind the kubeconfig the one that AWS has by the run's name, and are its nodes EC2's in that region?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from gpurunbook.errors import RunbookError
from gpurunbook.stages.nodes import Node
from gpurunbook.targets.eks.account import Account

NEXT = "restore the run's kubeconfig: eksctl utils write-kubeconfig --cluster {name} --region {region}; nothing was written"


def same(account: Account, name: str, server: str, nodes: Iterable[Node]) -> dict[str, str]:
    """`arn_sha256` of the cluster; an ARN holds the account's number, which no journal gets.

    Raises:
        RunbookError: AWS's cluster of that name has another endpoint, or a node's provider ID is none of this region's.
        AwsError: AWS has no such cluster, refuses, or does not answer.
    """
    found, mend = account.call("eks", "describe_cluster", name=name)["cluster"], NEXT.format(name=name, region=account.region)
    if str(found.get("endpoint", "")).rstrip("/").lower() != server.rstrip("/").lower():
        raise RunbookError(f"the kubeconfig leads to {server}, and AWS's cluster {name} is another", where=name, next=mend)
    foreign = [node.name for node in nodes if node.provider_id and not node.provider_id.startswith(f"aws:///{account.region}")]
    if foreign:
        raise RunbookError(f"not EC2's in {account.region}, by their provider IDs: {', '.join(foreign[:5])}",
                           where="kubectl get nodes -o custom-columns=NAME:.metadata.name,ID:.spec.providerID", next=mend)
    return {"arn_sha256": hashlib.sha256(found["arn"].encode()).hexdigest()[:16]}
