"""Stacks: which are a cluster's, their events in order, following them live, and the words for people."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from gpurunbook.targets.eks import stacks
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.stacks import Event, Follower, Stack
from tests.aws.answers import Answers

CLUSTER, GROUP = "eksctl-gpu-cluster-cluster", "eksctl-gpu-cluster-nodegroup-"
GPU, CPU = f"{GROUP}gpu-workers", f"{GROUP}cpu-workers"
TOPIC = json.dumps({"Resources": {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "x"}}}})
START = dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC)
ASG, MNG = stacks.GROUP_TYPES


def event(stack: str, resource: str, kind: str, status: str, reason: str = "", second: float = 0, id: str = "") -> Event:
    return Event(stack, resource, kind, status, reason, START + dt.timedelta(seconds=second), id or f"{resource}-{status}")


def made(account: Account, name: str, **tags: str) -> str:
    """A stack that moto makes; `cluster` becomes eksctl's tag."""
    keys = {"cluster": stacks.CLUSTER_TAG}
    body = TOPIC.replace('"x"', f'"{name}"')
    answer = account.call("cloudformation", "create_stack", StackName=name, TemplateBody=body,
                          Tags=[{"Key": keys[k], "Value": v} for k, v in tags.items()])
    return str(answer["StackId"])


# Which stacks are the cluster's


def test_a_clusters_stacks_are_known_by_name_and_kind(account: Account) -> None:
    for name in (GPU, CPU):
        made(account, name, cluster="gpu-cluster")
    made(account, CLUSTER, cluster="gpu-cluster")
    made(account, "eksctl-gpu-cluster-addon-vpc-cni", cluster="gpu-cluster")
    made(account, "eksctl-gpu-cluster-something-new", cluster="gpu-cluster")
    found = stacks.of_cluster(account, "gpu-cluster")
    assert [(s.name, s.kind, s.group) for s in found] == [
        (CLUSTER, "cluster", ""), (GPU, "nodegroup", "gpu-workers"), (CPU, "nodegroup", "cpu-workers"),
        ("eksctl-gpu-cluster-addon-vpc-cni", "addon", ""), ("eksctl-gpu-cluster-something-new", "other", "")]
    assert found[0].status == "CREATE_COMPLETE"
    assert not found[0].busy
    assert found[0].id.startswith("arn:aws:cloudformation:eu-central-1:123456789012:stack/")
    assert found[0].tags[stacks.CLUSTER_TAG] == "gpu-cluster"
    assert found[0].created.tzinfo


@pytest.mark.parametrize(("name", "tag"), [
    ("eksctl-gpu-cluster-2-cluster", "gpu-cluster-2"),
    ("eksctl-gpu-cluster-2-cluster", ""),
    ("eksctl-gpu-cluster-2-nodegroup-gpu-workers", "gpu-cluster-2"),
    ("eksctl-gpu-cluster-nodegroup-x-cluster", "gpu-cluster-nodegroup-x"),  # by its name alone: group x-cluster
    (CLUSTER, "another"),
    ("eksctl-gpu-cluster-cluster-2", ""),
    ("eksctl-gpu-cluster-mine", ""),
    ("my-gpu-cluster-vpc", "gpu-cluster"),
])
def test_another_clusters_stack_is_not_taken(account: Account, name: str, tag: str) -> None:
    made(account, name, **({"cluster": tag} if tag else {}))
    assert stacks.of_cluster(account, "gpu-cluster") == []


def test_a_stack_without_tags_is_taken_by_its_exact_name(account: Account) -> None:
    made(account, CLUSTER)
    made(account, GPU)
    found = stacks.of_cluster(account, "gpu-cluster")
    assert [(s.kind, s.group) for s in found] == [("cluster", ""), ("nodegroup", "gpu-workers")]


def test_failed_and_rolling_back_stacks_are_there_and_deleted_ones_are_not(account: Account, answers: Answers) -> None:
    """P7: a group whose stack rolled back counts for eksctl as existing; here it shows its status."""
    statuses = ["CREATE_FAILED", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "DELETE_FAILED",
                "DELETE_COMPLETE"]
    answers["cloudformation", "describe_stacks"] = {"Stacks": [
        {"StackName": f"eksctl-gpu-cluster-nodegroup-{n}", "StackId": str(n), "StackStatus": status, "CreationTime": START,
         "StackStatusReason": "why", "Tags": [{"Key": stacks.CLUSTER_TAG, "Value": "gpu-cluster"}]}
        for n, status in enumerate(statuses)]}
    found = stacks.of_cluster(account, "gpu-cluster")
    assert [s.status for s in found] == statuses[:-1]
    assert {s.reason for s in found} == {"why"}


def test_all_pages_of_stacks_are_read(account: Account) -> None:
    for n in range(55):  # moto gives 50 a page
        made(account, f"other-{n}")
    made(account, CLUSTER, cluster="gpu-cluster")
    assert len(stacks.of_cluster(account, "gpu-cluster")) == 1


# Events


def test_events_come_oldest_first(account: Account) -> None:
    stack_id = made(account, CLUSTER, cluster="gpu-cluster")
    found = stacks.events(account, stack_id)
    assert [e.time for e in found] == sorted(e.time for e in found)
    assert (found[0].status, found[-1].status) == ("CREATE_IN_PROGRESS", "CREATE_COMPLETE")
    assert found[0].of_stack
    assert {e.stack for e in found} == {CLUSTER}
    assert len({e.id for e in found}) == len(found) > 1


def paged(count: int, size: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """DescribeStackEvents of a stack with so many events, one a second, newest first."""
    every = [{"StackName": CLUSTER, "StackId": "1", "EventId": str(n), "LogicalResourceId": f"R{n}",
              "ResourceType": "AWS::EC2::VPC", "ResourceStatus": "CREATE_COMPLETE", "Timestamp": START + dt.timedelta(seconds=n)}
             for n in reversed(range(count))]

    def answer(params: dict[str, Any]) -> dict[str, Any]:
        first = int(params.get("NextToken", 0))
        more = {"NextToken": str(first + size)} if first + size < count else {}
        return {"StackEvents": every[first:first + size], **more}
    return answer


def test_all_pages_of_events_are_read_and_with_since_no_more_than_needed(account: Account, answers: Answers) -> None:
    answers["cloudformation", "describe_stack_events"] = paged(250, 100)
    assert [e.id for e in stacks.events(account, "1")] == [str(n) for n in range(250)]
    assert len(answers.calls) == 3
    recent = stacks.events(account, "1", START + dt.timedelta(seconds=248))
    assert [e.id for e in recent] == ["248", "249"]
    assert len(answers.calls) == 4


def test_a_stack_that_is_not_there_is_an_error(account: Account) -> None:
    with pytest.raises(AwsError) as caught:
        stacks.events(account, CLUSTER)
    assert caught.value.absent


# Words


@pytest.mark.parametrize(("given", "said"), [
    (event(GPU, "NodeGroup", ASG, "CREATE_IN_PROGRESS", "Resource creation Initiated"),
     "gpu-workers: AutoScalingGroup NodeGroup CREATE_IN_PROGRESS"),
    (event(CLUSTER, CLUSTER, stacks.STACK_TYPE, "CREATE_COMPLETE"), "control plane: stack CREATE_COMPLETE"),
    (event("eksctl-gpu-cluster-addon-vpc-cni", "Role1", "AWS::IAM::Role", "CREATE_COMPLETE"),
     "gpu-cluster-addon-vpc-cni: Role Role1 CREATE_COMPLETE"),
    (event(CLUSTER, "VPC", "AWS::EC2::VPC", "CREATE_FAILED",
           "You are not authorized.\nEncoded authorization failure message: " + "abcdefgh" * 50),
     "control plane: VPC VPC CREATE_FAILED - You are not authorized. Encoded authorization failure message: abcdefghabcd…")])
def test_an_event_is_one_line(given: Event, said: str) -> None:
    assert stacks.line(given) == said


def stack_event(stack: str, status: str) -> Event:
    return event(stack, stack, stacks.STACK_TYPE, status)


BEGUN, DONE = stack_event(CLUSTER, "CREATE_IN_PROGRESS"), stack_event(CLUSTER, "CREATE_COMPLETE")
GPU_BEGUN, GPU_DONE = stack_event(GPU, "CREATE_IN_PROGRESS"), stack_event(GPU, "CREATE_COMPLETE")


@pytest.mark.parametrize(("known", "said"), [
    ([], "waiting for CloudFormation"),
    ([BEGUN, event(CLUSTER, "NATIP", "AWS::EC2::EIP", "CREATE_IN_PROGRESS")], "network"),
    ([BEGUN, event(CLUSTER, "ControlPlane", "AWS::EKS::Cluster", "CREATE_IN_PROGRESS")], "control plane"),
    ([BEGUN, event(CLUSTER, "ControlPlane", "AWS::EKS::Cluster", "CREATE_COMPLETE")], "control plane: last parts"),
    ([BEGUN, DONE], "control plane: made"),
    ([DONE, GPU_BEGUN], "node group gpu-workers: roles and launch template"),
    ([DONE, GPU_BEGUN, event(GPU, "NodeGroup", ASG, "CREATE_IN_PROGRESS")], "node group gpu-workers: instances starting"),
    ([DONE, GPU_BEGUN, event(GPU, "NodeGroup", ASG, "CREATE_COMPLETE"), GPU_DONE], "node group gpu-workers: instances joining"),
    ([DONE, GPU_BEGUN, stack_event(CPU, "CREATE_IN_PROGRESS"), event(CPU, "ManagedNodeGroup", MNG, "CREATE_IN_PROGRESS")],
     "node group gpu-workers: roles and launch template; node group cpu-workers: instances starting and joining"),
    ([event(CPU, "ManagedNodeGroup", MNG, "CREATE_COMPLETE"), stack_event(CPU, "CREATE_COMPLETE")],
     "node group cpu-workers: joined"),
    ([GPU_BEGUN, stack_event(GPU, "ROLLBACK_IN_PROGRESS")], "node group gpu-workers: rollback in progress"),
    ([BEGUN, DONE, stack_event(CLUSTER, "DELETE_IN_PROGRESS")], "control plane: delete in progress"),
    ([BEGUN, stack_event(CLUSTER, "DELETE_FAILED")], "control plane: delete failed"),
])
def test_the_phase_is_said_for_people(known: list[Event], said: str) -> None:
    assert stacks.phase(known) == said


# Following


class Cloud:
    """As much of an Account as a Follower asks: stacks that appear, events that come, and refusals."""

    def __init__(self) -> None:
        self.stacks: dict[str, dict[str, Any]] = {}
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.refusals: list[AwsError] = []
        self.calls, self._turn = 0, threading.Lock()

    def happen(self, stack: str, resource: str, status: str, ago: float = 0) -> None:
        with self._turn:
            self.stacks.setdefault(stack, {"StackName": stack, "StackId": f"arn/{stack}", "CreationTime": START})
            if resource == stack:
                self.stacks[stack]["StackStatus"] = status
            kept = self.events.setdefault(f"arn/{stack}", [])
            kept.insert(0, {"StackName": stack, "EventId": f"{resource}-{status}-{len(kept)}", "LogicalResourceId": resource,
                            "ResourceType": stacks.STACK_TYPE if resource == stack else "AWS::EC2::VPC", "ResourceStatus": status,
                            "Timestamp": dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)})
            kept.sort(key=lambda e: e["Timestamp"], reverse=True)

    def vanish(self, stack: str) -> None:
        with self._turn:
            del self.stacks[stack]

    def _count(self) -> None:
        self.calls += 1
        if self.refusals:
            raise self.refusals.pop(0)

    def pages(self, service: str, operation: str, key: str) -> list[Any]:
        assert (service, operation, key) == ("cloudformation", "describe_stacks", "Stacks")
        with self._turn:
            self._count()
            return [dict(s) for s in self.stacks.values()]

    def call(self, service: str, operation: str, StackName: str) -> dict[str, Any]:
        assert (service, operation) == ("cloudformation", "describe_stack_events")
        with self._turn:
            self._count()
            return {"StackEvents": list(self.events[StackName])}


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


Told = list[tuple[float, str]]


@contextmanager
def following(cloud: Cloud, every: float = 0.15, tries: int = stacks.TRIES) -> Iterator[tuple[Told, list[str], Follower]]:
    told: Told = []
    lines: list[str] = []

    def tell(e: Event) -> None:
        told.append((dt.datetime.now(dt.UTC).timestamp() - e.time.timestamp(), f"{e.resource} {e.status}"))
    with Follower(cloud, "gpu-cluster", tell, every, blocked=lines.append, tries=tries) as follower:  # type: ignore[arg-type]
        yield told, lines, follower


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def throttled() -> AwsError:
    return AwsError("cloudformation:DescribeStacks: Rate exceeded", "Throttling", where="cloudformation:DescribeStacks")


def test_each_event_comes_once_in_order_and_across_stacks_that_appear(cloud: Cloud) -> None:
    with following(cloud) as (told, lines, _):
        assert told == []
        for stack, resource, status in (
                (CLUSTER, CLUSTER, "CREATE_IN_PROGRESS"), (CLUSTER, "VPC", "CREATE_IN_PROGRESS"),
                (CLUSTER, "VPC", "CREATE_COMPLETE"), (CLUSTER, CLUSTER, "CREATE_COMPLETE"),
                (GPU, GPU, "CREATE_IN_PROGRESS"), (CPU, CPU, "CREATE_IN_PROGRESS"), (GPU, "NodeGroup", "CREATE_COMPLETE")):
            cloud.happen(stack, resource, status)
            time.sleep(0.06)
        until(lambda: len(told) == 7)
        time.sleep(0.4)
    assert [text for _, text in told] == [
        f"{CLUSTER} CREATE_IN_PROGRESS", "VPC CREATE_IN_PROGRESS", "VPC CREATE_COMPLETE", f"{CLUSTER} CREATE_COMPLETE",
        f"{GPU} CREATE_IN_PROGRESS", f"{CPU} CREATE_IN_PROGRESS", "NodeGroup CREATE_COMPLETE"]
    assert lines == []


def test_an_event_is_told_within_the_time_asked_for(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
    with following(cloud, every=1.2) as (told, _, _):
        for n in range(12):
            cloud.happen(CLUSTER, f"R{n}", "CREATE_COMPLETE")
            time.sleep(0.17)
        until(lambda: len(told) == 12)
        assert max(lag for lag, _ in told) <= 1.2
    assert inspect.signature(Follower).parameters["every"].default == 3.0  # a tenth of eksctl's 30 s


def test_what_was_there_before_is_not_told_again(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
    cloud.happen(CLUSTER, "VPC", "CREATE_FAILED")
    with following(cloud) as (told, _, _):
        time.sleep(0.3)
        cloud.happen(CLUSTER, CLUSTER, "ROLLBACK_IN_PROGRESS")
        until(lambda: told)
    assert [text for _, text in told] == [f"{CLUSTER} ROLLBACK_IN_PROGRESS"]


def test_a_throttled_reading_is_said_once_and_nothing_is_lost(cloud: Cloud) -> None:
    with following(cloud) as (told, lines, follower):
        cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
        until(lambda: told)
        with cloud._turn:
            cloud.refusals += [throttled(), throttled(), throttled()]
        cloud.happen(CLUSTER, "VPC", "CREATE_COMPLETE")
        cloud.happen(GPU, GPU, "CREATE_IN_PROGRESS")
        until(lambda: len(told) == 3)
        assert isinstance(follower.error, AwsError)
    assert [text for _, text in told] == [f"{CLUSTER} CREATE_IN_PROGRESS", "VPC CREATE_COMPLETE", f"{GPU} CREATE_IN_PROGRESS"]
    assert lines == ["CloudFormation's events cannot be read at present: cloudformation:DescribeStacks: Rate exceeded"]


def test_a_failed_first_reading_does_not_make_old_events_new(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, "Old", "CREATE_FAILED")
    time.sleep(0.02)
    cloud.stacks[CLUSTER]["StackStatus"] = "ROLLBACK_IN_PROGRESS"
    cloud.refusals.append(throttled())
    with following(cloud) as (told, lines, _):
        cloud.happen(CLUSTER, "New", "DELETE_COMPLETE")
        until(lambda: told)
        cloud.happen(CLUSTER, "Newer", "DELETE_COMPLETE")
        until(lambda: len(told) == 2)
    assert [text for _, text in told] == ["New DELETE_COMPLETE", "Newer DELETE_COMPLETE"]
    assert len(lines) == 1


def test_readings_that_never_succeed_are_given_up_and_said(cloud: Cloud) -> None:
    cloud.refusals += [throttled() for _ in range(1000)]
    with following(cloud, every=0.01, tries=3) as (told, lines, _):
        until(lambda: len(lines) == 2)
        before = cloud.calls
        time.sleep(0.3)
        assert cloud.calls == before
    assert "followed no more: 3 readings failed in a row" in lines[1]
    assert told == []


def test_a_resource_may_take_long_without_an_event(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
    with following(cloud, every=0.06) as (told, _, _):
        until(lambda: cloud.calls > 8)
        cloud.happen(CLUSTER, "ControlPlane", "CREATE_COMPLETE")
        until(lambda: told)


def test_stacks_read_at_once_are_told_by_time(cloud: Cloud) -> None:
    for stack in (CLUSTER, GPU):
        cloud.happen(stack, stack, "CREATE_IN_PROGRESS")
    with following(cloud, every=60) as (told, _, _):
        for stack, resource in ((GPU, "A"), (CLUSTER, "B"), (GPU, "C"), (CLUSTER, "D")):
            cloud.happen(stack, resource, "CREATE_COMPLETE")
            time.sleep(0.01)
    assert [text[0] for _, text in told] == ["A", "B", "C", "D"]


def test_the_last_reading_asks_about_stacks_that_seemed_done(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_COMPLETE")
    with following(cloud, every=2) as (told, _, _):
        until(lambda: cloud.calls == 4)  # the first reading, and one that finds nothing new
        cloud.happen(CLUSTER, "VPC", "CREATE_COMPLETE")
    assert [text for _, text in told] == ["VPC CREATE_COMPLETE"]


def test_an_event_that_becomes_visible_late_is_told_too(cloud: Cloud) -> None:
    with following(cloud) as (told, _, _):
        cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
        until(lambda: told)
        cloud.happen(CLUSTER, "VPC", "CREATE_COMPLETE", ago=5)
        until(lambda: len(told) == 2)


def test_leaving_is_prompt_and_the_last_events_are_still_told(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
    with following(cloud, every=60) as (told, _, _):
        cloud.happen(CLUSTER, CLUSTER, "CREATE_COMPLETE")
        leaving = time.monotonic()
    assert time.monotonic() - leaving < 2
    assert [text for _, text in told] == [f"{CLUSTER} CREATE_COMPLETE"]
    calls = cloud.calls
    cloud.happen(CLUSTER, "Late", "CREATE_COMPLETE")
    time.sleep(0.2)
    assert (len(told), cloud.calls) == (1, calls)


def test_a_deleted_stack_is_read_to_its_end(cloud: Cloud) -> None:
    cloud.happen(GPU, GPU, "DELETE_IN_PROGRESS")
    with following(cloud) as (told, _, _):
        cloud.happen(GPU, "NodeGroup", "DELETE_COMPLETE")
        cloud.happen(GPU, GPU, "DELETE_COMPLETE")
        cloud.vanish(GPU)
        until(lambda: len(told) == 2)
    assert told[-1][1] == f"{GPU} DELETE_COMPLETE"


def test_stacks_that_are_done_are_not_asked_about_again(cloud: Cloud) -> None:
    cloud.happen(CLUSTER, CLUSTER, "CREATE_COMPLETE")
    with following(cloud, every=0.06):
        until(lambda: cloud.calls > 6)  # the first reading, and a quiet one after it
        before, listed = cloud.calls, 0
        original = cloud.pages

        def counted(*args: str) -> list[Any]:
            nonlocal listed
            listed += 1
            return original(*args)
        cloud.pages = counted  # type: ignore[method-assign]
        until(lambda: listed >= 5)
        assert cloud.calls - before <= listed + 1


def test_a_display_that_fails_ends_the_following_only(cloud: Cloud) -> None:
    lines: list[str] = []

    def tell(e: Event) -> None:
        raise ValueError("no terminal")
    with Follower(cloud, "gpu-cluster", tell, 0.06, blocked=lines.append) as follower:  # type: ignore[arg-type]
        cloud.happen(CLUSTER, CLUSTER, "CREATE_IN_PROGRESS")
        until(lambda: lines)
        cloud.happen(CLUSTER, "VPC", "CREATE_COMPLETE")
        time.sleep(0.2)
    assert lines == ["CloudFormation's events are followed no more: ValueError: no terminal"]
    assert isinstance(follower.error, ValueError)


def test_a_real_account_is_followed_too(account: Account) -> None:
    made(account, CLUSTER, cluster="gpu-cluster")
    told: list[Event] = []
    with Follower(account, "gpu-cluster", told.append):
        made(account, GPU, cluster="gpu-cluster")
    assert {e.group for e in told} == {"gpu-workers"}
    assert [e.status for e in told if e.of_stack] == ["CREATE_IN_PROGRESS", "CREATE_COMPLETE"]


def test_a_stack_is_a_value() -> None:
    one = Stack("a", "1", "cluster", "", "CREATE_IN_PROGRESS", "", START, tags={"a": "b"})
    assert one.busy
    assert hash(one) == hash(Stack("a", "1", "cluster", "", "CREATE_IN_PROGRESS", "", START, tags={"a": "b"}))
