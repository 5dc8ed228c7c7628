"""01 on AWS: every rule at once, a table within ten seconds, and no rule's failure in the way of another.

Each rule and each fact that rules share has a thread of its own, which is a daemon: one that AWS leaves hanging delays
neither the table nor the end of the program.
"""

from __future__ import annotations

import datetime as dt
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from gpurunbook import yaml_file
from gpurunbook.errors import RunbookError
from gpurunbook.masking import hide
from gpurunbook.plan import Check
from gpurunbook.targets.eks import amis, instance_types, limits, permissions, registry, taken, versions
from gpurunbook.targets.eks.account import Account, AwsError

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig, NodeGroup

T = TypeVar("T")
MODEL_GB = 5.7
"""databricks/dolly-v2-3b's weights, downloaded to the node's disk where the image lacks them."""
REFUSED = "about 1 min, then eksctl refuses"
CREDENTIALS, AUTHENTICATOR = "AWS credentials", "kubectl can sign in to the cluster"


@dataclass(frozen=True)
class Rule:
    """A question, what finding its answer out later costs, and the answer to come. `aws`: AWS is asked."""

    name: str
    later: str
    answer: Future[Any]
    aws: bool = True


def checks(account: Account, cluster: ClusterConfig, *, today: dt.date, image: str, limit: float = 10.0,
           model_gb: float = MODEL_GB, which: Callable[[str], str | None] | None = shutil.which) -> list[Check]:
    """Everything that can be known about the account before the cluster is paid for, within `limit` seconds.

    Args:
        image: the model's container image.
        model_gb: GB of weights that a node downloads besides; 0 when the image has them.
        which: where a program is on the PATH, None when it is not; without it the machine is not asked.
    """
    import requests  # noqa: F401 - before the threads: imported beside others, its filter of urllib3's warnings is lost
    began = time.monotonic()
    who = start(account.identity)
    rules = _rules(account, cluster, who, today=today, image=image, model_gb=model_gb)
    wait([who], timeout=limit)
    signed_out = who.done() and _signed_out(who.exception())
    wait([rule.answer for rule in rules if not (rule.aws and signed_out)], timeout=max(0.0, began + limit - time.monotonic()))
    found = [credentials(who, limit), *([authenticator(which)] if which else [])]
    found += [outcome(rule, limit, signed_out=signed_out) for rule in rules]
    return [replace(c, evidence=hide(c.evidence), fix=hide("" if c.state == "pass" else c.fix)) for c in found]


def start(work: Callable[[], T]) -> Future[T]:
    """The work's result to come. Not a ThreadPoolExecutor, whose threads Python waits for when it ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="preflight", daemon=True).start()
    return future


def outcome(rule: Rule, limit: float, *, signed_out: bool = False) -> Check:
    """The rule's check; `unknown`, with the reason, when there is none."""
    unknown = partial(Check, rule.name, "unknown", later=rule.later)
    answered = rule.answer.done() and rule.answer.exception() is None
    if rule.aws and signed_out and not answered:  # who we are may be refused, and something else be known all the same
        return unknown(evidence="no credentials")
    if not rule.answer.done():
        return unknown(evidence=f"no answer within {limit:g} s", fix="check the network, then run the same again")
    error = rule.answer.exception()
    if error is None:
        check: Check = rule.answer.result()
        return check
    if isinstance(error, AwsError):
        if error.expired and not signed_out:  # they are good at home
            return unknown(evidence=f"{error.where} does not take these credentials: {error.code}",
                           fix=f"mend what the check `{taken.REGION}` says, or sign in again; then run the same again")
        if error.signed_out:
            return unknown(evidence="no credentials")
        if error.denied:
            return unknown(evidence=f"not allowed: {error.where}",
                           fix=f"allow {error.where} (manifests/aws/reader.json), or ask whoever manages the account")
    if isinstance(error, RunbookError):
        return unknown(evidence=error.what, fix=error.next)
    return unknown(evidence=f"{type(error).__name__}: {error}"[:200],
                   fix="report it: this is a fault of gpurunbook, not of the account")


def _signed_out(error: BaseException | None) -> bool:
    return isinstance(error, AwsError) and error.signed_out


def credentials(who: Future[dict[str, str]], limit: float) -> Check:
    """Who we are to AWS, without the account's full id."""
    later = "at once: nothing works without them; when they expire midway, a cluster half made"
    error = who.exception() if who.done() else None
    if isinstance(error, AwsError) and error.signed_out:
        return Check(CREDENTIALS, "fail", error.what, error.next or "sign in: aws sso login, or set AWS_PROFILE", later)
    if error is not None or not who.done():
        return outcome(Rule(CREDENTIALS, later, who), limit)
    me = who.result()
    evidence = f"account {me['account']}, as {me['name']}"
    if me["arn"].endswith(":root"):
        return Check(CREDENTIALS, "warn", f"{evidence}: nothing limits root", "sign in as a role or a user made for this", later)
    return Check(CREDENTIALS, "pass", evidence, "", later)


def authenticator(which: Callable[[str], str | None]) -> Check:
    """The kubeconfig that eksctl writes calls one of these two for each token."""
    found = next((program for program in ("aws", "aws-iam-authenticator") if which(program)), "")
    return Check(AUTHENTICATOR, "pass" if found else "fail",
                 f"{found} is on the PATH" if found else "neither aws nor aws-iam-authenticator is on the PATH",
                 "install the AWS CLI: conda install -c conda-forge awscli",
                 "15 min, then a cluster that kubectl cannot speak to")


def _rules(account: Account, cluster: ClusterConfig, who: Future[dict[str, str]], *, today: dt.date, image: str,
           model_gb: float) -> list[Rule]:
    document = _document(cluster)
    groups = [g for g in cluster.groups if g.desired > 0]
    names = [g.instance_type for g in groups]
    types = start(lambda: instance_types.describe(account, names))
    zones = start(lambda: instance_types.zones(account))
    offers = start(lambda: instance_types.offerings(account, names))
    pulled = start(lambda: registry.look_up(account, image))
    support = str((document.get("upgradePolicy") or {}).get("supportType") or "")
    asked = tuple(document.get("availabilityZones") or ())

    def rule(name: str, later: str, ask: Callable[[], Check], *, aws: bool = True) -> Rule:
        return Rule(name, later, start(ask), aws)

    def of_group(group: NodeGroup) -> list[Rule]:
        found = start(lambda: amis.of_group(account, group, cluster.version))
        rules = [
            rule(f"{group.name}: instance type", REFUSED, lambda: instance_types.known(group, types.result(), account.region)),
            rule(f"{group.name}: {group.instance_type} is offered", "10 to 25 min, then a group that failed",
                 lambda: instance_types.offered(group, offers.result(), group.zones or asked, zones.result())),
            rule(f"{group.name}: image", amis.LATER, lambda: _image(group, found, cluster.version, today, account.region))]
        if instance_types.newest_gpu(group):
            rules.append(rule(f"{group.name}: the driver knows the GPU", "25 min, then a node without a GPU to give",
                              lambda: instance_types.driver(group, found.result().text)))
        if group.gpu:
            rules.append(rule(f"{group.name}: disk", "30 min, then DiskPressure and evicted pods",
                              lambda: registry.disk(group, pulled.result().size, model_gb), aws=registry.in_ecr(image)))
        return rules

    return [
        rule(taken.REGION, taken.REGION_LATER, lambda: taken.region(taken.regions(account), account.region)),
        rule(taken.CLUSTER, taken.CLUSTER_LATER, lambda: taken.check(account, cluster.name)),
        rule(permissions.NAME, permissions.LATER, lambda: _permitted(account, who, cluster.name)),
        rule(versions.NAME, REFUSED, lambda: versions.check(versions.describe(account), cluster.version, today, support=support)),
        *(found for group in groups for found in of_group(group)),
        rule("two zones for the cluster", REFUSED,
             lambda: instance_types.common(groups, offers.result(), asked, zones.result())),
        *_quotas(account, cluster, document, groups, types, zones, who),
        rule(registry.NAME, registry.LATER, lambda: _pulled(pulled), aws=registry.in_ecr(image))]


def _quotas(account: Account, cluster: ClusterConfig, document: Mapping[str, Any], groups: Sequence[NodeGroup],
            types: Future[dict[str, instance_types.InstanceType]], zones: Future[list[str]],
            who: Future[dict[str, str]]) -> list[Rule]:
    spot, region, name = _spot(document), account.region, cluster.name
    running = start(lambda: limits.instances(account, name))
    shares: dict[limits.Quota, list[NodeGroup]] = {}
    for group in groups:
        if found := limits.bucket(group.instance_type):
            shares.setdefault(limits.of_bucket(found, group.name in spot), []).append(group)

    def vcpus(quota: limits.Quota, sharing: Sequence[NodeGroup]) -> Check:
        at = start(lambda: limits.value(account, quota))
        same = [i for i in running.result() if (b := limits.bucket(i.type)) and limits.of_bucket(b, i.spot).code == quota.code]
        known = dict(types.result())
        others = [i.type for i in same if i.type not in known]
        known |= instance_types.describe(account, others) if others else {}
        unknown = {g.instance_type for g in sharing} - known.keys()
        if unknown:
            raise RunbookError(f"{region} has no instance type {', '.join(unknown)}",
                               next="set another instanceType in cluster.yaml")
        return limits.vcpus(quota, region, sharing, same, known, at.result())

    needs = limits.network(document)
    counts: list[tuple[limits.Quota, Callable[[], list[dict[str, Any]]], int]] = [
        (limits.ADDRESSES, lambda: limits.addresses(account), needs.nats),
        (limits.VPCS, lambda: limits.vpcs(account, who.result()["account"]), needs.vpcs),
        (limits.GATEWAYS, lambda: limits.internet_gateways(account), needs.vpcs)]

    def counted(quota: limits.Quota, read: Callable[[], list[dict[str, Any]]], needed: int) -> Check:
        at = start(lambda: limits.value(account, quota))
        return limits.counted(quota, region, name, read(), needed, at.result())

    def nats() -> Check:
        at = start(lambda: limits.value(account, limits.NATS))
        return limits.nats(region, name, limits.nat_gateways(account), zones.result(), needs.per_zone, at.result())

    def clusters() -> Check:
        at = start(lambda: limits.value(account, limits.CLUSTERS))
        there = limits.clusters(account)
        return limits.compare(limits.CLUSTERS, region, needed=int(name not in there), used=len(there), at=at.result())

    return [*(Rule(q.name, q.later, start(partial(vcpus, q, sharing))) for q, sharing in shares.items()),
            *(Rule(q.name, q.later, start(partial(counted, q, read, needed))) for q, read, needed in counts),
            Rule(limits.NATS.name, limits.NATS.later, start(nats)),
            Rule(limits.CLUSTERS.name, limits.CLUSTERS.later, start(clusters))]


def _permitted(account: Account, who: Future[dict[str, str]], cluster: str) -> Check:
    arn = who.result()["arn"]
    me = permissions.principal(account, arn)
    asked = permissions.resources(arn, account.region, cluster)
    answers = [start(partial(permissions.simulate, account, me, resource, actions)) for resource, actions in asked.items()]
    return permissions.check([result for answer in answers for result in answer.result()], sum(map(len, asked.values())))


def _image(group: NodeGroup, found: Future[amis.Image], kubernetes: str, today: dt.date, region: str) -> Check:
    try:
        return amis.check(found.result(), group, kubernetes, today, region=region)
    except AwsError:
        raise
    except RunbookError as error:
        return Check(f"{group.name}: image", "fail", error.what, error.next, amis.LATER)


def _pulled(found: Future[registry.Found]) -> Check:
    try:
        return registry.check(found.result())
    except (AwsError, registry.NoAnswer):
        raise
    except RunbookError as error:
        return Check(registry.NAME, "fail", error.what, error.next, registry.LATER)


def _document(cluster: ClusterConfig) -> dict[str, Any]:
    """cluster.yaml again, for what ClusterConfig leaves out: zones, the VPC, spot, supportType."""
    document: dict[str, Any] = yaml_file.load(cluster.path)
    return document


def _spot(document: Mapping[str, Any]) -> set[str]:
    """Names of the groups that start spot instances only."""
    spot = {g["name"] for g in document.get("managedNodeGroups") or () if g.get("spot")}
    for group in document.get("nodeGroups") or ():
        mix = group.get("instancesDistribution") or {}
        if mix and not mix.get("onDemandBaseCapacity") and mix.get("onDemandPercentageAboveBaseCapacity") == 0:
            spot.add(group["name"])
    return spot
