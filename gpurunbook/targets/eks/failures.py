"""Why a cluster could not be made or removed, from CloudFormation's events and eksctl's output, and what to do next.

Pure, but for `health` and `launches`. The patterns are AWS's and eksctl's own wordings;
tests/data/aws/failures says where each was seen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.stacks import NODEGROUP_STACK, Event, short

LONGEST = 2000
"""Characters kept of a message: a group of many nodes names each of them."""
STUCK = ("ROLLBACK_FAILED", "DELETE_FAILED", "UPDATE_ROLLBACK_FAILED")
HEALED = {"CREATE_IN_PROGRESS": "", "CREATE_COMPLETE": "", "UPDATE_IN_PROGRESS": "", "UPDATE_COMPLETE": "",
          "DELETE_IN_PROGRESS": "DELETE", "DELETE_COMPLETE": "DELETE"}
"""A stack's status that makes its earlier failures history: all of them, or only those whose status has this word."""
CONSEQUENCE = re.compile(r"Resource \w+ cancell?ed|following resource\(s\) failed to|^\s*Rollback requested|User Initiated", re.I)
"""Reasons that only say that something else failed."""
ZONE = r"[a-z]{2}(?:-[a-z0-9]+){1,5}-\d{1,2}[a-z]"
OFFER = re.compile(rf"(?:or choosing|choose from these availability zones:)((?:[\s,]{{1,3}}(?:and |or )?{ZONE})+)", re.I)
"""AWS's list of good zones."""
ACTION = re.compile(r"(?:API: |not authorized to perform:? )([a-z0-9-]+:[A-Za-z]+)")


@dataclass(frozen=True)
class Failure:
    """What failed first.

    Attributes:
        kind: a key of NEXT.
        stack, group, resource: where; "" where it is not said. `resource` is the logical id.
        message: AWS's own words, or eksctl's; account ids are still in it.
        zones: the zones that AWS says are good.
        next: what to do, as something that can be typed or changed.
        again: trying again can help without a person: elsewhere (`zones`), or later.
    """

    kind: str
    stack: str
    group: str
    resource: str
    message: str
    zones: tuple[str, ...]
    next: str
    again: bool


PATTERNS = tuple((kind, re.compile(pattern, re.I)) for kind, pattern in (
    # An expired token is also a refusal, and an image that is not ours also "not authorized": the narrower comes first.
    ("credentials", r"ExpiredToken|security token included in the request is (expired|invalid)|RequestExpired|"
                    r"InvalidClientTokenId|UnrecognizedClientException|failed to refresh cached credentials|"
                    r"NoCredentialProviders|no EC2 IMDS role found|SSO session .{0,40}(expired|invalid)"),
    ("quota", r"VcpuLimitExceeded|current vCPU limit|MaxSpotInstanceCountExceeded|Max spot instance count exceeded|"
              r"InstanceLimitExceeded|than your current instance limit"),
    ("no-capacity", r"InsufficientInstanceCapacity|InsufficientHostCapacity|UnfulfillableCapacity|no Spot capacity available|"
                    r"not (currently )?have sufficient|UnsupportedAvailabilityZone"),
    ("type", r"instance type \(\S{1,60}\) is not supported in your requested|requested configuration is currently not supported|"
             r"Ec2InstanceTypeDoesNotExist|Invalid instance type|instance type \S{1,60} does not exist"),
    ("image", r"image id '?\[?ami-\w+\]?'? does not exist|InvalidAMIID|AmiIdNotFound|not authorized for images|"
              r"unable to find (AMI|image)|error getting AMI from"),
    ("limit", r"maximum number of [^.]{1,80} has been reached|(Address|Vpc|Gateway|Group|Cluster|Resource|Iam)s?LimitExceeded|"
              r"\bLimitExceeded|exceeds? the (limit|quota|maximum)|reached your quota|ServiceQuotaExceeded|"
              r"InsufficientFreeAddresses"),
    ("denied", r"not authorized|AccessDenied|Access denied|UnauthorizedOperation|permissions error|"
               r"explicit deny|AuthFailure|Encoded authorization"),
    ("service", r"Your request for accessing resources in this region is being validated|PendingVerification|Throttling|"
                r"Rate exceeded|StatusCode: 50\d|Status Code: 50\d|InternalFailure|InternalError|ServiceUnavailable|"
                r"Service Unavailable|ServiceInternalError"),
    ("config", r"error unmarshaling JSON|invalid version|no longer supported, supported values|unknown (field|flag|command)|"
               r"loading config file|cannot use --|unsupported Kubernetes version|Label cannot contain reserved"),
    ("exists", r"AlreadyExists|already exists"),
    ("absent", r"No cluster found for name"),
    ("join", r"NodeCreationFailure|failed to join the kubernetes cluster|Unhealthy nodes in the kubernetes cluster|"
             r"timed out .{0,80}nodes? to join|SUCCESS signal\(s\) out of|resource signal\(s\)"),
))
"""Tried in this order: a message of a managed group names the launch failure and, after it, that nodes did not join."""
NEXT = {
    "no-capacity": "name another zone, or an instance type of like size, for the group in cluster.yaml, then run the same again",
    "quota": "gpurunbook preflight names the quota and the command that asks AWS for more, which may take AWS hours",
    "join": "aws ec2 get-console-output --latest --instance-id ID says what the node did at its start; then compare its role, "
            "its subnet's way out and its AMI with cluster.yaml",
    "rollback": "remove what holds it, then: aws cloudformation delete-stack --stack-name {stack}",
    "limit": "gpurunbook preflight shows what is used of it: release one, or ask AWS for more in Service Quotas",
    "denied": "allow {action} to this identity (manifests/aws/provision.json), then run the same again",
    "credentials": "sign in again (aws sso login, or a new AWS_PROFILE), then run the same again: it goes on with what is there",
    "exists": "run the same again: it finds what is there and makes only the rest; aws cloudformation describe-stacks "
              "--stack-name {stack} shows what it is",
    "image": "gpurunbook ami names an image that this account can see; put its family, or nothing, in cluster.yaml's `ami`",
    "type": "name another zone, or an instance type offered there, for the group in cluster.yaml, then run the same again",
    "config": "mend cluster.yaml as the message says, then run the same again",
    "absent": "aws cloudformation describe-stacks shows whether its stacks are still there: deleting is by stack then",
    "service": "wait some minutes, then run the same again",
    "unknown": "aws cloudformation describe-stack-events --stack-name {stack} shows what came before it",
}
"""What to do next, by kind."""
AGAIN = ("no-capacity", "service")
VAGUE = ("join", "unknown")
"""Kinds that say what did not come about, not why."""


def classify(events: Sequence[Event], *, output: str = "", health: Sequence[str] = ()) -> Failure | None:
    """The root cause, or None when nothing failed. Never raises, whatever the texts.

    A stack that is stuck comes first, since nothing can be made before it is mended; then the earliest failed event
    that is not the consequence of another; then what EKS and eksctl say. eksctl's exit code is no evidence: it ends
    with 0 beside a group that failed earlier (eksctl#4977).

    Args:
        events: of one cluster's stacks, or of one of them, in any order. What a stack has outlived is history.
        output: all that eksctl printed.
        health: lines of `health` and `launches`; they count where events and output only say that nodes did not join.
    """
    failed = [e for e in _present(events) if e.status.endswith("_FAILED") or (e.of_stack and "ROLLBACK" in e.status)]
    roots = [e for e in failed if e.reason.strip() and not CONSEQUENCE.search(e.reason)]
    root = _of_event((roots or failed)[0]) if failed else None
    if stuck := _stuck(events):
        began = f"; it began with {root.kind}: {root.message}" if root and root.message != stuck.message else ""
        return replace(stuck, next=stuck.next + began)
    if root and root.kind not in VAGUE:
        return root
    base = root or _printed(output)
    said = [_made(line) for line in health if line.strip()]
    known = [failure for failure in said if failure.kind not in VAGUE]
    better = known or (said if base is None or base.kind == "unknown" else [])
    if base is None or (better and base.kind in VAGUE):
        where = base or Failure("", "", "", "", "", (), "", False)
        return replace(better[0], stack=where.stack, group=where.group, resource=where.resource) if better else None
    return base


def _present(events: Iterable[Event]) -> list[Event]:
    """The events by time, without the failures that their stack has since outlived."""
    kept: list[Event] = []
    for event in sorted(events, key=lambda e: e.time):
        if event.of_stack and event.status in HEALED:
            word = HEALED[event.status]
            kept = [e for e in kept if e.stack != event.stack or word not in e.status]
        kept.append(event)
    return kept


def _stuck(events: Iterable[Event]) -> Failure | None:
    """The first stack that neither goes forward nor back, with the resource that holds it."""
    by_stack: dict[str, list[Event]] = {}
    for event in _present(events):
        by_stack.setdefault(event.stack, []).append(event)
    for known in by_stack.values():
        own = [n for n, e in enumerate(known) if e.of_stack]
        if not own or known[own[-1]].status not in STUCK:
            continue
        start = own[-2] if len(own) > 1 else 0
        holding = [e for e in known[start:] if e.status.endswith("_FAILED") and not e.of_stack
                   and not CONSEQUENCE.search(e.reason)]
        return _of_event((holding or [known[own[-1]]])[0], "rollback")
    return None


def _of_event(event: Event, kind: str = "") -> Failure:
    return _made(event.reason, kind, event.stack, event.group, event.resource)


def _made(text: str, kind: str = "", stack: str = "", group: str = "", resource: str = "") -> Failure:
    message = short(text)[:LONGEST]
    kind = kind or next((kind for kind, pattern in PATTERNS if pattern.search(text)), "unknown")
    zones = _zones(text) if kind in ("no-capacity", "type") else ()
    action = ACTION.search(message)
    following = NEXT[kind].replace("{stack}", stack or "STACK").replace("{action}", action[1] if action else "what it names")
    return Failure(kind, stack, group, resource, message, zones, following, kind in AGAIN or bool(zones))


def _zones(text: str) -> tuple[str, ...]:
    """The zones that AWS offers, in its order, each once."""
    found = [zone for offer in OFFER.findall(text) for zone in re.findall(ZONE, offer)]
    return tuple(dict.fromkeys(found))


SAYS_FAILED = re.compile(r"^(?:\S+ \S+ )?\[✖\]\s*(.+)|^Error: (.+)")
"""Lines of eksctl's output that speak of a failure; its [!] lines also stand in runs that end well."""
SAYS_LITTLE = re.compile(r"failed to create cluster|failed to create nodegroups|unexpected status|exceeded max wait time")
RESOURCE = re.compile(r"AWS::\w+::\w+/(\w+): \w+_FAILED")
STACK = re.compile(r"""["\[](eksctl-[^"\]\s]+)["\]]""")
GROUP = re.compile(r"""(?:ready in|nodegroup) "([^"]+)\"""")


def _printed(output: str) -> Failure | None:
    """The failure that eksctl's output tells of; None when it tells of none."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = [found[1] or found[2] for found in map(SAYS_FAILED.match, lines) if found]
    said = [line for line in said if not CONSEQUENCE.search(line)]
    made = [_of_line(line) for line in said]
    known = [failure for failure in made if failure.kind != "unknown"]
    # An SDK holds a refusal for passing, so that eksctl waits on with expired credentials, or is ended at its limit.
    expired = [_of_line(line) for line in (lines if said else lines[-1:]) if PATTERNS[0][1].search(line)]
    little = [failure for failure in made if SAYS_LITTLE.search(failure.message)]
    telling = [failure for failure in made if failure not in little]
    return next(iter([*known, *expired, *telling, *little]), None)


def _of_line(line: str) -> Failure:
    stack, group, resource = (found[1] if found else "" for found in
                              (STACK.search(line), GROUP.search(line), RESOURCE.search(line)))
    of_stack = NODEGROUP_STACK.fullmatch(stack)
    return _made(line, "", stack, group or (of_stack[1] if of_stack else ""), resource)


def advice(failure: Failure, *, cluster_zones: Sequence[str]) -> str:
    """One sentence: what to do next, with the zones that are both good and the cluster's.

    Args:
        cluster_zones: where the cluster has subnets; empty when that is not known.
    """
    where = f"node group {failure.group}" if failure.group else "the cluster"
    if not failure.zones:
        return f"{where}: {failure.next}"
    good = [zone for zone in failure.zones if zone in cluster_zones or not cluster_zones or not failure.group]
    if good:
        return f"{where}: set availabilityZones: [{', '.join(good)}] in cluster.yaml (AWS names them as good), then run again"
    return (f"{where}: AWS names {', '.join(failure.zones)} as good, but the cluster has subnets only in "
            f"{', '.join(cluster_zones)}: take another instance type, or make the cluster anew with availabilityZones "
            f"that hold one of them")


def health(account: Account, cluster: str, group: str) -> list[str]:
    """What EKS holds against a managed node group, as "CODE: message"; a self-managed one is not known to EKS, so has none.

    Raises AwsError, but not for a group or cluster that is not there.
    """
    try:
        answer = account.call("eks", "describe_nodegroup", clusterName=cluster, nodegroupName=group)
    except AwsError as error:
        if error.absent:
            return []
        raise
    issues = answer["nodegroup"].get("health", {}).get("issues") or []
    return [f"{issue.get('code', 'Unknown')}: {issue.get('message', '')}" for issue in issues]


def launches(account: Account, stack: str) -> list[str]:
    """Why a self-managed group's instances do not start, newest first: its failed scaling activities since the last good one.

    CloudFormation may wait for the group, or call it made, without a word on why there are no instances (eksctl#1072);
    this says it about a minute after the group is there. Raises AwsError, but not for a stack or group that is not there.

    Args:
        stack: name or id of the node group's stack.
    """
    try:
        made = account.call("cloudformation", "describe_stack_resource", StackName=stack, LogicalResourceId="NodeGroup")
        name = made["StackResourceDetail"].get("PhysicalResourceId") or ""
        if not name:
            return []
        found = account.call("autoscaling", "describe_scaling_activities", AutoScalingGroupName=name, MaxRecords=20)["Activities"]
    except AwsError as error:
        if error.absent:
            return []
        raise
    failed = takewhile(lambda activity: activity["StatusCode"] != "Successful", found)
    return list(dict.fromkeys(a.get("StatusMessage") or "no reason given" for a in failed if a["StatusCode"] == "Failed"))
