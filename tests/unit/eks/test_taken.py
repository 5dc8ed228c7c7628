"""What is there already: the region, and the cluster's name."""

from __future__ import annotations

import pytest

from gpurunbook.targets.eks import taken
from gpurunbook.targets.eks.account import Account, AwsError
from tests.aws.answers import Answers, Refusal

RUN = {"gpurunbook/run": "2026-11-22-heron"}


def test_the_regions_are_asked_of_one_that_everybody_has(account: Account) -> None:
    known = taken.regions(account)
    assert known["eu-central-1"] == "opt-in-not-required"
    assert account.client("ec2", "us-east-1") in account._clients.values()


@pytest.mark.parametrize(("region", "state", "fix"), [
    ("eu-central-1", "pass", ""), ("eu-south-2", "fail", "aws account enable-region --region-name eu-south-2"),
    ("eu-centrall-1", "fail", "set metadata.region in cluster.yaml to eu-central-1")])
def test_the_region_is_there_and_enabled(region: str, state: str, fix: str) -> None:
    found = taken.region({"eu-central-1": "opt-in-not-required", "eu-south-2": "not-opted-in"}, region)
    assert (found.state, found.fix.partition(" or ")[0]) == (state, fix)


def test_a_free_name_passes(account: Account) -> None:
    assert taken.check(account, "gpu-cluster").state == "pass"


def test_a_cluster_of_a_run_is_one_to_go_on_with(account: Account) -> None:
    account.call("eks", "create_cluster", name="gpu-cluster", roleArn="arn:aws:iam::123456789012:role/x",
                 resourcesVpcConfig={}, tags=RUN)
    found = taken.check(account, "gpu-cluster")
    assert (found.state, found.evidence) == ("warn", "EKS cluster gpu-cluster is there, ACTIVE, made by run 2026-11-22-heron")
    assert "gpurunbook run --run-id 2026-11-22-heron" in found.fix


def test_anothers_cluster_fails(account: Account) -> None:
    account.call("eks", "create_cluster", name="gpu-cluster", roleArn="arn:aws:iam::123456789012:role/x", resourcesVpcConfig={})
    found = taken.check(account, "gpu-cluster")
    assert (found.state, found.fix) == ("fail", "set another metadata.name in cluster.yaml")


@pytest.mark.parametrize(("tags", "state", "fix"), [
    ([], "fail", "if it is yours: aws cloudformation delete-stack --region eu-central-1 --stack-name eksctl-gpu-"),
    ([{"Key": "gpurunbook/run", "Value": "heron"}], "warn", "go on with it: gpurunbook run --run-id heron;")])
def test_a_stack_without_its_cluster_blocks_a_new_one(account: Account, answers: Answers, tags: list[dict[str, str]],
                                                      state: str, fix: str) -> None:
    answers["cloudformation", "describe_stacks"] = {"Stacks": [
        {"StackName": "eksctl-gpu-cluster-cluster", "StackStatus": "ROLLBACK_COMPLETE", "Tags": tags}]}
    found = taken.check(account, "gpu-cluster")
    assert found.state == state
    assert "eksctl-gpu-cluster-cluster is there, ROLLBACK_COMPLETE" in found.evidence
    assert found.fix.startswith(fix)


@pytest.mark.parametrize("call", [("eks", "describe_cluster"), ("cloudformation", "describe_stacks")])
def test_a_refused_question_is_no_free_name(account: Account, answers: Answers, call: tuple[str, str]) -> None:
    answers[call] = Refusal("AccessDenied")
    with pytest.raises(AwsError):
        taken.check(account, "gpu-cluster")
