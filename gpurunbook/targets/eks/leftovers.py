"""What of a run, or of a cluster, is still in the account: `record` while the cluster lives, `find` when it is gone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from gpurunbook import show
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check
from gpurunbook.targets.eks import inventory, ownership, stack_members, tags
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.ownership import Mark, Resource

AT_ONCE = 8
"""Kinds read at the same time: EC2 throttles an account that asks for more."""
FILTER_VALUES = 200
"""Values that one filter of EC2 takes."""
HOLDERS = ("cluster", "node group", "auto scaling group", "instance")
"""What holds interfaces and volumes, or starts what does: it cannot wait for its stack, which these would block."""
SAME_MOMENT = dt.timedelta(seconds=1)


@dataclass(frozen=True)
class Leftover(Resource):
    """A thing that is ours and still there.

    Attributes:
        why: the proof.
        per_hour: USD, None when the price is unknown.
        with_stack: it goes with its stack, which is a leftover too, and needs no command of its own.
    """

    why: str = ""
    per_hour: Decimal | None = None
    with_stack: bool = False

    @property
    def place(self) -> str:
        return self.zone or self.region


Price = Callable[[Leftover], Decimal | None]


@dataclass(frozen=True)
class Found:
    """The answer of `find`.

    Attributes:
        leftovers: what may and should be deleted.
        spared: (thing, reason): what names our cluster or carries a proof, and is left alone.
        checks: one for each kind: pass (none), fail (some), warn (ours, but in use by something foreign), unknown (could not
            be read).
    """

    leftovers: tuple[Leftover, ...]
    spared: tuple[tuple[Resource, str], ...]
    checks: tuple[Check, ...]

    @property
    def clean(self) -> bool:
        """Nothing is left, and everything could be read."""
        return all(check.state == "pass" for check in self.checks)

    @property
    def table(self) -> show.Table:
        rows = [[one.kind, short(one), one.size, one.place, "unknown" if one.per_hour is None else f"{one.per_hour:.4f}", one.why]
                for one in self.leftovers]
        return show.Table(["kind", "id", "size", "zone or region", "$/hour", "ours because"], rows)


def short(thing: Resource) -> str:
    """A thing's id as people know it: a name rather than an ARN."""
    return thing.detail.get("name", thing.id.rpartition("/")[2]) if thing.id.startswith("arn:") else thing.id


def record(account: Account, name: str, *, volumes: Iterable[str] = ()) -> dict[str, Any]:
    """What must be known of a cluster after it is gone, for the journal; `ownership.mark` reads it back.

    Args:
        volumes: volume handles of the PVs that a CSI driver made (not those that somebody wrote by hand).

    Returns:
        JSON: name, region, run_id, owner, cluster_arn, created, recorded and stacks ([kind, id] each), and `unread`:
        what AWS did not tell. An absent cluster is no error: its stacks may still be there.
    """
    told: dict[str, Any] = {"name": name, "region": account.region, "run_id": "", "owner": "", "cluster_arn": "", "created": "",
                            "recorded": [["volume", id] for id in volumes], "stacks": [], "unread": []}
    for read in (_record_cluster, _record_stacks, _record_key_pairs):
        try:
            read(account, name, told)
        except Exception as error:  # what is known so far is worth keeping
            if not (isinstance(error, AwsError) and error.absent):
                told["unread"].append(_unread(read.__name__, error).what)
    return told


def _record_cluster(account: Account, name: str, told: dict[str, Any]) -> None:
    cluster = account.call("eks", "describe_cluster", name=name)["cluster"]
    has, network = tags.flat(cluster.get("tags")), cluster.get("resourcesVpcConfig", {})
    issuer = cluster.get("identity", {}).get("oidc", {}).get("issuer", "").removeprefix("https://")
    told |= {"run_id": has.get(tags.RUN, ""), "owner": has.get(tags.OWNER, ""), "cluster_arn": cluster["arn"],
             "created": cluster["createdAt"].isoformat()}
    told["recorded"] += [[kind, id] for kind, id in (
        ("cluster", name), ("security group", network.get("clusterSecurityGroupId")), ("OIDC provider", issuer),
        ("log group", f"/aws/eks/{name}/cluster")) if id]
    told["recorded"] += [[group.kind, group.id] for group in inventory.node_groups(account, name)]


def _record_stacks(account: Account, name: str, told: dict[str, Any]) -> None:
    for stack in stack_members.stacks(account, name, deleted=False):
        if ownership.is_stack_of(stack, name):
            told["run_id"] = told["run_id"] or stack.tags.get(tags.RUN, "")
            told["owner"] = told["owner"] or stack.tags.get(tags.OWNER, "")
            told["recorded"].append(["stack", stack.id])
            told["stacks"] += [list(pair) for pair in stack_members.members(account, stack)]


def _record_key_pairs(account: Account, name: str, told: dict[str, Any]) -> None:
    """Key pairs that eksctl imported: of its own naming, and in use by the cluster's launch templates."""
    used = {version.get("LaunchTemplateData", {}).get("KeyName", "") for kind, id in told["stacks"] if kind == "launch template"
            for version in account.pages("ec2", "describe_launch_template_versions", "LaunchTemplateVersions",
                                         LaunchTemplateId=id)}
    told["recorded"] += [[pair.kind, pair.id] for pair in (inventory.key_pairs(account, name) if used - {""} else ())
                         if pair.detail["name"] in used and pair.detail["name"].startswith(f"eksctl-{name}-nodegroup-")]


def find(account: Account, mark: Mark, *, price: Price = lambda leftover: None) -> Found:
    """Everything of ours that is still in the region (and, for OIDC providers, in the account). Changes nothing.

    Raises:
        RunbookError: the account is read in another region than the mark's.
    """
    if account.region != mark.region:
        raise RunbookError(f"the cluster is in {mark.region}, not in {account.region}", where="--region",
                           next=f"name --region {mark.region}")
    read: dict[str, list[Resource] | AwsError] = {}
    read["cluster"] = _tried(inventory.clusters, account, mark.name)
    mark = _as_the_name_is_now(mark, read["cluster"])
    read["stack"], inside = _stacks(account, mark)
    mark = replace(mark, stacks=mark.stacks | inside[True] | inside[False])
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = {kind: pool.submit(_tried, reader, account, mark.name) for kind, (reader, _) in inventory.READERS.items()}
        read |= {kind: job.result() for kind, job in jobs.items()}
    ours, spared = judge([thing for things in read.values() if not isinstance(things, AwsError) for thing in things], mark)
    def with_rules(account: Account, name: str) -> list[Resource]:
        return _with_rules(account, ours)

    rules = _tried(with_rules, account, mark.name)
    read["rules between security groups"] = rules if isinstance(rules, AwsError) else []
    ours = ours if isinstance(rules, AwsError) else rules
    leftovers = [Leftover(**vars(thing), why=ownership.verdict(thing, mark).why,
                          with_stack=(thing.kind, thing.id) in inside[True] and thing.kind not in HOLDERS)
                 for thing in ours if not thing.going]
    leftovers = [replace(one, per_hour=price(one)) for one in sorted(leftovers, key=lambda one: (one.kind, one.id))]
    held = [(thing, why) for thing, why in spared if ownership.verdict(thing, mark).ours]
    return Found(tuple(leftovers), tuple(spared),
                 tuple(_check(kind, things, leftovers, held, mark) for kind, things in read.items()))


def judge(things: Iterable[Resource], mark: Mark) -> tuple[list[Resource], list[tuple[Resource, str]]]:
    """(ours, spared with the reason). Pure. A thing of ours that something foreign uses is spared."""
    verdicts = [(thing, ownership.verdict(thing, mark)) for thing in things]
    spared = [(thing, said.why) for thing, said in verdicts if said.spared]
    ours = [thing for thing, said in verdicts if said.ours]
    while True:
        ids = {id for thing in ours for id in (thing.id, *thing.also)}
        used = [(thing, f"in use by {', '.join(sorted(set(thing.users) - ids))}, not ours")
                for thing in ours if set(thing.users) - ids]
        if not used:
            return ours, spared
        spared += used
        ours = [thing for thing in ours if thing not in [one for one, _ in used]]


def _as_the_name_is_now(mark: Mark, cluster: list[Resource] | AwsError) -> Mark:
    if isinstance(cluster, AwsError):
        return replace(mark, uncertain="whether another cluster has the name now could not be read")
    made = cluster[0].created if cluster else None
    return replace(mark, later=made if mark.created and made and made - mark.created > SAME_MOMENT else None)


def _stacks(account: Account, mark: Mark) -> tuple[list[Resource] | AwsError, dict[bool, ownership.Ids]]:
    """The stacks that are still there, and what is in ours: in those that live (True), left by those that do not (False)."""
    inside: dict[bool, ownership.Ids] = {True: frozenset(), False: frozenset()}
    try:
        found = stack_members.stacks(account, mark.name, since=mark.created)
        for stack in found:
            if ownership.verdict(stack, mark).ours:
                inside[stack_members.lives(stack)] |= frozenset(stack_members.members(account, stack))
    except Exception as error:
        return _unread("stacks", error), inside
    return [stack for stack in found if stack_members.lives(stack)], inside


def _with_rules(account: Account, ours: list[Resource]) -> list[Resource]:
    """Our security groups with the ids of their rules that name another group of ours: those block its deletion."""
    groups = [thing.id for thing in ours if thing.kind == "security group"]
    rules: dict[str, dict[str, list[str]]] = {id: {"ingress": [], "egress": []} for id in groups}
    for start in range(0, len(groups), FILTER_VALUES):
        for rule in account.pages("ec2", "describe_security_group_rules", "SecurityGroupRules",
                                  Filters=[{"Name": "group-id", "Values": groups[start:start + FILTER_VALUES]}]):
            other = rule.get("ReferencedGroupInfo", {}).get("GroupId")
            if rule["GroupId"] in rules and other in rules and other != rule["GroupId"]:
                rules[rule["GroupId"]]["egress" if rule["IsEgress"] else "ingress"].append(rule["SecurityGroupRuleId"])
    return [replace(thing, detail={**thing.detail, **{way: " ".join(sorted(ids)) for way, ids in rules[thing.id].items() if ids}})
            if thing.kind == "security group" else thing for thing in ours]


def _tried(reader: inventory.Reader, account: Account, name: str) -> list[Resource] | AwsError:
    try:
        return reader(account, name)
    except Exception as error:
        return _unread(reader.__name__, error)


def _unread(reader: str, error: Exception) -> AwsError:
    """One answer that is not as AWS documents it must not end the search for all the others."""
    if isinstance(error, AwsError):
        return error
    return AwsError(f"{reader.strip('_')}: AWS's answer could not be read: {type(error).__name__}: {error}"[:200],
                    type(error).__name__, where=reader, next="report it: this is a fault of gpurunbook, not of the account")


LATER: Mapping[str, str] = {kind: later for kind, (_, later) in inventory.READERS.items()} | {
    "cluster": "billed by the hour until somebody finds it", "stack": "its name cannot be used again",
    "rules between security groups": "a VPC cannot be deleted"}


def _check(kind: str, read: list[Resource] | AwsError, leftovers: list[Leftover], held: list[tuple[Resource, str]],
           mark: Mark) -> Check:
    what, later = f"left behind: {kind}", LATER[kind]
    if isinstance(read, AwsError):
        return Check(what, "unknown", read.what, read.next or "run the same again", later)
    left = [one for one in leftovers if one.kind == kind]
    used = "; ".join(f"{short(thing)}: {why}" for thing, why in held if thing.kind == kind)
    if not left:
        return Check(what, "warn", used, "end that use, then run the same again", later) if used else Check(
            what, "pass", "none of ours")
    cost = [f"${one.per_hour:.4f}/h" if one.per_hour is not None else "price unknown" for one in left]
    named = [", ".join(filter(None, [short(one), one.size, one.place, price])) for one, price in zip(left, cost, strict=True)]
    return Check(what, "fail", "; ".join([*named, *([used] if used else [])]),
                 f"gpurunbook teardown --cluster {mark.name} --region {mark.region}", later)
