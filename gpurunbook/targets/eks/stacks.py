"""A cluster's CloudFormation stacks: which there are, what happens in them, and what an event says in one line.

eksctl makes one stack for the control plane and one for each node group, and tags each with the cluster's name (read
in eksctl 0.230: pkg/cfn/manager). It polls them every 30, later 60 seconds; a Follower sees an event within 3.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpurunbook.targets.eks import tags
from gpurunbook.targets.eks.account import Account, AwsError

CLUSTER_TAG = "alpha.eksctl.io/cluster-name"
KINDS = ("cluster", "nodegroup", "addon", "podidentityrole", "fargate", "accessentry", "karpenter", "capability")
"""The word after `eksctl-NAME-` in the stacks that eksctl makes."""
STACK_TYPE = "AWS::CloudFormation::Stack"
GROUP_TYPES = ("AWS::AutoScaling::AutoScalingGroup", "AWS::EKS::Nodegroup")
"""The resource that stands for a node group: self-managed, managed."""
NODEGROUP_STACK = re.compile(r"eksctl-.+?-nodegroup-(.+)", re.DOTALL)
LATE = dt.timedelta(seconds=10)
"""How far behind a newer event an older one may still turn up."""
START, LAST, TRIES = 10.0, 10.0, 30
"""Seconds that a Follower's first and last reading may hold its user up; failed readings in a row before it gives up."""
ENCODED = re.compile(r"(Encoded authorization failure message:\s*)(\S{12})\S+")


@dataclass(frozen=True)
class Stack:
    """One stack. `kind` is one of KINDS or "other", `group` the node group's name or "", `updated` its last change."""

    name: str
    id: str
    kind: str
    group: str
    status: str
    reason: str
    created: dt.datetime
    updated: dt.datetime | None = None
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def busy(self) -> bool:
        return self.status.endswith("IN_PROGRESS")


@dataclass(frozen=True)
class Event:
    """One step of one resource. `stack` is the stack's name, `resource` the logical id, `time` AWS's own clock (UTC)."""

    stack: str
    resource: str
    type: str
    status: str
    reason: str
    time: dt.datetime
    id: str

    @property
    def group(self) -> str:
        """The node group whose stack this is; "" for every other stack."""
        found = NODEGROUP_STACK.fullmatch(self.stack)
        return found[1] if found else ""

    @property
    def of_stack(self) -> bool:
        """It speaks of the stack itself, not of a resource in it."""
        return self.type == STACK_TYPE and self.resource == self.stack


def of_cluster(account: Account, name: str) -> list[Stack]:
    """The stacks that eksctl made for this cluster, failed and rolling-back ones too; the control plane's first.

    DescribeStacks, not ListStacks: it alone carries the tags, by which cluster `gpu` is told from `gpu-nodegroup-x`,
    and it leaves out what is deleted, which ListStacks keeps for 90 days. Without a name it has no filter, so all the
    region's stacks are read and chosen from here. Raises AwsError.
    """
    found = [_stack(s, name) for s in account.pages("cloudformation", "describe_stacks", "Stacks")]
    mine = [stack for stack in found if stack and stack.status != "DELETE_COMPLETE"]
    return sorted(mine, key=lambda s: (s.kind != "cluster", s.created, s.name))


def _stack(answer: dict[str, Any], cluster: str) -> Stack | None:
    """The stack, or None when it belongs to another cluster, or to none."""
    name, tagged, prefix = answer["StackName"], tags.flat(answer.get("Tags")), f"eksctl-{cluster}-"
    if not name.startswith(prefix) or tagged.get(CLUSTER_TAG, cluster) != cluster:
        return None
    kind, _, rest = name.removeprefix(prefix).partition("-")
    if kind not in KINDS or (kind == "cluster" and rest):
        if CLUSTER_TAG not in tagged:
            return None
        kind = "other"
    return Stack(name, answer["StackId"], kind, rest if kind == "nodegroup" else "",
                 answer["StackStatus"], answer.get("StackStatusReason") or "", answer["CreationTime"],
                 answer.get("LastUpdatedTime"), tagged)


def events(account: Account, stack_id: str, since: dt.datetime | None = None) -> list[Event]:
    """A stack's events, oldest first; only those at or after `since`, which reads no more pages than that takes.

    By id a deleted stack is answered for too (for 90 days), by name it is not. Raises AwsError.
    """
    found: list[Event] = []
    following: dict[str, str] = {}
    while True:  # AWS gives the newest first
        page = account.call("cloudformation", "describe_stack_events", StackName=stack_id, **following)
        new = [_event(e) for e in page.get("StackEvents", []) if since is None or e["Timestamp"] >= since]
        found += new
        if not page.get("NextToken") or len(new) < len(page["StackEvents"]):
            return found[::-1]
        following = {"NextToken": page["NextToken"]}


def _event(answer: dict[str, Any]) -> Event:
    return Event(answer["StackName"], answer.get("LogicalResourceId") or "", answer.get("ResourceType") or "",
                 answer.get("ResourceStatus") or "", answer.get("ResourceStatusReason") or "", answer["Timestamp"],
                 answer["EventId"])


def short(reason: str) -> str:
    """AWS's reason on one line; the hundreds of characters of an encoded authorization message are cut to twelve."""
    return ENCODED.sub(r"\1\2…", " ".join(reason.split()))


def line(event: Event) -> str:
    """One line for a progress display: `gpu-workers: AutoScalingGroup NodeGroup CREATE_IN_PROGRESS`; why, if it failed."""
    what = "stack" if event.of_stack else f"{event.type.rpartition('::')[2]} {event.resource}"
    why = f" - {event.reason}" if event.reason and event.status.endswith("_FAILED") else ""
    return short(f"{_label(event)}: {what} {event.status}{why}")


def _label(event: Event) -> str:
    if event.group:
        return event.group
    return "control plane" if event.stack.endswith("-cluster") else event.stack.removeprefix("eksctl-")


def phase(events: Sequence[Event]) -> str:
    """What is going on now, for people: "control plane", "node group gpu-workers: instances starting", ...

    Args:
        events: oldest first, of any of a cluster's stacks. Where several stacks are busy, each is named.
    """
    by_stack: dict[str, list[Event]] = {}
    for event in events:
        by_stack.setdefault(event.stack, []).append(event)
    if not by_stack:
        return "waiting for CloudFormation"
    busy = [known for known in by_stack.values() if _status(known).endswith("IN_PROGRESS")]
    return "; ".join(_phase(known) for known in busy or [by_stack[events[-1].stack]])


def _status(known: Sequence[Event]) -> str:
    """The stack's own last status; the start of a stack is its own event, so it is unknown only in a cut list."""
    return next((e.status for e in reversed(known) if e.of_stack), "CREATE_IN_PROGRESS")


def _phase(known: Sequence[Event]) -> str:
    group, status = known[-1].group, _status(known)
    label = f"node group {group}" if group else _label(known[-1])
    if "ROLLBACK" in status or "DELETE" in status or status.endswith("_FAILED"):
        return f"{label}: {status.removeprefix('UPDATE_').lower().replace('_', ' ')}"
    last = {e.type: e.status for e in known}
    if group:
        return f"{label}: {_group_phase(last, status)}"
    if not known[-1].stack.endswith("-cluster"):
        return label
    if status.endswith("_COMPLETE"):
        return "control plane: made"
    step = last.get("AWS::EKS::Cluster", "")
    return "control plane" if step.endswith("IN_PROGRESS") else "control plane: last parts" if step else "network"


def _group_phase(last: Mapping[str, str], status: str) -> str:
    """A managed group is made once its nodes have joined; a self-managed one before that, so that eksctl waits for them."""
    self_managed, managed = (last.get(kind, "") for kind in GROUP_TYPES)
    if managed:
        return "instances starting and joining" if managed.endswith("IN_PROGRESS") else "joined"
    if status.endswith("_COMPLETE"):
        return "instances joining"
    return "instances starting" if self_managed else "roles and launch template"


class Follower:
    """Hands over each new event of a cluster's stacks, once and in order, from a thread of its own, while a command runs.

        with Follower(account, "gpu-cluster", tell, blocked=show):
            run(create)

    What is there at the start is old and not told; stacks may appear meanwhile. The last reading is made on the way
    out, which takes at most LAST seconds; nothing is told after that. Nothing is ever raised: what goes wrong is told
    to `blocked`, each kind once, and kept in `error`, and the reading is tried again, up to `tries` times in a row.

    Args:
        tell: gets each event. When it raises, following ends.
        every: the most seconds from an event to its telling; readings start after two thirds of that, AWS has the rest.
        blocked: gets one line for people, when AWS does not answer or refuses.
    """

    def __init__(self, account: Account, cluster_name: str, tell: Callable[[Event], object], every: float = 3.0, *,
                 blocked: Callable[[str], object] = lambda line: None, tries: int = TRIES) -> None:
        self._account, self._name, self._tell, self._blocked = account, cluster_name, tell, blocked
        self._every, self._tries = every, tries
        self.error: Exception | None = None
        self._stacks: dict[str, Stack] = {}
        self._read: dict[str, Stack] = {}  # as they were when nothing more was to come
        self._seen: dict[str, set[str]] = {}
        self._newest: dict[str, dt.datetime] = {}
        self._old: list[dt.datetime] = []  # the start by our own clock, only where the first reading failed
        self._said: set[str] = set()
        self._ready, self._over, self._closed = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._follow, name=f"stacks of {cluster_name}", daemon=True)

    def __enter__(self) -> Follower:
        self._thread.start()
        self._ready.wait(START)
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(LAST)
        self._closed = True

    def _follow(self) -> None:
        started = dt.datetime.now(dt.UTC)
        if not self._reading(lambda event: None):
            self._old = [started]
        self._ready.set()
        failed, pause = 0, self._every * 2 / 3
        while self._wait(pause if failed < self._tries else None):
            began = time.monotonic()
            if last := self._over.is_set():
                self._read.clear()  # an event may become visible after its stack is seen to be done
            failed = 0 if self._reading(self._hand_over) else failed + 1
            if last or self._closed:
                return
            if failed == self._tries:
                self._say(f"CloudFormation's events are followed no more: {failed} readings failed in a row")
            pause = max(0.0, self._every * 2 / 3 * 2 ** min(failed, 3) - (time.monotonic() - began))

    def _wait(self, seconds: float | None) -> bool:
        self._over.wait(seconds)
        return not self._closed

    def _reading(self, hand_over: Callable[[Event], None]) -> bool:
        """Read every stack that may have news, and hand it over by time; False when a part of it could not be read."""
        whole, news = True, []
        try:
            listed = {stack.id: stack for stack in of_cluster(self._account, self._name)}
            gone = {i: replace(s, status="DELETE_COMPLETE") for i, s in self._stacks.items() if i not in listed}
            self._stacks = listed | gone
        except AwsError as error:
            whole = self._failed(error)
        for stack in self._stacks.values():
            if self._read.get(stack.id) == stack:
                continue
            marks = [self._newest[stack.id] - LATE] if stack.id in self._newest else []
            try:
                found = events(self._account, stack.id, max([*marks, *self._old], default=None))
            except AwsError as error:
                whole = self._failed(error)
                continue
            new = [e for e in found if e.id not in self._seen.get(stack.id, ())]
            if not new and not stack.busy:
                self._read[stack.id] = stack
            news += [(event, stack.id) for event in new]
        for event, stack_id in sorted(news, key=lambda pair: pair[0].time):
            self._seen.setdefault(stack_id, set()).add(event.id)
            self._newest[stack_id] = event.time
            hand_over(event)
        return whole

    def _hand_over(self, event: Event) -> None:
        if self._closed:
            return
        try:
            self._tell(event)
        except Exception as error:  # a display that fails must not end a creation that goes on
            self._say(f"CloudFormation's events are followed no more: {type(error).__name__}: {error}")
            self._closed, self.error = True, error

    def _failed(self, error: AwsError) -> bool:
        self.error = error
        if error.code not in self._said:
            self._said.add(error.code)
            self._say(f"CloudFormation's events cannot be read at present: {error.what}")
        return False

    def _say(self, text: str) -> None:
        if not self._closed:
            self._blocked(text)
