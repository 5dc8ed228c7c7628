"""IAM by simulation: who is asked about, on what, and what an answer means."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.targets.eks import permissions
from gpurunbook.targets.eks.account import Account, AwsError
from tests.aws.answers import Answers, Refusal

USER = "arn:aws:iam::123456789012:user/ada"
SSO = "AWSReservedSSO_Admin_0123456789abcdef"


def test_a_user_and_a_role_are_asked_about_as_they_are(account: Account) -> None:
    assert permissions.principal(account, USER) == USER
    assert permissions.principal(account, "arn:aws:iam::123456789012:role/x") == "arn:aws:iam::123456789012:role/x"


def test_an_assumed_role_is_asked_about_as_its_role_with_its_path(account: Account) -> None:
    account.call("iam", "create_role", RoleName=SSO, Path="/aws-reserved/sso.amazonaws.com/eu-central-1/",
                 AssumeRolePolicyDocument="{}")
    assert permissions.principal(account, f"arn:aws:sts::123456789012:assumed-role/{SSO}/ada@example.com") == (
        f"arn:aws:iam::123456789012:role/aws-reserved/sso.amazonaws.com/eu-central-1/{SSO}")


def test_a_role_that_may_not_look_at_itself_has_no_path(account: Account, answers: Answers) -> None:
    answers["iam", "get_role"] = Refusal("AccessDenied")
    assert permissions.principal(account, "arn:aws-us-gov:sts::123456789012:assumed-role/deployer/session") == (
        "arn:aws-us-gov:iam::123456789012:role/deployer")
    with pytest.raises(AwsError):  # the path of an SSO role cannot be guessed
        permissions.principal(account, f"arn:aws:sts::123456789012:assumed-role/{SSO}/ada")


@pytest.mark.parametrize("arn", ["arn:aws:iam::123456789012:root", "arn:aws:sts::123456789012:federated-user/ada"])
def test_root_and_federated_users_cannot_be_simulated(account: Account, arn: str) -> None:
    with pytest.raises(RunbookError, match="IAM cannot simulate"):
        permissions.principal(account, arn)


def test_actions_are_asked_about_on_the_names_that_eksctl_uses() -> None:
    asked = permissions.resources("arn:aws-cn:iam::123456789012:user/ada", "cn-north-1", "gpu-cluster")
    assert asked.keys() == {
        "arn:aws-cn:cloudformation:cn-north-1:123456789012:stack/eksctl-gpu-cluster-cluster/*",
        "arn:aws-cn:eks:cn-north-1:123456789012:cluster/gpu-cluster",
        "arn:aws-cn:iam::123456789012:role/eksctl-gpu-cluster-cluster-ServiceRole",
        "arn:aws-cn:iam::123456789012:instance-profile/eksctl-gpu-cluster-nodegroup", "*"}
    assert "eks:CreateCluster" in asked["arn:aws-cn:eks:cn-north-1:123456789012:cluster/gpu-cluster"]


def test_the_simulation_is_told_the_region_and_the_runs_tag(account: Account, answers: Answers) -> None:
    answers["iam", "simulate_principal_policy"] = {"EvaluationResults": [ALLOWED]}
    assert permissions.simulate(account, USER, "*", ["ec2:CreateVpc"]) == [ALLOWED]
    [asked] = [params for _, name, params in answers.calls if name == "simulate_principal_policy"]
    told = {entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in asked["ContextEntries"]}
    assert told["aws:RequestedRegion"] == ["eu-central-1"]
    assert {"aws:RequestTag/gpurunbook/run", "aws:ResourceTag/gpurunbook/run"} < told.keys()
    assert all(len(values) == 1 and values[0] for values in told.values())
    assert (asked["PolicySourceArn"], asked["ActionNames"], asked["ResourceArns"]) == (USER, ["ec2:CreateVpc"], ["*"])


def result(action: str, decision: str, **other: Any) -> dict[str, Any]:
    return {"EvalActionName": action, "EvalDecision": decision, **other}


ALLOWED = result("ec2:CreateVpc", "allowed")


@pytest.mark.parametrize(("results", "state", "evidence"), [
    ([ALLOWED], "pass", "simulated: 1 actions allowed"),
    ([ALLOWED, result("eks:CreateCluster", "implicitDeny")], "fail", "denied: eks:CreateCluster"),
    ([ALLOWED, result("eks:CreateCluster", "explicitDeny", MissingContextValues=["aws:TagKeys"])],
     "unknown", "depends on aws:TagKeys: eks:CreateCluster"),
    ([ALLOWED, result("eks:CreateCluster", "explicitDeny")], "fail", "denied: eks:CreateCluster"),
    ([ALLOWED, result("eks:CreateCluster", "explicitDeny", OrganizationsDecisionDetail={"AllowedByOrganizations": False})],
     "fail", "denied: eks:CreateCluster (by the organization)"),
    ([ALLOWED, result("eks:CreateCluster", "implicitDeny",
                      PermissionsBoundaryDecisionDetail={"AllowedByPermissionsBoundary": False})],
     "fail", "denied: eks:CreateCluster (by the permissions boundary)"),
    ([ALLOWED, result("ec2:RunInstances", "implicitDeny", MissingContextValues=["aws:RequestTag/team"])],
     "unknown", "depends on aws:RequestTag/team: ec2:RunInstances")])
def test_what_the_simulation_means(results: list[dict[str, Any]], state: str, evidence: str) -> None:
    found = permissions.check(results, len(results))
    assert (found.state, found.evidence) == (state, evidence)


def test_an_answer_that_leaves_actions_out_is_no_pass() -> None:
    found = permissions.check([ALLOWED], 2)
    assert (found.state, found.evidence) == ("unknown", "IAM judged 1 of 2 actions")
