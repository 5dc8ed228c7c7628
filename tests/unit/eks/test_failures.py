"""Failures: each class on real wordings (tests/data/aws/failures names the source of each), and what a healthy run is not."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook.targets.eks import failures, stacks
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.failures import Failure, advice, classify
from gpurunbook.targets.eks.stacks import Event
from tests.aws.answers import Answers, Refusal

DATA = Path(__file__).parents[2] / "data"
CASES = sorted((DATA / "aws" / "failures").glob("*.json"))
START = dt.datetime(2026, 11, 22, 10, tzinfo=dt.UTC)
GROUP = "eksctl-gpu-cluster-nodegroup-gpu-workers"


def read(path: Path) -> tuple[dict[str, Any], list[Event]]:
    case = json.loads(path.read_text())
    return case, [Event(e["stack"], e["resource"], e["type"], e["status"], e["reason"],
                        START + dt.timedelta(seconds=e["second"]), f"{path.stem}-{n}") for n, e in enumerate(case["events"])]


def found(name: str) -> Failure:
    case, events = read(DATA / "aws" / "failures" / f"{name}.json")
    failure = classify(events, output=case["output"], health=case["health"])
    assert failure
    return failure


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_each_recorded_failure_is_told_by_its_cause(path: Path) -> None:
    case, events = read(path)
    assert case["wording"] in ("real", "invented")
    assert case["source"]
    failure = classify(events, output=case["output"], health=case["health"])
    expected = case["expect"]
    if expected is None:
        assert failure is None
        return
    assert failure
    assert {key: getattr(failure, key) for key in expected if key != "next"} | {"zones": list(failure.zones)} \
        == {key: value for key, value in expected.items() if key != "next"}
    assert expected.get("next", "") in failure.next
    assert not set("{}") & set(failure.next), "a name was left out"


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_order_in_which_events_are_given_does_not_matter(path: Path) -> None:
    case, events = read(path)
    one = classify(events, output=case["output"], health=case["health"])
    other = classify(events[::-1], output=case["output"], health=case["health"])
    assert one == other


def test_every_kind_has_its_case() -> None:
    seen = {case["expect"]["kind"] for case, _ in map(read, CASES) if case["expect"]}
    seen |= {failure.kind for failure in map(recorded, RECORDED) if failure}
    assert seen == set(failures.NEXT)


RECORDED = {"create-no-credentials": "credentials", "create-stack-refused": "service", "create-unknown-field": "config",
            "create-unsupported-version": "config", "delete-absent": "absent", "dry-run-rejects-nvidia-flag": "config"}


def recorded(name: str) -> Failure | None:
    """What eksctl 0.231 really printed, without the command and exit code above it."""
    lines = (DATA / "eksctl" / f"{name}.txt").read_text().splitlines()
    return classify([], output="\n".join(line for line in lines if not line.startswith(("#", "$"))))


@pytest.mark.parametrize(("name", "kind"), RECORDED.items())
def test_eksctls_own_refusals_are_told_from_its_output(name: str, kind: str) -> None:
    failure = recorded(name)
    assert failure
    assert failure.kind == kind
    assert failure.again == (kind == "service")
    assert failure.stack == ("eksctl-gpu-cluster-cluster" if name == "create-stack-refused" else "")


def test_a_group_that_failed_earlier_fails_though_eksctl_says_nothing_and_ends_with_0() -> None:
    """P7: run again, eksctl leaves out the group whose stack rolled back, and exits 0."""
    case, events = read(DATA / "aws" / "failures" / "group-failed-earlier-and-exit-0.json")
    assert "created 0 managed nodegroup(s)" in case["output"]
    failure = classify(events, output=case["output"])
    assert failure
    assert (failure.kind, failure.group) == ("join", "gpu-workers")
    assert classify([], output=case["output"]) is None
    by_health = classify([], output=case["output"], health=["NodeCreationFailure: Instances failed to join the cluster"])
    assert by_health
    assert by_health.kind == "join"


def test_the_earliest_failure_is_the_cause_and_cancelled_ones_are_not() -> None:
    failure = found("limit-addresses")
    assert failure.message.startswith("The maximum number of addresses")
    _, events = read(DATA / "aws" / "failures" / "limit-addresses.json")
    cancelled = [e for e in events if e.reason == "Resource creation cancelled"]
    assert len(cancelled) == 2
    only = classify(cancelled)
    assert only
    assert only.kind == "unknown"


def test_an_encoded_authorization_message_is_cut_short() -> None:
    failure = found("denied")
    assert failure.message.endswith("message: Zm9vYmFyZm9v…")
    assert "allow ec2:CreateVpc to this identity" in failure.next


def test_a_stuck_rollback_names_what_holds_it_and_how_it_began() -> None:
    failure = found("rollback-failed")
    assert "dependent object" in failure.message
    assert f"delete-stack --stack-name {GROUP}; it began with no-capacity: We currently do not" in failure.next
    assert "it began" not in found("rollback-delete-failed").next


def test_a_second_deletion_under_way_is_not_stuck() -> None:
    _, events = read(DATA / "aws" / "failures" / "healthy-deleted-at-second-try.json")
    assert classify(events[:-3])
    assert classify(events[:-2]) is None


def test_one_groups_recovery_does_not_hide_anothers_failure() -> None:
    _, healed = read(DATA / "aws" / "failures" / "healthy-after-a-failed-attempt.json")
    other = Event("eksctl-gpu-cluster-nodegroup-cpu-workers", "NodeGroup", "AWS::AutoScaling::AutoScalingGroup", "CREATE_FAILED",
                  "The key pair 'x' does not exist", START, "other")
    failure = classify([*healed, other])
    assert failure
    assert failure.group == "cpu-workers"


def test_advice_takes_the_good_zones_that_the_cluster_has() -> None:
    failure = found("no-capacity-managed")
    assert "availabilityZones: [eu-central-1c]" in advice(failure, cluster_zones=["eu-central-1a", "eu-central-1c"])
    assert "availabilityZones: [eu-central-1b, eu-central-1c]" in advice(failure, cluster_zones=[])
    none = advice(failure, cluster_zones=["eu-central-1a"])
    assert "subnets only in eu-central-1a" in none
    assert "availabilityZones: [" not in none


def test_advice_for_the_control_plane_does_not_ask_where_its_subnets_were_to_be() -> None:
    said = advice(found("no-capacity-control-plane"), cluster_zones=["us-east-1e"])
    assert "the cluster: set availabilityZones: [us-east-1a, us-east-1b, us-east-1c, us-east-1d, us-east-1f]" in said


def test_advice_without_zones_is_what_to_do_next() -> None:
    failure = found("quota-managed")
    assert advice(failure, cluster_zones=["eu-central-1a"]) == f"node group gpu-workers: {failure.next}"


PIECES = ("or choosing", "eu-central-1b", ",", " ", "not have sufficient", "Stack [eksctl-", "]", "Error: ", "[✖]", 'ready in "',
          "\n", "Encoded authorization failure message:", "nodes to join", "timed out", "maximum number of", "-1a", "aa")
STATUSES = ("CREATE_FAILED", "ROLLBACK_FAILED", "DELETE_FAILED", "CREATE_COMPLETE", "ROLLBACK_IN_PROGRESS")
texts = st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
random_events = st.builds(
    Event, stack=st.one_of(st.just(GROUP), texts), resource=st.one_of(st.just(GROUP), texts),
    type=st.one_of(st.just(stacks.STACK_TYPE), texts), status=st.one_of(st.sampled_from(STATUSES), texts), reason=texts,
    time=st.datetimes(timezones=st.just(dt.UTC)), id=st.text(max_size=5))


@given(st.lists(random_events, max_size=8), texts, st.lists(texts, max_size=3), st.lists(texts, max_size=2))
def test_no_text_makes_it_raise(events: list[Event], output: str, health: list[str], zones: list[str]) -> None:
    failure = classify(events, output=output, health=health)
    if failure:
        assert failure.kind in failures.NEXT
        assert advice(failure, cluster_zones=zones)
    for event in events:
        assert not set("\n\r\t") & set(stacks.line(event))
    stacks.phase(sorted(events, key=lambda e: e.time))


def test_health_is_read_from_eks(account: Account, answers: Answers) -> None:
    answers["eks", "describe_nodegroup"] = {"nodegroup": {"health": {"issues": [
        {"code": "AsgInstanceLaunchFailures", "message": "Could not launch On-Demand Instances.", "resourceIds": ["eks-1"]},
        {"code": "NodeCreationFailure", "message": "Instances failed to join the kubernetes cluster"}]}}}
    assert failures.health(account, "gpu-cluster", "cpu-workers") == [
        "AsgInstanceLaunchFailures: Could not launch On-Demand Instances.",
        "NodeCreationFailure: Instances failed to join the kubernetes cluster"]
    assert answers.calls[-1][2] == {"clusterName": "gpu-cluster", "nodegroupName": "cpu-workers"}


def test_a_group_that_eks_does_not_know_has_no_health(account: Account) -> None:
    assert failures.health(account, "gpu-cluster", "gpu-workers") == []


def test_a_refused_look_at_health_is_not_good_health(account: Account, answers: Answers) -> None:
    answers["eks", "describe_nodegroup"] = Refusal("AccessDeniedException", "not authorized to perform: eks:DescribeNodegroup")
    with pytest.raises(AwsError) as caught:
        failures.health(account, "gpu-cluster", "cpu-workers")
    assert caught.value.denied


SPOT = "Max spot instance count exceeded. Launching EC2 instance failed."
ACTIVITIES = [
    {"StatusCode": "Failed", "StatusMessage": SPOT}, {"StatusCode": "Failed", "StatusMessage": SPOT},
    {"StatusCode": "InProgress"}, {"StatusCode": "Failed", "StatusMessage": "Another. Launching EC2 instance failed."},
    {"StatusCode": "Successful"}, {"StatusCode": "Failed", "StatusMessage": "Long ago. Launching EC2 instance failed."}]


def test_failed_launches_are_those_since_the_last_good_one(account: Account, answers: Answers) -> None:
    answers["cloudformation", "describe_stack_resource"] = {"StackResourceDetail": {"PhysicalResourceId": "asg-1"}}
    answers["autoscaling", "describe_scaling_activities"] = {"Activities": ACTIVITIES}
    assert failures.launches(account, GROUP) == [SPOT, "Another. Launching EC2 instance failed."]
    assert answers.calls[0][2] == {"StackName": GROUP, "LogicalResourceId": "NodeGroup"}
    assert answers.calls[1][2]["AutoScalingGroupName"] == "asg-1"


def test_before_there_is_a_group_there_are_no_failed_launches(account: Account, answers: Answers) -> None:
    assert failures.launches(account, GROUP) == []
    answers["cloudformation", "describe_stack_resource"] = {"StackResourceDetail": {}}
    assert failures.launches(account, GROUP) == []


def test_refused_launches_are_not_good_launches(account: Account, answers: Answers) -> None:
    answers["cloudformation", "describe_stack_resource"] = Refusal("AccessDenied", "no")
    with pytest.raises(AwsError):
        failures.launches(account, GROUP)


def test_nodes_that_did_not_join_are_explained_by_failed_launches() -> None:
    """A self-managed group: CloudFormation calls it made, eksctl only waits for nodes, the scaling activities know why."""
    case, events = read(DATA / "aws" / "failures" / "join-timeout.json")
    failure = classify(events, output=case["output"], health=[SPOT])
    assert failure
    assert (failure.kind, failure.group) == ("quota", "gpu-workers")
    vague = classify(events, output=case["output"], health=["Launching EC2 instance failed."])
    assert vague
    assert vague.kind == "join"
