"""The program that runs a sweep's commands: what it refuses, what it waits for, how it ends."""

from __future__ import annotations

from collections.abc import Callable

import boto3
import pytest

from gpurunbook.targets.eks import aws
from gpurunbook.targets.eks.account import Account
from tests.aws.answers import Answers, Refusal
from tests.unit.eks.conftest import REGION

DELETE_VOLUME = ["ec2", "delete-volume", "--volume-id", "vol-1", "--region", REGION]
Program = Callable[..., int]


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def program(account: Account, answers: Answers, clock: Clock) -> Program:
    return lambda *words: aws.main([*words], session=answers.install(boto3.Session()), clock=clock, sleep=clock.sleep)


def writes(answers: Answers) -> list[str]:
    return [operation for _, operation, _ in answers.calls if not operation.startswith(("describe_", "get_", "list_"))]


@pytest.mark.parametrize("words", [
    [], ["ec2"], ["ec2", "describe-volumes"], ["ec2", "delete-vpc", "--vpc-id", "vpc-1", "--region", REGION],
    ["s3", "rm", "s3://x"], ["--region", REGION], DELETE_VOLUME[:4], ["ec2", "delete-volume", "--region", REGION],
    [*DELETE_VOLUME, "--dry-run"], [*DELETE_VOLUME, "vol-2"], ["ec2", "delete-volume", "--volume", "vol-1", "--region", REGION],
    ["ec2", "delete-volume", "--group-id", "sg-1", "--region", REGION]])
def test_anything_else_is_refused_before_aws_is_asked(program: Program, answers: Answers, words: list[str]) -> None:
    assert program(*words) == 2
    assert answers.calls == []


def test_a_refusal_names_the_commands(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    program("s3", "rm")
    assert "s3 rm" in (said := capsys.readouterr().err)
    assert "ec2 delete-volume --volume-id --region" in said


def test_what_is_already_gone_is_done(program: Program, answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    assert program(*DELETE_VOLUME) == 0
    assert "already gone" in capsys.readouterr().out
    assert writes(answers) == []


def test_one_that_vanishes_meanwhile_is_done(program: Program, answers: Answers) -> None:
    states = iter([{"Volumes": [{"State": "available"}]}, {"Volumes": []}])
    answers["ec2", "describe_volumes"] = lambda params: next(states)
    answers["ec2", "delete_volume"] = Refusal("InvalidVolume.NotFound", "The volume 'vol-1' does not exist.")
    assert program(*DELETE_VOLUME) == 0


def test_awss_message_is_the_last_word_on_a_failure(program: Program, answers: Answers,
                                                    capsys: pytest.CaptureFixture[str]) -> None:
    answers["ec2", "describe_volumes"] = {"Volumes": [{"State": "available"}]}
    answers["ec2", "delete_volume"] = Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.")
    assert program(*DELETE_VOLUME) == 1
    assert "You are not authorized to perform this operation." in capsys.readouterr().err
    assert writes(answers) == ["delete_volume"]


def test_what_cannot_be_looked_at_is_not_deleted(program: Program, answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    answers["ec2", "describe_volumes"] = Refusal("UnauthorizedOperation", "no")
    assert program(*DELETE_VOLUME) == 1
    assert "ec2:DescribeVolumes" in capsys.readouterr().err
    assert writes(answers) == []


def test_it_waits_until_the_volume_is_free_and_says_so(program: Program, answers: Answers, clock: Clock,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    states = iter(["in-use", "in-use", "available", "deleting", ""])
    answers["ec2", "describe_volumes"] = lambda params: {"Volumes": [{"State": s}] if (s := next(states)) else []}
    answers["ec2", "delete_volume"] = {}
    assert program(*DELETE_VOLUME) == 0
    assert capsys.readouterr().out.splitlines() == ["0 s: in-use", "5 s: in-use", "10 s: deleting", "gone"]
    assert writes(answers) == ["delete_volume"]
    assert clock.now == 15


def misses(answers: Answers, refusals: list[Refusal], then: list[str]) -> None:
    """DescribeVolumes: these refusals, one after another, and then these states; "" is a volume that is gone."""
    left = iter([*refusals, *then])

    def answer(params: dict[str, object]) -> dict[str, object]:
        one = next(left)
        if isinstance(one, Refusal):
            raise one
        return {"Volumes": [{"State": one}] if one else []}

    answers["ec2", "describe_volumes"] = answer
    answers["ec2", "delete_volume"] = {}


def test_five_failed_looks_in_a_row_are_lived_through_and_the_write_is_sent_once(
        program: Program, answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    gone = [Refusal("RequestLimitExceeded", status=503), *[Refusal("InternalError", status=500)] * 4]
    misses(answers, gone, ["available", *gone, ""])  # type: ignore[list-item]
    assert program(*DELETE_VOLUME) == 0
    assert writes(answers) == ["delete_volume"]
    assert "no answer (RequestLimitExceeded), looking again" in capsys.readouterr().out


@pytest.mark.parametrize("refusals", [[Refusal("InternalError", status=500)] * 6, [Refusal("ExpiredToken", status=403)],
                                      [Refusal("UnauthorizedOperation", status=403)]])
def test_a_sixth_failed_look_and_a_refusal_end_it(program: Program, answers: Answers, refusals: list[Refusal]) -> None:
    misses(answers, refusals, ["available", ""])
    assert program(*DELETE_VOLUME) == 1
    assert writes(answers) == []


def test_a_write_that_got_no_answer_is_not_sent_again(program: Program, answers: Answers) -> None:
    misses(answers, [], ["available", "available", ""])
    answers["ec2", "delete_volume"] = Refusal("InternalError", status=500)
    assert program(*DELETE_VOLUME) == 1
    assert writes(answers) == ["delete_volume"]


def test_a_group_that_something_still_uses_is_asked_for_again(program: Program, answers: Answers) -> None:
    asked: list[int] = []

    def delete(params: dict[str, object]) -> dict[str, object]:
        asked.append(1)
        if len(asked) < 3:
            raise Refusal("DependencyViolation", "resource sg-1 has a dependent object")
        return {}

    answers["ec2", "describe_security_groups"] = lambda params: {
        "SecurityGroups": [] if len(asked) == 3 else [{"GroupId": "sg-1"}]}
    answers["ec2", "delete_security_group"] = delete
    assert program("ec2", "delete-security-group", "--group-id", "sg-1", "--region", REGION) == 0
    assert len(asked) == 3


def test_the_wait_has_an_end(program: Program, answers: Answers, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    answers["ec2", "describe_security_groups"] = {"SecurityGroups": [{"GroupId": "sg-1"}]}
    answers["ec2", "delete_security_group"] = Refusal("DependencyViolation", "resource sg-1 has a dependent object")
    assert program("ec2", "delete-security-group", "--group-id", "sg-1", "--region", REGION) == 1
    limit = aws.ACTIONS["ec2", "delete-security-group"].limit
    assert limit < clock.now <= limit + aws.POLL
    captured = capsys.readouterr()
    assert "still there" in captured.err
    assert "has a dependent object" in captured.err


STACK = ["cloudformation", "delete-stack", "--stack-name", "arn:stack", "--region", REGION]


def stack_states(answers: Answers, *states: str) -> None:
    left = iter(states)
    answers["cloudformation", "describe_stacks"] = lambda params: {"Stacks": [
        {"StackName": "s", "StackStatus": next(left), "StackStatusReason": "The following resource(s) failed to delete: [VPC]."}]}
    answers["cloudformation", "delete_stack"] = {}


def test_a_stack_that_failed_before_is_tried_anew(program: Program, answers: Answers) -> None:
    stack_states(answers, "DELETE_FAILED", "DELETE_IN_PROGRESS", "DELETE_COMPLETE")
    assert program(*STACK) == 0
    assert writes(answers) == ["delete_stack"]


def test_a_stack_that_cannot_be_deleted_says_why(program: Program, answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    stack_states(answers, "CREATE_COMPLETE", "DELETE_IN_PROGRESS", "DELETE_FAILED")
    assert program(*STACK) == 1
    assert "failed to delete: [VPC]" in capsys.readouterr().err


def test_a_nat_gateway_is_gone_when_aws_says_deleted(program: Program, answers: Answers, clock: Clock) -> None:
    states = iter(["available", "deleting", "deleting", "deleted"])
    answers["ec2", "describe_nat_gateways"] = lambda params: {"NatGateways": [{"State": next(states)}]}
    answers["ec2", "delete_nat_gateway"] = {}
    assert program("ec2", "delete-nat-gateway", "--nat-gateway-id", "nat-1", "--region", REGION) == 0
    assert clock.now == 2 * aws.POLL


def test_an_address_is_released_only_when_nothing_holds_it(program: Program, answers: Answers) -> None:
    told = iter([[{"AssociationId": "eipassoc-1"}], [{"PublicIp": "192.0.2.1"}], []])
    answers["ec2", "describe_addresses"] = lambda params: {"Addresses": next(told)}
    answers["ec2", "release_address"] = {}
    assert program("ec2", "release-address", "--allocation-id", "eipalloc-1", "--region", REGION) == 0
    assert [operation for _, operation, _ in answers.calls] == [
        "describe_addresses", "describe_addresses", "release_address", "describe_addresses"]


def test_only_the_log_group_of_exactly_that_name_is_looked_at(program: Program, account: Account) -> None:
    logs = account.client("logs")
    logs.create_log_group(logGroupName="/aws/eks/a/cluster-2")
    assert program("logs", "delete-log-group", "--log-group-name", "/aws/eks/a/cluster", "--region", REGION) == 0
    assert [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]] == ["/aws/eks/a/cluster-2"]


def test_the_second_time_it_waits_and_takes_what_was_made_anew(program: Program, account: Account, clock: Clock,
                                                               capsys: pytest.CaptureFixture[str]) -> None:
    account.client("logs").create_log_group(logGroupName="/aws/eks/a/cluster")
    assert program("logs", "delete-log-group", "--log-group-name", "/aws/eks/a/cluster", "--region", REGION, "--after", "60") == 0
    assert clock.now == 60
    assert capsys.readouterr().out.splitlines() == ["waiting 60 s first", "gone"]
    assert account.client("logs").describe_log_groups()["logGroups"] == []


def test_flags_are_passed_on_as_boto3_wants_them(program: Program, answers: Answers) -> None:
    states = iter([[{"Instances": [{"State": {"Name": "running"}}]}], []])
    answers["ec2", "describe_instances"] = lambda params: {"Reservations": next(states)}
    answers["ec2", "terminate_instances"] = {}
    assert program("ec2", "terminate-instances", "--instance-ids", "i-1", "i-2", "--region", REGION) == 0
    assert ("ec2", "terminate_instances", {"InstanceIds": ["i-1", "i-2"]}) in answers.calls


@pytest.mark.parametrize("key", aws.ACTIONS, ids=" ".join)
def test_boto3_knows_every_operation_and_parameter(key: tuple[str, str]) -> None:
    action = aws.ACTIONS[key]
    client = boto3.client(key[0], region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[action.operation])
    given = {parameter for parameter, _ in action.flags.values()}
    assert given <= set(model.input_shape.members)
    assert set(model.input_shape.required_members) <= given
    for flag, (parameter, type) in action.flags.items():
        kind = model.input_shape.members[parameter].type_name
        assert kind == {str: "string", bool: "boolean", list: "list"}[type]
        assert flag == "--" + aws_spelling(parameter)
    assert action.operation == key[1].replace("-", "_")


def aws_spelling(parameter: str) -> str:
    """The aws program's spelling of a parameter, as its own generator does it."""
    from botocore import xform_name
    return str(xform_name(parameter, "-"))
