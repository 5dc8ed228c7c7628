"""Machine images: SSM names one, EC2 shows it, and it fits the group."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest

from gpurunbook.errors import RunbookError
from gpurunbook.targets.eks import amis
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.amis import Image
from tests.aws.answers import Answers, Refusal
from tests.aws.preflight import group, healthy

TODAY = dt.date(2026, 11, 22)
NVIDIA = Image("ami-1", "amazon-eks-node-al2023-x86_64-nvidia-1.36-v20261112", "", "/aws/x", "1.36.1-20261112",
               dt.date(2026, 11, 12), None, "available", "x86_64", 20)
CANONICAL = "/aws/service/canonical/ubuntu/eks"
AL2023 = {"ami_family": "AmazonLinux2023"}


@pytest.mark.parametrize(("kubernetes", "family", "gpu", "arch", "expected"), [
    ("1.36", "Ubuntu2404", True, "x86_64", f"{CANONICAL}/24.04/1.36/stable/current/amd64/hvm/ebs-gp3/ami-id"),
    ("1.36", "Ubuntu2604", True, "arm64", f"{CANONICAL}/26.04/1.36/stable/current/arm64/hvm/ebs-gp3/ami-id"),
    ("1.33", "Ubuntu2204", True, "x86_64", f"{CANONICAL}/22.04/1.33/stable/current/amd64/hvm/ebs-gp2/ami-id"),
    ("1.27", "Ubuntu2004", True, "x86_64", f"{CANONICAL}/20.04/1.27/stable/current/amd64/hvm/ebs-gp2/ami-id"),
    ("1.36", "UbuntuPro2404", True, "x86_64",
     "/aws/service/canonical/ubuntu/eks-pro/24.04/1.36/stable/current/amd64/hvm/ebs-gp3/ami-id"),
    ("1.36", "AmazonLinux2023", True, "x86_64",
     "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/x86_64/nvidia/recommended/image_id"),
    ("1.36", "AmazonLinux2023", False, "arm64",
     "/aws/service/eks/optimized-ami/1.36/amazon-linux-2023/arm64/standard/recommended/image_id"),
    ("1.36", "Bottlerocket", True, "x86_64", "/aws/service/bottlerocket/aws-k8s-1.36-nvidia/x86_64/latest/image_id")])
def test_the_parameter_is_the_one_that_eksctl_asks_for(kubernetes: str, family: str, gpu: bool, arch: str, expected: str) -> None:
    assert amis.parameter(kubernetes, family, gpu=gpu, arch=arch)[0] == expected


def test_a_family_without_a_parameter_names_those_that_have_one() -> None:
    with pytest.raises(RunbookError, match="AmazonLinux2") as caught:
        amis.parameter("1.36", "AmazonLinux2")
    assert "Ubuntu2404" in caught.value.next


def test_the_newest_image_is_named_by_ssm_and_shown_by_ec2(account: Account, answers: Answers) -> None:
    healthy(answers)
    found = amis.look_up(account, "1.36", "AmazonLinux2023")
    assert (found.id, found.release_version, found.created) == ("ami-0a11ce0000000a23n", "1.36.1-20261112", dt.date(2026, 11, 12))
    assert (found.deprecated, found.root_gib) == (dt.date(2028, 11, 12), 20)
    assert found.parameter == amis.parameter("1.36", "AmazonLinux2023")[0]
    ubuntu = amis.look_up(account, "1.36", "Ubuntu2404")
    assert (ubuntu.id, ubuntu.release_version) == ("ami-0a11ce0000000ub24", "20261105")
    asked = [params for _, name, params in answers.calls if name == "get_parameters"]
    assert [len(params["Names"]) for params in asked] == [2, 1]  # Canonical names no release version


def test_an_image_that_ssm_names_and_ec2_does_not_show_is_no_image(account: Account, answers: Answers) -> None:
    healthy(answers)
    answers["ec2", "describe_images"] = Refusal("InvalidAMIID.NotFound", "The image id '[ami-0a11ce0000000ub24]' does not exist")
    with pytest.raises(RunbookError) as caught:
        amis.look_up(account, "1.36", "Ubuntu2404")
    assert not isinstance(caught.value, AwsError)
    assert caught.value.what == ("SSM names ami-0a11ce0000000ub24 for Ubuntu2404 1.36, "
                                 "and EC2 does not show it in eu-central-1")
    assert caught.value.next.startswith("gpurunbook ami --region eu-central-1 --kubernetes 1.36 --family AmazonLinux2023")
    answers["ec2", "describe_images"] = {"Images": []}
    with pytest.raises(RunbookError, match="does not show it"):
        amis.look_up(account, "1.36", "Ubuntu2404")


def test_a_family_that_has_no_image_for_the_version_says_for_which_it_has(account: Account, answers: Answers) -> None:
    healthy(answers)
    with pytest.raises(RunbookError, match=r"Ubuntu2004 has no image for Kubernetes 1.36 .*1.21 to 1.29") as caught:
        amis.look_up(account, "1.36", "Ubuntu2004")
    assert not isinstance(caught.value, AwsError)


@pytest.mark.parametrize("call", [("ssm", "get_parameters"), ("ec2", "describe_images")])
def test_a_refused_question_is_no_absence(account: Account, answers: Answers, call: tuple[str, str]) -> None:
    healthy(answers)
    answers[call] = Refusal("AccessDeniedException" if call[0] == "ssm" else "UnauthorizedOperation")
    with pytest.raises(AwsError) as caught:
        amis.look_up(account, "1.36", "Ubuntu2404")
    assert caught.value.denied


def test_a_pinned_image_is_asked_of_ec2_alone(account: Account, answers: Answers) -> None:
    real = account.call("ec2", "describe_images", Owners=["amazon"])["Images"][0]
    found = amis.of_group(account, group(ami=real["ImageId"]), "1.36")
    assert (found.id, found.name, found.parameter) == (real["ImageId"], real["Name"], "")
    assert not [call for call in answers.calls if call[0] == "ssm"]


def test_the_tutorials_pinned_image_is_gone(account: Account) -> None:
    with pytest.raises(RunbookError, match="ami-0ff21ec7370b1f3fb is not to be seen in eu-central-1") as caught:
        amis.of_group(account, group(ami="ami-0ff21ec7370b1f3fb", ami_family="Ubuntu2004"), "1.36")
    assert "delete the line `ami: ami-0ff21ec7370b1f3fb`" in caught.value.next


@pytest.mark.parametrize(("instance_type", "expected"), [
    ("m7g.xlarge", "arm64/standard"), ("g5g.xlarge", "arm64/nvidia"), ("g4dn.xlarge", "x86_64/nvidia"),
    ("m5.xlarge", "x86_64/standard"), ("g6e.xlarge", "x86_64/nvidia")])
def test_the_variant_follows_the_type(account: Account, answers: Answers, instance_type: str, expected: str) -> None:
    healthy(answers)
    try:
        name = amis.of_group(account, group(instance_type=instance_type, **AL2023), "1.36").parameter
    except RunbookError as error:  # the recorded account has no image for ARM
        name = error.where
    assert expected in name


@pytest.mark.parametrize(("image", "other", "state", "evidence"), [
    ({}, AL2023, "pass", "AmazonLinux2023 ami-1 amazon-eks-node-al2023-x86_64-nvidia-1.36-v20261112, made 2026-11-12"),
    ({"name": "amazon-eks-node-al2023-x86_64-standard-1.36-v20261112"}, AL2023, "fail", "standard variant has no NVIDIA driver"),
    ({"name": "amazon-eks-node-al2023-x86_64-neuron-1.36-v20261112"}, AL2023, "fail", "not the nvidia variant"),
    ({"name": "amazon-eks-node-1.32-v20250101"}, {"ami_family": "AmazonLinux2"}, "fail", "not the nvidia variant"),
    ({"name": "amazon-eks-gpu-node-1.36-v20250101"}, {"ami_family": "AmazonLinux2"}, "pass", ""),
    ({"name": "our-golden-image"}, AL2023, "warn", "does not tell whether it carries NVIDIA's driver"),
    ({"name": "our-golden-image"}, {}, "pass", ""), ({"name": "golden-1.2-prod"}, {}, "pass", ""),
    ({}, {}, "fail", "an Amazon image, and amiFamily is Ubuntu2404"),
    ({"state": "pending"}, AL2023, "fail", "its state is pending"),
    ({"arch": "arm64", "parameter": ""}, AL2023, "fail", "built for arm64, g4dn.xlarge is x86_64"),
    ({"parameter": ""}, {"instance_type": "g5g.xlarge", **AL2023}, "fail", "built for x86_64, g5g.xlarge is arm64"),
    ({"root_gib": 120}, AL2023, "fail", "needs 120 GiB, volumeSize is 100"),
    ({"deprecated": TODAY}, AL2023, "warn", "deprecated since 2026-11-22"),
    ({"deprecated": TODAY + dt.timedelta(1)}, AL2023, "pass", ""),
    ({"name": "amazon-eks-node-al2023-x86_64-nvidia-1.35-v20261112"}, AL2023, "warn", "1 minor version older than 1.36"),
    ({"name": "amazon-eks-node-al2023-x86_64-nvidia-1.33-v20261112"}, AL2023, "warn", "3 minor versions older than 1.36"),
    ({"name": "amazon-eks-node-al2023-x86_64-nvidia-1.32-v20261112"}, AL2023, "fail", "made for another version than 1.36"),
    ({"name": "amazon-eks-node-al2023-x86_64-nvidia-1.37-v20261112"}, AL2023, "fail", "made for another version than 1.36"),
    ({"name": "ubuntu-eks/k8s_1.27/images/hvm-ssd/ubuntu-focal-20.04-amd64-server-20230616"}, {}, "fail",
     "made for another version than 1.36"),
    ({"name": "ubuntu-eks/k8s_1.36/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20261105"}, {}, "pass", "")])
def test_the_image_fits_the_group(image: dict[str, Any], other: dict[str, Any], state: str, evidence: str) -> None:
    found = amis.check(replace(NVIDIA, **image), group(**other), "1.36", TODAY, region="eu-central-1")
    assert found.state == state, found
    assert evidence in found.evidence
    assert found.later == amis.LATER


def test_any_variant_serves_a_cpu_group() -> None:
    standard = replace(NVIDIA, name="amazon-eks-node-al2023-x86_64-standard-1.36-v20261112")
    assert amis.check(standard, group(instance_type="m5.xlarge", **AL2023), "1.36", TODAY, region="eu-central-1").state == "pass"


def test_a_pinned_image_is_mended_by_its_line_and_another_by_its_family() -> None:
    bad = replace(NVIDIA, name="amazon-eks-node-al2023-x86_64-standard-1.36-v20261112")
    pinned = amis.check(replace(bad, parameter=""), group(**AL2023), "1.36", TODAY, region="eu-central-1")
    assert pinned.fix == "delete the line `ami: ami-1` in cluster.yaml"
    newest = amis.check(bad, group(**AL2023), "1.36", TODAY, region="eu-central-1")
    assert newest.fix.startswith("gpurunbook ami --region eu-central-1 --kubernetes 1.36 --family Ubuntu2404")
