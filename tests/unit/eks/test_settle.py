"""Waiting for a stack ends when it is done, and says whether that is what was begun."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from gpurunbook.targets.eks import settle
from tests.aws.answers import Answers, Refusal

COMMAND = ["--stack-name", "eksctl-gpu-cluster-cluster", "--region", "eu-central-1"]


def told(statuses: list[str], answers: Answers) -> tuple[int, int]:
    """(exit code, looks) for what CloudFormation says look by look; "" is a stack that is gone."""
    left = list(statuses)

    def answer(_: object) -> dict[str, object]:
        status = left.pop(0)
        if status.startswith("!"):
            raise Refusal(status[1:])
        if not status:
            raise Refusal("ValidationError", "Stack with id eksctl-gpu-cluster-cluster does not exist")
        return {"Stacks": [{"StackName": "x", "StackStatus": status}]}

    answers["cloudformation", "describe_stacks"] = answer
    with mock_aws():
        code = settle.main(COMMAND, session=answers.install(boto3.Session()), sleep=lambda seconds: None)
    return code, len(statuses) - len(left)


@pytest.mark.parametrize(("statuses", "code"), [
    (["CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_COMPLETE"], 0),
    (["CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"], 1),
    (["CREATE_IN_PROGRESS", "CREATE_FAILED"], 1),
    (["ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE"], 0),
    (["ROLLBACK_IN_PROGRESS", "ROLLBACK_FAILED"], 1),
    (["DELETE_IN_PROGRESS", ""], 0),
    (["DELETE_IN_PROGRESS", "DELETE_COMPLETE"], 0),
    (["DELETE_IN_PROGRESS", "DELETE_FAILED"], 1)])
def test_it_waits_for_the_end_and_tells_good_from_bad(statuses: list[str], code: int, answers: Answers,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    assert told(statuses, answers) == (code, len(statuses))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(dict.fromkeys(statuses))


def test_five_failed_looks_in_a_row_are_lived_through_and_six_are_not(answers: Answers) -> None:
    busy = ["!ThrottlingException"] * 5
    assert told([*busy, "CREATE_IN_PROGRESS", *busy, "CREATE_COMPLETE"], answers) == (0, 12)
    assert told([*busy, busy[0], "CREATE_COMPLETE"], answers) == (1, 6)
    assert told(["!ExpiredToken", "CREATE_COMPLETE"], answers) == (1, 1)


def test_a_refusal_is_said(answers: Answers, capsys: pytest.CaptureFixture[str]) -> None:
    answers["cloudformation", "describe_stacks"] = Refusal("AccessDenied", "not you")
    with mock_aws():
        assert settle.main(COMMAND, session=answers.install(boto3.Session())) == 1
    assert "not you" in capsys.readouterr().err
