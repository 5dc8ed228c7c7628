"""Instance types: what they are, where they are offered, and whether the GPU's driver is to be had."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.targets.eks import instance_types
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.instance_types import InstanceType
from tests.aws.answers import Answers
from tests.aws.preflight import group

ZONES = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
T4 = InstanceType("g4dn.xlarge", 4, 16384, "x86_64", 1, "T4", "NVIDIA", 16384)


def test_a_type_is_what_ec2_says(account: Account) -> None:
    found = instance_types.describe(account, ["g4dn.xlarge", "m5.xlarge", "g99.xlarge"])
    assert found.keys() == {"g4dn.xlarge", "m5.xlarge"}
    assert found["g4dn.xlarge"] == T4
    assert (found["m5.xlarge"].vcpus, found["m5.xlarge"].gpus) == (4, 0)


@pytest.mark.parametrize(("types", "state", "evidence"), [
    ({"g4dn.xlarge": T4}, "pass", "g4dn.xlarge: 4 vCPUs, 16 GiB, 1 NVIDIA T4 (16 GiB), x86_64"),
    ({}, "fail", "eu-central-1 has no instance type g4dn.xlarge"),
    ({"g4dn.xlarge": InstanceType("g4dn.xlarge", 4, 16384, "x86_64", 1, "V520", "AMD", 8192)}, "fail",
     "g4dn.xlarge: 4 vCPUs, 16 GiB, 1 AMD V520 (8 GiB), x86_64: no NVIDIA GPU"),
    ({"g4dn.xlarge": InstanceType("g4dn.xlarge", 4, 8192, "arm64", 1, "T4g", "NVIDIA", 16384)}, "fail",
     "g4dn.xlarge: 4 vCPUs, 8 GiB, 1 NVIDIA T4g (16 GiB), arm64: the model's image is built for x86_64")])
def test_the_gpu_groups_type_has_an_nvidia_gpu_and_an_x86_cpu(types: dict[str, InstanceType], state: str, evidence: str) -> None:
    found = instance_types.known(group(), types, "eu-central-1")
    assert (found.state, found.evidence) == (state, evidence)
    assert bool(found.fix) == (state == "fail")


def test_a_cpu_group_may_be_arm() -> None:
    arm = InstanceType("m7g.xlarge", 4, 16384, "arm64", 0, "", "", 0)
    assert instance_types.known(group(instance_type="m7g.xlarge"), {"m7g.xlarge": arm}, "eu-central-1").state == "pass"


def test_zones_in_which_eks_makes_no_cluster_are_left_out(account: Account, answers: Answers) -> None:
    assert instance_types.zones(account) == ZONES
    answers["ec2", "describe_availability_zones"] = {"AvailabilityZones": [
        {"ZoneName": "us-east-1b", "ZoneId": "use1-az3"}, {"ZoneName": "us-east-1a", "ZoneId": "use1-az1"}]}
    assert instance_types.zones(account) == ["us-east-1a"]


def test_a_type_that_is_offered_nowhere_has_no_zones(account: Account) -> None:
    assert instance_types.offerings(account, ["g4dn.xlarge", "g99.xlarge"]) == {"g4dn.xlarge": set(ZONES), "g99.xlarge": set()}


@pytest.mark.parametrize(("offered", "asked", "state", "evidence", "fix"), [
    (ZONES, (), "pass", "in eu-central-1a, eu-central-1b, eu-central-1c; a free one is not promised", ""),
    (ZONES[:2], ZONES[:2], "pass", "in eu-central-1a, eu-central-1b; a free one is not promised", ""),
    (ZONES[:2], (), "warn", "in eu-central-1a, eu-central-1b; not in eu-central-1c",
     "set availabilityZones: [eu-central-1a, eu-central-1b] for gpu-workers in cluster.yaml"),
    (ZONES[:1], ZONES[1:], "fail", "not in eu-central-1b, eu-central-1c; offered in eu-central-1a",
     "set availabilityZones: [eu-central-1a] in cluster.yaml"),
    ([], (), "fail", "not in eu-central-1a, eu-central-1b, eu-central-1c; offered in no zone of this region",
     "set another instanceType in cluster.yaml, or another region")])
def test_the_type_is_offered_in_the_zones_that_are_asked_for(offered: list[str], asked: tuple[str, ...], state: str,
                                                             evidence: str, fix: str) -> None:
    found = instance_types.offered(group(), {"g4dn.xlarge": set(offered)}, asked, ZONES)
    assert (found.state, found.evidence, found.fix) == (state, evidence, fix)
    assert "10 to 25 min" in found.later


@pytest.mark.parametrize(("gpu_zones", "asked", "state", "evidence"), [
    (ZONES, (), "pass", "eu-central-1a, eu-central-1b, eu-central-1c offer every type"),
    (ZONES[:1], (), "fail", "eu-central-1a alone offers every type"), ([], (), "fail", "no zone offers every type"),
    (ZONES[:1], ZONES[:2], "pass", "cluster.yaml names eu-central-1a, eu-central-1b"),
    (ZONES, ZONES[:1], "fail", "cluster.yaml names eu-central-1a")])
def test_two_zones_offer_every_type(gpu_zones: list[str], asked: tuple[str, ...], state: str, evidence: str) -> None:
    offers = {"g4dn.xlarge": set(gpu_zones), "m5.xlarge": set(ZONES)}
    found = instance_types.common([group(), group(instance_type="m5.xlarge")], offers, asked, ZONES)
    assert (found.state, found.evidence) == (state, evidence)


def test_zones_are_proposed_with_those_that_offer_every_type_first() -> None:
    offers = {"g4dn.xlarge": {ZONES[2]}, "m5.xlarge": set(ZONES)}
    found = instance_types.common([group(), group(instance_type="m5.xlarge")], offers, (), ZONES)
    assert found.fix.startswith("set availabilityZones: [eu-central-1c, eu-central-1a] ")


@pytest.mark.parametrize(("other", "text", "state"), [
    ({}, "", "pass"), ({"ami_family": "AmazonLinux2023"}, "", "fail"),
    ({"ami_family": "AmazonLinux2023"}, "EKS node (nvidia driver: 580.95.05)", "fail"),
    ({"ami_family": "AmazonLinux2023"}, "EKS node (nvidia driver: 595.91.07)", "pass")])
def test_g7_needs_driver_595(other: dict[str, Any], text: str, state: str) -> None:
    g7 = group(instance_type="g7.xlarge", **other)
    assert instance_types.newest_gpu(g7)
    assert instance_types.driver(g7, text).state == state


@pytest.mark.parametrize("instance_type", ["g4dn.xlarge", "g7e.2xlarge", "m7g.xlarge"])
def test_other_types_are_served_by_the_drivers_that_there_are(instance_type: str) -> None:
    assert not instance_types.newest_gpu(group(instance_type=instance_type))
