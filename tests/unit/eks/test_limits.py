"""Quotas: the right bucket, what counts as used, what is free, and what to ask AWS for."""

from __future__ import annotations

from typing import Any

import pytest

from gpurunbook.plan import Check
from gpurunbook.targets.eks import limits
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.instance_types import InstanceType
from gpurunbook.targets.eks.limits import Instance
from tests.aws.answers import Answers, Refusal
from tests.aws.preflight import group

REGION, CLUSTER, OWNER = "eu-central-1", "gpu-cluster", "123456789012"
G = limits.of_bucket(limits.G_AND_VT, spot=False)
TYPES = {name: InstanceType(name, cpus, 16384, "x86_64", 0, "", "", 0)
         for name, cpus in (("g4dn.xlarge", 4), ("g5.12xlarge", 48), ("m5.xlarge", 4))}
OURS = [{"Key": "alpha.eksctl.io/cluster-name", "Value": CLUSTER}]


@pytest.mark.parametrize(("instance_type", "on_demand", "spot"), [
    ("g4dn.xlarge", "L-DB2E81BA", "L-3819A6DF"), ("gr6.4xlarge", "L-DB2E81BA", "L-3819A6DF"),
    ("vt1.3xlarge", "L-DB2E81BA", "L-3819A6DF"), ("g5g.xlarge", "L-DB2E81BA", "L-3819A6DF"),
    ("p4d.24xlarge", "L-417A185B", "L-7212CCBC"), ("p5.48xlarge", "L-417A185B", "L-C4BD4855"),
    ("m5.xlarge", "L-1216C47A", "L-34B43A08"), ("im4gn.large", "L-1216C47A", "L-34B43A08"),
    ("t3.micro", "L-1216C47A", "L-34B43A08"), ("inf2.xlarge", "L-1945791B", "L-B5D1601B"),
    ("i4i.large", "L-1216C47A", "L-34B43A08"), ("trn1.2xlarge", "L-2C3B7624", "L-6B0D517C"),
    ("x2gd.large", "L-7295265B", "L-E3A00192"), ("f1.2xlarge", "L-74FC7D96", "L-88CF9481"),
    ("dl1.24xlarge", "L-6E869C2A", "L-85EED4F7"), ("hpc7g.4xlarge", "L-F7808C92", ""), ("u-6tb1.metal", "L-43DA4232", "")])
def test_a_type_is_counted_in_its_own_bucket(instance_type: str, on_demand: str, spot: str) -> None:
    found = limits.bucket(instance_type)
    assert found is not None
    assert (found.on_demand, found.spot) == (on_demand, spot)


def test_a_type_without_a_vcpu_quota_has_no_bucket() -> None:
    assert limits.bucket("mac2.metal") is None


def check(at: float, running: list[Instance], **other: Any) -> Check:
    return limits.vcpus(G, REGION, [group(**other)], running, TYPES, at)


def test_no_gpu_quota_fails_with_the_command_that_asks_for_it() -> None:
    found = check(0, [])
    assert (found.state, found.evidence) == ("fail", "4 needed, 0 of 0 vCPUs used, 0 free")
    assert found.fix == ("aws service-quotas request-service-quota-increase --service-code ec2 --quota-code L-DB2E81BA "
                         "--desired-value 4 --region eu-central-1")
    assert "pods Pending" in found.later


def test_what_runs_already_leaves_less() -> None:
    running = [Instance("g5.12xlarge", spot=False, ours=False)]
    assert check(51, running).state == "fail"
    assert "--desired-value 52 " in check(51, running).fix
    enough = check(52, running)
    assert (enough.state, enough.evidence) == ("pass", "4 needed, 48 of 52 vCPUs used, 4 free")


def test_nodes_of_this_cluster_are_not_needed_twice() -> None:
    assert check(4, [Instance("g4dn.xlarge", spot=False, ours=True)]).evidence == "0 needed, 4 of 4 vCPUs used, 0 free"
    assert check(4, [Instance("g4dn.xlarge", spot=False, ours=True)]).state == "pass"
    assert check(4, [Instance("g4dn.xlarge", spot=False, ours=False)]).state == "fail"


def test_room_for_the_wanted_nodes_and_not_for_the_most_warns() -> None:
    found = check(8, [], max=3)
    assert (found.state, found.evidence) == ("warn", "4 needed, 0 of 8 vCPUs used, 8 free; maxSize needs 12")
    assert "--desired-value 12 " in found.fix


def test_spot_dedicated_hosts_and_stopped_ones_are_told_apart(account: Account, answers: Answers) -> None:
    answers["ec2", "describe_instances"] = lambda asked: {"Reservations": [{"Instances": [
        {"InstanceType": "g4dn.xlarge", "Tags": OURS}, {"InstanceType": "g5.xlarge", "InstanceLifecycle": "spot"},
        {"InstanceType": "p5.48xlarge", "InstanceLifecycle": "capacity-block"},
        {"InstanceType": "m5.xlarge", "Placement": {"Tenancy": "host"}}]}]
        if asked["Filters"] == [{"Name": "instance-state-name", "Values": ["pending", "running"]}] else []}
    assert limits.instances(account, CLUSTER) == [Instance("g4dn.xlarge", False, True), Instance("g5.xlarge", True, False)]


def test_moto_counts_a_running_instance_and_not_a_stopped_one(account: Account) -> None:
    image = account.call("ec2", "describe_images", Owners=["amazon"])["Images"][0]["ImageId"]
    made = account.call("ec2", "run_instances", ImageId=image, InstanceType="g4dn.xlarge", MinCount=2, MaxCount=2)["Instances"]
    account.call("ec2", "stop_instances", InstanceIds=[made[0]["InstanceId"]])
    assert limits.instances(account, CLUSTER) == [Instance("g4dn.xlarge", spot=False, ours=False)]


@pytest.mark.parametrize(("tags", "expected"), [
    (OURS, True), ([{"Key": "eks:cluster-name", "Value": CLUSTER}], True),
    ([{"Key": f"kubernetes.io/cluster/{CLUSTER}", "Value": "owned"}], True),
    ([{"Key": "alpha.eksctl.io/cluster-name", "Value": "another"}], False),
    ([{"Key": f"kubernetes.io/cluster/{CLUSTER}-2", "Value": "owned"}], False), (None, False)])
def test_what_belongs_to_the_cluster_says_so(tags: list[dict[str, str]] | None, expected: bool) -> None:
    assert limits.belongs(tags, CLUSTER) is expected


def test_the_applied_quota_comes_first_and_the_default_second(account: Account, answers: Answers) -> None:
    answers["service-quotas", "get_aws_default_service_quota"] = {"Quota": {"Value": 5.0}}
    answers["service-quotas", "get_service_quota"] = {"Quota": {"Value": 7.0}}
    assert limits.value(account, limits.ADDRESSES) == 7
    answers["service-quotas", "get_service_quota"] = Refusal("NoSuchResourceException")
    assert limits.value(account, limits.ADDRESSES) == 5
    asked = [params for _, name, params in answers.calls if name == "get_aws_default_service_quota"]
    assert asked == [{"ServiceCode": "ec2", "QuotaCode": "L-0263D0A3"}]


def test_a_refused_quota_is_not_replaced_by_the_default(account: Account, answers: Answers) -> None:
    answers["service-quotas", "get_service_quota"] = Refusal("AccessDeniedException")
    answers["service-quotas", "get_aws_default_service_quota"] = {"Quota": {"Value": 5.0}}
    with pytest.raises(AwsError) as caught:
        limits.value(account, limits.ADDRESSES)
    assert caught.value.denied


@pytest.mark.parametrize(("document", "expected"), [
    ({}, limits.Network(1, 1, 1)),
    ({"vpc": {"nat": {"gateway": "HighlyAvailable"}}}, limits.Network(1, 3, 1)),
    ({"vpc": {"nat": {"gateway": "HighlyAvailable"}}, "availabilityZones": ["a", "b"]}, limits.Network(1, 2, 1)),
    ({"vpc": {"nat": {"gateway": "Disable"}}}, limits.Network(1, 0, 0)),
    ({"privateCluster": {"enabled": True}}, limits.Network(1, 0, 0)),
    ({"vpc": {"id": "vpc-1"}}, limits.Network(0, 0, 0)),
    ({"vpc": {"subnets": {"public": {}}, "nat": {"gateway": "Single"}}}, limits.Network(0, 0, 0))])
def test_what_eksctl_will_make(document: dict[str, Any], expected: limits.Network) -> None:
    assert limits.network({"metadata": {"region": REGION}, **document}) == expected


def test_addresses_used_by_others_leave_none(account: Account) -> None:
    for _ in range(5):
        account.call("ec2", "allocate_address", Domain="vpc")
    found = limits.counted(limits.ADDRESSES, REGION, CLUSTER, limits.addresses(account), 1, 5)
    assert (found.state, found.evidence) == ("fail", "1 needed, 5 of 5 addresses used, 0 free")
    assert "--quota-code L-0263D0A3 --desired-value 6 " in found.fix


def test_this_clusters_own_address_is_enough(account: Account) -> None:
    made = account.call("ec2", "allocate_address", Domain="vpc")
    account.call("ec2", "create_tags", Resources=[made["AllocationId"]], Tags=OURS)
    assert limits.counted(limits.ADDRESSES, REGION, CLUSTER, limits.addresses(account), 1, 1).state == "pass"
    assert limits.counted(limits.ADDRESSES, REGION, "another", limits.addresses(account), 1, 1).state == "fail"


def test_vpcs_and_internet_gateways_are_counted(account: Account) -> None:
    account.call("ec2", "create_vpc", CidrBlock="10.0.0.0/16")
    account.call("ec2", "create_internet_gateway")
    assert limits.counted(limits.VPCS, REGION, CLUSTER, limits.vpcs(account, OWNER), 1, 2).evidence.startswith(
        "1 needed, 2 of 2 VPCs")
    assert limits.counted(limits.GATEWAYS, REGION, CLUSTER, limits.internet_gateways(account), 1, 2).state == "pass"


def test_a_vpc_that_another_account_shares_does_not_count(account: Account, answers: Answers) -> None:
    answers["ec2", "describe_vpcs"] = {"Vpcs": [
        {"VpcId": "vpc-own", "OwnerId": OWNER}, {"VpcId": "vpc-shared", "OwnerId": "210987654321"}]}
    assert [v["VpcId"] for v in limits.vpcs(account, OWNER)] == ["vpc-own"]


def test_nat_gateways_are_counted_in_their_zone(account: Account) -> None:
    vpc = account.call("ec2", "create_vpc", CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnet = account.call("ec2", "create_subnet", VpcId=vpc, CidrBlock="10.0.0.0/24", AvailabilityZone="eu-central-1b")
    address = account.call("ec2", "allocate_address", Domain="vpc")["AllocationId"]
    account.call("ec2", "create_nat_gateway", SubnetId=subnet["Subnet"]["SubnetId"], AllocationId=address)
    found = limits.nat_gateways(account)
    assert [nat["Zone"] for nat in found] == ["eu-central-1b"]


@pytest.mark.parametrize(("full", "state", "fix"), [
    ((), "pass", ""), (("a",), "warn", "set availabilityZones in cluster.yaml without a"),
    (("a", "b"), "fail", "aws service-quotas request-service-quota-increase")])
def test_a_full_zone_is_a_risk_and_full_zones_a_failure(full: tuple[str, ...], state: str, fix: str) -> None:
    found = limits.nats(REGION, CLUSTER, [{"Zone": zone} for zone in full for _ in range(5)], ["a", "b"], 1, 5)
    assert found.state == state
    assert found.fix.startswith(fix)


def test_a_full_zone_does_not_matter_to_a_cluster_that_has_its_gateway() -> None:
    there = [{"Zone": "a", "Tags": OURS}]
    assert limits.nats(REGION, CLUSTER, there, ["a"], 1, 1).state == "pass"
    assert limits.nats(REGION, "another", there, ["a"], 1, 1).state == "fail"
