"""What has outlived its time in the account: everything that carries a run's tag and an expires-at in the past.

Found by the Resource Groups Tagging API, and by EKS and CloudFormation, whose tags are cheap to read and which are the
usual two. The Tagging API may tell of a thing for some hours after it is gone; a sweep of the run decides.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from gpurunbook import show
from gpurunbook.plan import Check
from gpurunbook.targets.eks import tags
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.ownership import CLUSTER_ARN, EKSCTL_TAGS

ACCOUNT_ID = re.compile(r"(?<![0-9])[0-9]{12}(?![0-9])")
ROWS_PER_RUN = 3
"""ARNs that the table shows of each run."""


@dataclass(frozen=True)
class Tagged:
    """One thing that a run made, as AWS lists it."""

    arn: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Lease:
    """What a run has in the account.

    Attributes:
        cluster: the cluster's name; "" when nothing says it.
        until: the latest expires-at of all that the run made: someone who needs more time sets it anew on the cluster.
        resources: full ARNs, sorted; `masked` before they are shown or kept.
    """

    run_id: str
    owner: str
    cluster: str
    until: dt.datetime
    resources: tuple[str, ...]


@dataclass(frozen=True)
class Leases:
    """`expired`, longest first; `running`, next to expire first; `checks`: unknown for each list that could not be read."""

    expired: tuple[Lease, ...]
    running: tuple[Lease, ...]
    checks: tuple[Check, ...]


def find(account: Account, *, now: dt.datetime) -> Leases:
    """All runs in the account's region that have left something with an expiry. Changes nothing."""
    found: dict[str, Tagged] = {}
    checks = []
    for what, read in (("EKS clusters", _clusters), ("CloudFormation stacks", _stacks), ("everything else", _anything)):
        try:
            # What a service says of its own things is newer than what the Tagging API says of them.
            found = {one.arn: one for one in read(account)} | found
            checks.append(Check(f"tags of {what}", "pass", f"read in {account.region}"))
        except AwsError as error:
            checks.append(Check(f"tags of {what}", "unknown", error.what, error.next or "run the same again",
                                "what nobody sees is billed on"))
    expired, running = sort(found.values(), now=now)
    return Leases(tuple(expired), tuple(running), tuple(checks))


def sort(things: Iterable[Tagged], *, now: dt.datetime) -> tuple[list[Lease], list[Lease]]:
    """(expired, running), by run. Pure. What has no run tag, or no expires-at, is nobody's to reap."""
    runs: dict[str, list[tuple[Tagged, dt.datetime]]] = {}
    for one in things:
        until, run_id = tags.expiry(one.tags), one.tags.get(tags.RUN)
        if run_id and until:
            runs.setdefault(run_id, []).append((one, until))
    leases = sorted((_lease(run_id, members) for run_id, members in runs.items()), key=lambda one: (one.until, one.run_id))
    return [one for one in leases if one.until <= now], [one for one in leases if one.until > now]


def table(leases: Iterable[Lease], *, now: dt.datetime) -> show.Table:
    """Leases as people read them: how long since, or how long still. No account id."""
    rows = []
    for one in leases:
        more = [f"and {len(one.resources) - ROWS_PER_RUN} more"] if len(one.resources) > ROWS_PER_RUN else []
        rows.append([one.run_id, one.owner or "unknown", one.cluster or "unknown",
                     f"{_length(now - one.until)} ago" if one.until <= now else f"in {_length(one.until - now)}",
                     len(one.resources), ", ".join([*map(masked, one.resources[:ROWS_PER_RUN]), *more])])
    return show.Table(["run", "owner", "cluster", "expires", "things", "which"], rows)


def masked(text: str) -> str:
    """The text with every account id as asterisks."""
    return ACCOUNT_ID.sub("*" * 12, text)


def _lease(run_id: str, members: list[tuple[Tagged, dt.datetime]]) -> Lease:
    has = [one.tags for one, _ in members]
    named = [match[3] for one, _ in members if (match := CLUSTER_ARN.fullmatch(one.arn))]
    named += [t[key] for t in has for key in EKSCTL_TAGS if key in t]
    return Lease(run_id, next((t[tags.OWNER] for t in has if t.get(tags.OWNER)), ""), next(iter(named), ""),
                 max(until for _, until in members), tuple(sorted(one.arn for one, _ in members)))


def _clusters(account: Account) -> list[Tagged]:
    found = [account.call("eks", "describe_cluster", name=name)["cluster"]
             for name in account.pages("eks", "list_clusters", "clusters")]
    return [Tagged(one["arn"], tags.flat(one.get("tags"))) for one in found]


def _stacks(account: Account) -> list[Tagged]:
    return [Tagged(one["StackId"], tags.flat(one.get("Tags")))
            for one in account.pages("cloudformation", "describe_stacks", "Stacks")]


def _anything(account: Account) -> list[Tagged]:
    filters: list[dict[str, Any]] = [{"Key": tags.RUN}]
    found = [Tagged(one["ResourceARN"], tags.flat(one.get("Tags")))
             for one in account.pages("resourcegroupstaggingapi", "get_resources", "ResourceTagMappingList", TagFilters=filters)]
    over: set[str] = set()
    if any(":instance/" in one.arn for one in found):
        ended = [{"Name": "instance-state-name", "Values": ["shutting-down", "terminated"]}]
        over |= {instance["InstanceId"] for row in account.pages("ec2", "describe_instances", "Reservations", Filters=ended)
                 for instance in row["Instances"]}
    if any(":natgateway/" in one.arn for one in found):
        over |= {gateway["NatGatewayId"] for gateway in account.pages("ec2", "describe_nat_gateways", "NatGateways")
                 if gateway["State"] in ("deleting", "deleted")}
    # What is over stays listed with its tags for about an hour.
    return [one for one in found if one.arn.rpartition("/")[2] not in over]


def _length(span: dt.timedelta) -> str:
    minutes = int(span.total_seconds() // 60)
    days, hours = divmod(minutes // 60, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"
