"""Whose is it? A thing in the account is ours on one of four proofs, and only if nothing about it says otherwise.

The proofs: it carries the run's tag; it is in one of the cluster's stacks; its id was recorded from the live cluster; it
carries this cluster's ownership tag (OWNERSHIP_TAGS). Names prove nothing: `gpu-cluster` is in many names, and a cluster's
name may be used again. `KubernetesCluster=NAME` and `alpha.eksctl.io/cluster-name=NAME` do not say who deletes a thing,
so they are no proof either; where they name another cluster, they are evidence against. The one exception is a stack: one
that eksctl named for this cluster and tagged with its name is this cluster's, unless a run's tag or its age says otherwise.

Pure: facts in, a verdict out.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpurunbook.targets.eks import tags

EKSCTL_TAGS = ("alpha.eksctl.io/cluster-name", "eksctl.cluster.k8s.io/v1alpha1/cluster-name")
NAMING_TAGS = ("elbv2.k8s.aws/cluster", "cluster.k8s.amazonaws.com/name", "eks:cluster-name", "aws:eks:cluster-name",
               "ebs.csi.aws.com/cluster-name", "KubernetesCluster", *EKSCTL_TAGS)
"""Tags whose value is a cluster's name; the first two are ownership tags."""
LIFE_CYCLE = "kubernetes.io/cluster/"
CLUSTER_ARN = re.compile(r"arn:aws[\w-]*:eks:([\w-]*):(\d*):cluster/([\w-]+)")
IN_STACK, RECORDED = "in one of the cluster's stacks", "recorded from the live cluster"
NAMED = ("cluster", "node group", "log group")
"""Kinds whose id is a name, which another cluster of that name would use again."""


@dataclass(frozen=True)
class Resource:
    """One thing in the account.

    Attributes:
        kind: in words, such as `volume`; the keys of inventory.READERS.
        id: what the aws program takes: an id, a name or an ARN.
        zone: availability zone, "" for what is not in one.
        size: in words, such as "100 GiB gp3".
        created: None where AWS does not say.
        also: other ids of the same thing: a provider's issuer, the interfaces that a NAT gateway is; never used again, as an
            address's IP would be.
        users: ids of what uses it now.
        going: on its way out already: it still uses others, and is no leftover itself.
        protected: why nobody may delete it, or "".
        detail: what prices and commands need, such as {"gib": "100", "type": "gp3"} or {"attachment": "eni-attach-1"}.
    """

    kind: str
    id: str
    region: str = ""
    zone: str = ""
    size: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    created: dt.datetime | None = None
    also: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    going: bool = False
    protected: str = ""
    detail: Mapping[str, str] = field(default_factory=dict, hash=False)


Ids = frozenset[tuple[str, str]]
"""(kind, id) pairs: an auto scaling group and a key pair may have the same name."""


@dataclass(frozen=True)
class Mark:
    """What tells ours from everything else. Unknown: "" or None.

    Attributes:
        run_id, owner: as in the tags of everything that the run made.
        created: when the cluster was made.
        recorded: what was read from the live cluster.
        stacks: what is in the cluster's CloudFormation stacks.
        later: when another cluster was made that has the name now; None when there is none.
        uncertain: why a cluster's name proves nothing at the moment, or "".
    """

    name: str
    region: str
    run_id: str = ""
    owner: str = ""
    cluster_arn: str = ""
    created: dt.datetime | None = None
    recorded: Ids = frozenset()
    stacks: Ids = frozenset()
    later: dt.datetime | None = None
    uncertain: str = ""


def mark(record: Mapping[str, Any]) -> Mark:
    """The Mark of what leftovers.record returned, also after a way through JSON."""
    created = dt.datetime.fromisoformat(record["created"]) if record.get("created") else None
    recorded, stacks = (frozenset((kind, id) for kind, id in record.get(key, ())) for key in ("recorded", "stacks"))
    return Mark(record["name"], record["region"], record.get("run_id", ""), record.get("owner", ""),
                record.get("cluster_arn", ""), created, recorded, stacks)


@dataclass(frozen=True)
class Verdict:
    """`why` names the proof, or, where `spared`, why a thing that has one, or names our cluster, is left alone."""

    ours: bool
    why: str = ""
    spared: bool = False


def verdict(thing: Resource, mark: Mark) -> Verdict:
    """Whether a thing may be deleted, and the rule that says so."""
    proof = _proof(thing, mark)
    against = thing.protected or _another_run(thing, mark) or _another_arn(thing, mark)
    if not against and proof != f"tag {tags.RUN}={mark.run_id}":  # the run's tag is exact, the others go by a name
        against = _another_cluster(thing, mark) or _another_time(thing, mark, proof)
    if proof and not against:
        return Verdict(True, proof)
    named = _names_us(thing, mark)
    if named and not against and thing.kind in ("stack", "log group"):
        against = "only its name says that it is the cluster's"
    return Verdict(False, against, spared=bool(against and (proof or named)))


def _proof(thing: Resource, mark: Mark) -> str:
    if mark.run_id and thing.tags.get(tags.RUN) == mark.run_id:
        return f"tag {tags.RUN}={mark.run_id}"
    pairs = {(thing.kind, id) for id in (thing.id, *thing.also)}
    if pairs & mark.stacks:
        return IN_STACK
    if pairs & mark.recorded:
        return RECORDED
    if thing.kind == "stack" and is_stack_of(thing, mark.name):
        return "one of the cluster's stacks"
    return next((f"tag {key}={value}" for key, value in ownership_tags(mark.name).items()
                 if thing.tags.get(key) == value), "")


def ownership_tags(name: str) -> dict[str, str]:
    """The tags by which controllers, the CSI driver, the CNI and EKS say that a cluster owns a thing."""
    return {f"{LIFE_CYCLE}{name}": "owned", "elbv2.k8s.aws/cluster": name, "cluster.k8s.amazonaws.com/name": name}


def is_stack_of(stack: Resource, name: str) -> bool:
    """Whether eksctl made a stack for this cluster: by its name, and by eksctl's tag.

    The name alone will not do: `eksctl-gpu-nodegroup-a-cluster` is the stack of cluster `gpu-nodegroup-a`.
    """
    return (stack.detail.get("name", "").startswith(f"eksctl-{name}-")
            and any(stack.tags.get(key) == name for key in EKSCTL_TAGS))


def _another_run(thing: Resource, mark: Mark) -> str:
    run, owner = thing.tags.get(tags.RUN, ""), thing.tags.get(tags.OWNER, "")
    if run and run != mark.run_id:
        return f"tag of another run: {tags.RUN}={run}"
    # Two people may start a run of the same name on the same day.
    if owner and mark.owner and owner != mark.owner:
        return f"tag of another person's run: {tags.OWNER}={owner}"
    return ""


def _another_arn(thing: Resource, mark: Mark) -> str:
    for value in thing.tags.values():
        for found in CLUSTER_ARN.finditer(value):
            if (found[0] != mark.cluster_arn if mark.cluster_arn else (found[1], found[3]) != (mark.region, mark.name)):
                return "a tag names another cluster's ARN"
    return ""


def _another_cluster(thing: Resource, mark: Mark) -> str:
    for key, value in thing.tags.items():
        other = key.removeprefix(LIFE_CYCLE) if key.startswith(LIFE_CYCLE) else value if key in NAMING_TAGS else mark.name
        if other != mark.name:
            return f"tag of another cluster: {key}={value}"
        if key.startswith(LIFE_CYCLE) and value != "owned":
            return f"only used by the cluster: {key}={value}"
    return ""


def _another_time(thing: Resource, mark: Mark, proof: str) -> str:
    """A name may have belonged to a cluster before ours, or belong to one after it; an id belongs to one thing for ever."""
    recorded = proof == RECORDED
    if thing.kind == "stack" and not recorded and mark.created and thing.detail.get("name") == f"eksctl-{mark.name}-cluster":
        return "a stack of the same name, not the one that was recorded"
    older = mark.created and thing.created and thing.created < mark.created
    # The cluster's stack is made before the cluster, and so is a key pair and what else the stack makes.
    if older and proof != IN_STACK and not (recorded and thing.kind in ("stack", "key pair")):
        return f"made {_when(thing.created)}, before our cluster ({_when(mark.created)})"
    if proof in (IN_STACK, RECORDED) and thing.kind not in NAMED:
        return ""
    if mark.uncertain:
        return mark.uncertain
    if mark.later and (thing.kind in NAMED or not thing.created or thing.created >= mark.later):
        return f"another cluster of this name was made {_when(mark.later)}: it may be that one's"
    return ""


def _names_us(thing: Resource, mark: Mark) -> bool:
    return (any(thing.tags.get(key) == mark.name for key in NAMING_TAGS) or f"{LIFE_CYCLE}{mark.name}" in thing.tags
            or (thing.kind == "stack" and thing.detail.get("name", "").startswith(f"eksctl-{mark.name}-"))
            or (thing.kind == "log group" and thing.id == f"/aws/eks/{mark.name}/cluster"))


def _when(moment: dt.datetime | None) -> str:
    return "" if moment is None else moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
