"""What is ours and what is not: the rules with values, and the whole way on moto. All data is invented."""

from __future__ import annotations

import datetime as dt
import json
import time
from dataclasses import replace
from decimal import Decimal

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpurunbook.errors import RunbookError
from gpurunbook.targets.eks import aws, inventory, leftovers, ownership, stack_members, sweep, tags
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.leftovers import find, judge, record
from gpurunbook.targets.eks.ownership import Mark, Resource, verdict
from tests.aws.answers import Answers, Refusal
from tests.unit.eks.conftest import REGION

BORN = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
OURS = Mark("gpu-cluster", REGION, "2026-11-22-otter", "ann", f"arn:aws:eks:{REGION}:123456789012:cluster/gpu-cluster", BORN,
            recorded=frozenset({("volume", "vol-pv"), ("log group", "/aws/eks/gpu-cluster/cluster"), ("cluster", "gpu-cluster")}),
            stacks=frozenset({("NAT gateway", "nat-1"), ("cluster", "gpu-cluster")}))
OWNED = {"kubernetes.io/cluster/gpu-cluster": "owned"}


def thing(kind: str = "volume", id: str = "vol-1", created: dt.datetime | None = BORN + HOUR, users: tuple[str, ...] = (),
          **has: str) -> Resource:
    return Resource(kind, id, REGION, tags=has, created=created, users=users)


@pytest.mark.parametrize(("one", "why"), [
    (thing(**{tags.RUN: "2026-11-22-otter"}), "tag gpurunbook/run=2026-11-22-otter"),
    (thing("NAT gateway", "nat-1"), "in one of the cluster's stacks"),
    (thing(id="vol-pv"), "recorded from the live cluster"),
    (thing("log group", "/aws/eks/gpu-cluster/cluster"), "recorded from the live cluster"),
    (thing(**OWNED), "tag kubernetes.io/cluster/gpu-cluster=owned"),
    (thing("load balancer", **{"elbv2.k8s.aws/cluster": "gpu-cluster"}), "tag elbv2.k8s.aws/cluster=gpu-cluster"),
    (thing("network interface", **{"cluster.k8s.amazonaws.com/name": "gpu-cluster"}),
     "tag cluster.k8s.amazonaws.com/name=gpu-cluster")])
def test_each_proof_makes_it_ours(one: Resource, why: str) -> None:
    assert verdict(one, OURS) == ownership.Verdict(True, why)


@pytest.mark.parametrize("one", [
    thing(), thing("address", "eipalloc-1"), thing(Name="gpu-cluster"), thing("load balancer", "gpu-cluster-api"),
    thing(**{tags.OWNER: "ann"}), thing("address", "vol-pv"), thing("key pair", "nat-1")],
    ids=["bare", "unassociated address", "name", "name within a name", "owner only", "recorded id of another kind",
         "stack's id of another kind"])
def test_what_has_no_proof_is_not_even_mentioned(one: Resource) -> None:
    assert verdict(one, OURS) == ownership.Verdict(False)


@pytest.mark.parametrize(("one", "why"), [
    (thing(**OWNED, **{tags.RUN: "2026-11-22-maple"}), "tag of another run"),
    (thing(**{tags.RUN: "2026-11-22-otter", tags.OWNER: "bob"}), "tag of another person's run"),
    (thing(**OWNED, role=f"arn:aws:eks:{REGION}:210987654321:cluster/gpu-cluster"), "another cluster's ARN"),
    (thing(**{tags.RUN: "2026-11-22-otter"}, of="arn:aws:eks:us-east-1:123456789012:cluster/gpu-cluster"),
     "another cluster's ARN"),
    (thing(**OWNED, **{"kubernetes.io/cluster/gpu-cluster-2": "owned"}), "tag of another cluster"),
    (thing(**OWNED, **{"elbv2.k8s.aws/cluster": "gpu-cluster-2"}), "tag of another cluster"),
    (thing(**OWNED, KubernetesCluster="gpu-cluster-2"), "tag of another cluster"),
    (thing(**{"kubernetes.io/cluster/gpu-cluster": "shared"}), "only used by the cluster"),
    (thing(KubernetesCluster="gpu-cluster"), ""),
    (thing(created=BORN - HOUR, **OWNED), "before our cluster"),
    (thing(id="vol-pv", created=BORN - HOUR), "before our cluster"),
    (thing("log group", "/aws/eks/gpu-cluster/cluster", BORN - HOUR), "before our cluster"),
    (replace(thing("security group", "sg-1", **{tags.RUN: OURS.run_id}), protected="the default group of a VPC"),
     "default group")])
def test_what_speaks_against_a_proof_spares_it(one: Resource, why: str) -> None:
    said = verdict(one, OURS)
    assert not said.ours
    assert why in said.why
    assert said.spared == bool(why)


def test_the_runs_tag_outweighs_times_and_cluster_names() -> None:
    """What eksctl makes before the cluster, and the account check's cluster-1, are the run's all the same."""
    assert verdict(thing(created=BORN - HOUR, **{tags.RUN: OURS.run_id}), OURS).ours
    assert verdict(thing(**{tags.RUN: OURS.run_id, "kubernetes.io/cluster/cluster-1": "owned"}), OURS).ours


def test_the_stack_makes_things_before_the_cluster() -> None:
    assert verdict(thing("NAT gateway", "nat-1", BORN - HOUR), OURS).ours


def test_of_two_clusters_of_one_name_each_keeps_its_own() -> None:
    mark = replace(OURS, later=BORN + 2 * HOUR)
    assert verdict(thing(created=BORN + HOUR, **OWNED), mark).ours
    for one in (thing(created=BORN + 3 * HOUR, **OWNED), thing("security group", "sg-1", None, **OWNED),
                thing("cluster", "gpu-cluster", BORN + 2 * HOUR), thing("log group", "/aws/eks/gpu-cluster/cluster")):
        assert "another cluster of this name" in verdict(one, mark).why, one
    assert verdict(thing(id="vol-pv", created=BORN + 3 * HOUR), mark).ours  # an id is for ever
    assert verdict(thing("NAT gateway", "nat-1", BORN + 3 * HOUR), mark).ours


def test_when_the_name_cannot_be_looked_up_names_prove_nothing() -> None:
    mark = replace(OURS, uncertain="not known")
    assert verdict(thing(**OWNED), mark) == ownership.Verdict(False, "not known", spared=True)
    assert verdict(thing(id="vol-pv"), mark).ours
    assert verdict(thing(**{tags.RUN: OURS.run_id}), mark).ours


def test_with_the_run_folder_lost_tags_still_prove_it_and_another_runs_things_stay() -> None:
    lost = Mark("gpu-cluster", REGION)
    assert verdict(thing(**OWNED), lost).ours
    assert verdict(thing(**OWNED, **{tags.RUN: "2026-11-22-otter"}), lost).why.startswith("tag of another run")
    assert not verdict(thing(**{tags.RUN: ""}), lost).ours
    assert not verdict(thing(id="vol-pv"), lost).ours
    assert "another cluster's ARN" in verdict(thing(**OWNED, of=f"arn:aws:eks:{REGION}:1:cluster/other"), lost).why


def stack(name: str, cluster: str = "gpu-cluster", created: dt.datetime = BORN + HOUR) -> Resource:
    return Resource("stack", f"arn:{name}", REGION, tags={ownership.EKSCTL_TAGS[0]: cluster} if cluster else {}, created=created,
                    detail={"name": name, "state": "CREATE_COMPLETE"})


def test_a_stack_is_ours_by_its_name_and_eksctls_tag() -> None:
    lost = Mark("gpu-cluster", REGION)
    assert verdict(stack("eksctl-gpu-cluster-cluster"), lost).ours
    assert verdict(stack("eksctl-gpu-cluster-nodegroup-gpu-workers"), OURS).ours
    assert verdict(stack("eksctl-gpu-cluster-cluster", cluster=""), lost) == ownership.Verdict(
        False, "only its name says that it is the cluster's", spared=True)
    assert not verdict(stack("gpu-cluster"), lost).ours
    # The stack of cluster `gpu-cluster-nodegroup-a` begins as a node group's stack of `gpu-cluster` does.
    assert not verdict(stack("eksctl-gpu-cluster-nodegroup-a-cluster", "gpu-cluster-nodegroup-a"), lost).ours


def test_a_cluster_stack_of_the_same_name_must_be_the_recorded_one() -> None:
    one = stack("eksctl-gpu-cluster-cluster", created=BORN - HOUR)
    assert "not the one that was recorded" in verdict(one, OURS).why
    assert verdict(one, replace(OURS, recorded=frozenset({("stack", one.id)}))).ours
    assert "before our cluster" in verdict(stack("eksctl-gpu-cluster-nodegroup-a", created=BORN - HOUR), OURS).why


def test_what_something_foreign_uses_is_spared_and_what_hangs_on_it_too() -> None:
    ours = thing("instance", "i-1", **OWNED)
    kept, spared = judge([ours, thing(id="vol-a", users=("i-1",), **OWNED), thing(id="vol-b", users=("i-foreign",), **OWNED),
                          thing("network interface", "eni-1", users=("vol-b",), **OWNED)], OURS)
    assert [one.id for one in kept] == ["i-1", "vol-a"]
    assert {(one.id, why) for one, why in spared} == {
        ("vol-b", "in use by i-foreign, not ours"), ("eni-1", "in use by vol-b, not ours")}


def test_a_log_group_that_nobody_recorded_is_told_of_and_stays() -> None:
    group = thing("log group", "/aws/eks/gpu-cluster/cluster")
    assert verdict(group, Mark("gpu-cluster", REGION)) == ownership.Verdict(
        False, "only its name says that it is the cluster's", spared=True)


KEYS = [tags.RUN, tags.OWNER, "Name", "KubernetesCluster", *ownership.ownership_tags("gpu-cluster"),
        "kubernetes.io/cluster/other", *ownership.EKSCTL_TAGS]
VALUES = ["owned", "shared", "gpu-cluster", "gpu-cluster-2", "2026-11-22-otter", "2026-11-22-maple", "ann", "bob", ""]
MOMENTS = st.none() | st.integers(-3, 3).map(lambda hours: BORN + hours * HOUR)
THINGS = st.builds(
    Resource, kind=st.sampled_from(["volume", "NAT gateway", "log group", "stack", "cluster", "address"]),
    id=st.sampled_from(["vol-pv", "nat-1", "gpu-cluster", "/aws/eks/gpu-cluster/cluster", "arn:stack", "x"]),
    tags=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=4), created=MOMENTS,
    also=st.lists(st.sampled_from(["vol-pv", "y"]), max_size=1).map(tuple),
    users=st.lists(st.sampled_from(["x", "z"]), max_size=1).map(tuple),
    detail=st.sampled_from([{}, {"name": "eksctl-gpu-cluster-cluster"}, {"name": "eksctl-gpu-cluster-nodegroup-a"}]))
MARKS = st.sampled_from([OURS, Mark("gpu-cluster", REGION), replace(OURS, run_id=""), replace(OURS, later=BORN + HOUR),
                         replace(OURS, uncertain="not known"), replace(OURS, created=None)])


@settings(max_examples=1000, deadline=None)
@given(st.lists(THINGS, max_size=5), MARKS)
def test_nothing_without_a_proof_is_ever_returned(things: list[Resource], mark: Mark) -> None:
    """The four proofs and the two disproofs of the issue, said once more in another way."""
    kept, _ = judge(things, mark)
    for one in kept:
        ids = [(one.kind, id) for id in (one.id, *one.also)]
        by_run = bool(mark.run_id) and one.tags.get("gpurunbook/run") == mark.run_id
        by_stack = (any(pair in mark.stacks for pair in ids)
                    or (one.kind == "stack" and one.detail.get("name", "").startswith("eksctl-gpu-cluster-")
                        and "gpu-cluster" in (one.tags.get(ownership.EKSCTL_TAGS[0]), one.tags.get(ownership.EKSCTL_TAGS[1]))))
        by_record = any(pair in mark.recorded for pair in ids)
        by_tag = (one.tags.get("kubernetes.io/cluster/gpu-cluster") == "owned" or "gpu-cluster" in (
            one.tags.get("elbv2.k8s.aws/cluster"), one.tags.get("cluster.k8s.amazonaws.com/name")))
        assert by_run or by_stack or by_record or by_tag
        assert one.tags.get("gpurunbook/run", "") in ("", mark.run_id)
        if not by_run:
            assert not {"shared", "gpu-cluster-2"} & {v for k, v in one.tags.items() if k.startswith("kubernetes.io/cluster/")}
            if not by_stack and mark.created and one.created and (one.kind, one.id) not in mark.recorded:
                assert one.created >= mark.created
        assert all(any(user in (other.id, *other.also) for other in kept) for user in one.users)


# On moto from here on.

def at_the_next_second() -> None:
    """AWS and moto give some times in whole seconds."""
    time.sleep(1.001 - time.time() % 1)


def named(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in pairs]


def spec(kind: str, *pairs: tuple[str, str]) -> list[dict[str, object]]:
    return [{"ResourceType": kind, "Tags": named(*pairs)}]


class Town:
    """An account with a VPC of somebody's in it, to seed."""

    def __init__(self, account: Account) -> None:
        self.account, self.ec2 = account, account.client("ec2")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [self.ec2.create_subnet(VpcId=self.vpc, CidrBlock=f"10.0.{i}.0/24", AvailabilityZone=f"{REGION}{zone}")
                        ["Subnet"]["SubnetId"] for i, zone in enumerate("ab")]

    def cluster(self, **has: str) -> None:
        self.account.client("eks").create_cluster(name="gpu-cluster", roleArn="arn:aws:iam::123456789012:role/x",
                                                  resourcesVpcConfig={"subnetIds": self.subnets}, tags=has)

    def volume(self, *pairs: tuple[str, str]) -> str:
        made = self.ec2.create_volume(AvailabilityZone=f"{REGION}a", Size=100, VolumeType="gp3",
                                      **({"TagSpecifications": spec("volume", *pairs)} if pairs else {}))
        return str(made["VolumeId"])

    def interface(self, *pairs: tuple[str, str]) -> str:
        made = self.ec2.create_network_interface(SubnetId=self.subnets[0], TagSpecifications=spec("network-interface", *pairs))
        return str(made["NetworkInterface"]["NetworkInterfaceId"])

    def group(self, name: str, *pairs: tuple[str, str]) -> str:
        return str(self.ec2.create_security_group(GroupName=name, Description="x", VpcId=self.vpc, **(
            {"TagSpecifications": spec("security-group", *pairs)} if pairs else {}))["GroupId"])

    def address(self, *pairs: tuple[str, str]) -> str:
        return str(self.ec2.allocate_address(Domain="vpc", **({"TagSpecifications": spec("elastic-ip", *pairs)} if pairs else {}))
                   ["AllocationId"])

    def balancer(self, name: str, *pairs: tuple[str, str]) -> str:
        made = self.account.client("elbv2").create_load_balancer(Name=name, Subnets=self.subnets,
                                                                 Tags=named(*(pairs or [("a", "b")])))
        return str(made["LoadBalancers"][0]["LoadBalancerArn"])

    def there(self) -> set[str]:
        """Ids of all that a sweep could delete."""
        return {one.id for read, _ in inventory.READERS.values() for one in read(self.account, "gpu-cluster")}


def test_exactly_the_six_leftovers_go_and_the_six_look_alikes_stay(account: Account, answers: Answers) -> None:
    town = Town(account)
    owned = ("kubernetes.io/cluster/gpu-cluster", "owned")
    before = town.volume(owned)  # of a cluster that had the name before ours
    at_the_next_second()
    town.cluster(**{tags.RUN: "2026-11-22-otter", tags.OWNER: "ann"})
    at_the_next_second()
    account.client("logs").create_log_group(logGroupName="/aws/eks/gpu-cluster/cluster")
    handle = town.volume()
    ours = {handle, town.interface(("cluster.k8s.amazonaws.com/name", "gpu-cluster")),
            town.balancer("k8s-default-web-0a1b2c", ("elbv2.k8s.aws/cluster", "gpu-cluster")), town.group("k8s-elb", owned),
            town.address((tags.RUN, "2026-11-22-otter")), "/aws/eks/gpu-cluster/cluster"}
    unnamed = {town.address(), town.balancer("gpu-cluster-api"),
               town.volume(("Name", "gpu-cluster-dynamic-pvc-1"), ("kubernetes.io/cluster/gpu-cluster-2", "owned"))}
    foreign = {*unnamed, before,
               town.group("nodes", ("kubernetes.io/cluster/gpu-cluster", "shared")),
               town.interface((tags.RUN, "2026-11-22-maple"), ("cluster.k8s.amazonaws.com/name", "gpu-cluster"))}
    assert (len(ours), len(foreign)) == (6, 6)
    everything = town.there()
    assert ours | foreign < everything  # the default groups of the VPCs are there as well
    kept = json.loads(json.dumps(record(account, "gpu-cluster", volumes=[handle])))  # as the journal keeps it
    assert kept["unread"] == []
    account.client("eks").delete_cluster(name="gpu-cluster")
    mark = ownership.mark(kept)

    found = find(account, mark, price=lambda one: Decimal("0.0110") if one.kind == "volume" else None)
    assert {one.id for one in found.leftovers} == ours
    assert {one.id for one, _ in found.spared} == foreign - unnamed  # what names the cluster is told of, with the reason
    volume = next(one for one in found.leftovers if one.kind == "volume")
    assert (volume.place, volume.size, volume.per_hour) == (f"{REGION}a", "100 GiB gp3", Decimal("0.0110"))
    assert not found.clean
    failed = {check.name: check.evidence for check in found.checks if check.state == "fail"}
    assert failed["left behind: volume"] == f"{handle}, 100 GiB gp3, {REGION}a, $0.0110/h"
    assert "price unknown" in failed["left behind: address"]
    assert len(failed) == 6

    commands = sweep.commands(found.leftovers)
    assert [run(command.argv, answers) for command in commands] == [0] * 7  # the log group twice
    assert town.there() == everything - ours

    again = find(account, mark)
    assert again.clean
    assert sweep.commands(again.leftovers) == []
    assert [run(command.argv, answers) for command in commands] == [0] * 7  # a sweep that was cut off may be run again
    assert town.there() == everything - ours


def run(argv: tuple[str, ...], answers: Answers) -> int:
    """What the Command does, in this process."""
    assert argv[1:3] == ("-m", aws.__name__)
    return aws.main(list(argv[3:]), session=answers.install(boto3.Session()), sleep=lambda seconds: None)


TEMPLATE = {"Resources": {"Shared": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": "x"}},
                          "Ip": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}}}}


def make_stack(account: Account, name: str, cluster: str, **has: str) -> str:
    return str(account.client("cloudformation").create_stack(
        StackName=name, TemplateBody=json.dumps(TEMPLATE),
        Tags=named((ownership.EKSCTL_TAGS[0], cluster), *has.items()))["StackId"])


def test_a_stack_and_what_is_in_it_are_found_from_the_account_alone(account: Account, answers: Answers) -> None:
    ours = make_stack(account, "eksctl-gpu-cluster-cluster", "gpu-cluster", **{tags.RUN: "r-1", tags.OWNER: "ann"})
    make_stack(account, "eksctl-gpu-cluster-nodegroup-a-cluster", "gpu-cluster-nodegroup-a")
    kept = record(account, "gpu-cluster")  # no such cluster: the create failed, or somebody deleted it
    assert (kept["run_id"], kept["owner"], kept["created"], kept["unread"]) == ("r-1", "ann", "", [])
    assert kept["recorded"] == [["stack", ours]]
    found = find(account, ownership.mark(kept))
    assert sorted(one.kind for one in found.leftovers) == ["address", "security group", "stack"]
    assert {one.kind for one in found.leftovers if one.with_stack} == {"address", "security group"}
    [command] = sweep.commands(found.leftovers)
    assert run(command.argv, answers) == 0
    # moto leaves a stack's address, as --retain-resources would: it is still ours, and now needs a command of its own.
    [command] = sweep.commands(find(account, ownership.mark(kept)).leftovers)
    assert command.shown[:3] == ("aws", "ec2", "release-address")
    assert run(command.argv, answers) == 0
    assert find(account, ownership.mark(kept)).clean
    assert len(stack_members.stacks(account, "gpu-cluster-nodegroup-a")) == 1
    assert account.client("cloudformation").describe_stacks(StackName="eksctl-gpu-cluster-nodegroup-a-cluster")


def test_an_address_in_a_stack_is_known_by_its_allocation_not_its_ip(account: Account) -> None:
    make_stack(account, "eksctl-gpu-cluster-cluster", "gpu-cluster")
    [held] = account.call("ec2", "describe_addresses")["Addresses"]
    assert ["address", held["AllocationId"]] in record(account, "gpu-cluster")["stacks"]
    assert held["PublicIp"] not in json.dumps(record(account, "gpu-cluster"))


def test_what_a_deleted_stack_left_behind_on_purpose_is_found(account: Account, answers: Answers) -> None:
    town = Town(account)
    retained, deleted, stack_id = town.group("retained"), town.group("deleted"), "arn:aws:cloudformation:x:1:stack/s/1"
    answers["cloudformation", "list_stacks"] = {"StackSummaries": [{
        "StackName": "eksctl-gpu-cluster-cluster", "StackId": stack_id, "StackStatus": "DELETE_COMPLETE", "CreationTime": BORN}]}
    answers["cloudformation", "describe_stacks"] = {"Stacks": [{
        "StackName": "eksctl-gpu-cluster-cluster", "StackId": stack_id, "StackStatus": "DELETE_COMPLETE", "CreationTime": BORN,
        "Tags": named((tags.RUN, "r-1"))}]}
    event = {"StackId": stack_id, "EventId": "1", "StackName": "s", "Timestamp": BORN, "ResourceType": "AWS::EC2::SecurityGroup"}
    answers["cloudformation", "describe_stack_events"] = {"StackEvents": [
        event | {"LogicalResourceId": "A", "PhysicalResourceId": retained, "ResourceStatus": "DELETE_SKIPPED"},
        event | {"LogicalResourceId": "B", "PhysicalResourceId": deleted, "ResourceStatus": "DELETE_COMPLETE"},
        event | {"LogicalResourceId": "B", "PhysicalResourceId": deleted, "ResourceStatus": "DELETE_SKIPPED"}]}
    found = find(account, Mark("gpu-cluster", REGION, "r-1"))
    assert [one.id for one in found.leftovers] == [retained]


def test_a_kind_that_cannot_be_read_is_unknown_and_nothing_is_clean(account: Account, answers: Answers) -> None:
    mark = Mark("gpu-cluster", REGION, "r-1")
    assert find(account, mark).clean
    answers["ec2", "describe_volumes"] = Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.")
    found = find(account, mark)
    [unknown] = [check for check in found.checks if check.state != "pass"]
    assert (unknown.name, unknown.state) == ("left behind: volume", "unknown")
    assert "ec2:DescribeVolumes" in unknown.fix
    assert found.leftovers == ()
    assert not found.clean


def test_what_is_ours_but_in_foreign_use_stays_and_is_not_clean(account: Account) -> None:
    town = Town(account)
    image = account.call("ec2", "describe_images")["Images"][0]["ImageId"]
    [foreign] = town.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=town.subnets[0])["Instances"]
    volume = town.volume((tags.RUN, "r-1"))
    town.ec2.attach_volume(VolumeId=volume, InstanceId=foreign["InstanceId"], Device="/dev/sdf")
    found = find(account, Mark("gpu-cluster", REGION, "r-1"))
    assert found.leftovers == ()
    [check] = [check for check in found.checks if check.state != "pass"]
    assert (check.state, check.evidence) == ("warn", f"{volume}: in use by {foreign['InstanceId']}, not ours")
    assert not found.clean


def test_every_kind_has_a_check_and_each_can_be_refused(account: Account, answers: Answers) -> None:
    for _, (service, operation) in READS.items():
        answers[service, operation] = Refusal("AccessDenied", "no")
    checks = find(account, Mark("gpu-cluster", REGION)).checks
    states = {check.name.removeprefix("left behind: "): check.state for check in checks}
    assert set(states) == set(READS) | {"rules between security groups"}
    assert {kind for kind, state in states.items() if state != "unknown"} == {"rules between security groups"}


READS = {"volume": ("ec2", "describe_volumes"), "network interface": ("ec2", "describe_network_interfaces"),
         "load balancer": ("elbv2", "describe_load_balancers"), "classic load balancer": ("elb", "describe_load_balancers"),
         "target group": ("elbv2", "describe_target_groups"), "security group": ("ec2", "describe_security_groups"),
         "address": ("ec2", "describe_addresses"), "NAT gateway": ("ec2", "describe_nat_gateways"),
         "instance": ("ec2", "describe_instances"), "launch template": ("ec2", "describe_launch_templates"),
         "auto scaling group": ("autoscaling", "describe_auto_scaling_groups"), "key pair": ("ec2", "describe_key_pairs"),
         "log group": ("logs", "describe_log_groups"), "OIDC provider": ("iam", "list_open_id_connect_providers"),
         "cluster": ("eks", "describe_cluster"), "node group": ("eks", "list_nodegroups"),
         "stack": ("cloudformation", "list_stacks")}


def test_when_the_cluster_cannot_be_asked_for_name_tags_prove_nothing(account: Account, answers: Answers) -> None:
    town = Town(account)
    town.volume(("kubernetes.io/cluster/gpu-cluster", "owned"))
    answers["eks", "describe_cluster"] = Refusal("AccessDeniedException", "no")
    found = find(account, Mark("gpu-cluster", REGION))
    assert found.leftovers == ()
    assert "could not be read" in found.spared[0][1]


def test_a_later_cluster_of_the_same_name_is_noticed_and_keeps_its_things(account: Account) -> None:
    town = Town(account)
    town.cluster()
    kept = record(account, "gpu-cluster")
    kept["created"] = (dt.datetime.fromisoformat(kept["created"]) - HOUR).isoformat()
    group = town.group("k8s-elb", ("kubernetes.io/cluster/gpu-cluster", "owned"))
    found = find(account, ownership.mark(kept))
    assert found.leftovers == ()
    assert {one.id for one, _ in found.spared} == {group, "gpu-cluster"}


def test_the_cluster_and_its_node_groups_are_leftovers_too(account: Account, answers: Answers) -> None:
    town = Town(account)
    town.cluster()
    account.client("eks").create_nodegroup(clusterName="gpu-cluster", nodegroupName="cpu", subnets=town.subnets,
                                           nodeRole="arn:aws:iam::123456789012:role/x")
    found = find(account, ownership.mark(record(account, "gpu-cluster")))
    assert {(one.kind, one.id) for one in found.leftovers} >= {("cluster", "gpu-cluster"), ("node group", "gpu-cluster/cpu")}
    for command in sweep.commands(found.leftovers):
        assert run(command.argv, answers) == 0, command.short
    assert account.call("eks", "list_clusters")["clusters"] == []


def test_the_recorded_issuer_finds_its_provider_and_no_other(account: Account, answers: Answers) -> None:
    Town(account).cluster()
    kept = record(account, "gpu-cluster")
    [issuer] = [id for kind, id in kept["recorded"] if kind == "OIDC provider"]
    at_the_next_second()
    iam = account.client("iam")
    ours = iam.create_open_id_connect_provider(Url=f"https://{issuer}")["OpenIDConnectProviderArn"]
    iam.create_open_id_connect_provider(Url=f"https://oidc.eks.{REGION}.amazonaws.com/id/OTHER")
    account.client("eks").delete_cluster(name="gpu-cluster")
    if not issuer.startswith(f"oidc.eks.{REGION}."):
        pytest.fail(f"moto's issuer is of another form now: {issuer}")
    found = find(account, ownership.mark(kept))
    assert [one.id for one in found.leftovers] == [ours]
    assert run(sweep.commands(found.leftovers)[0].argv, answers) == 0
    assert len(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]) == 1


def test_key_pairs_are_recorded_only_where_eksctl_imported_them_and_the_cluster_uses_them(account: Account) -> None:
    ec2 = account.client("ec2")
    used, unused, own = "eksctl-gpu-cluster-nodegroup-a-00:11", "eksctl-gpu-cluster-nodegroup-b-00:11", "anns-own"
    keys = {name: ec2.create_key_pair(KeyName=name)["KeyPairId"] for name in (used, unused, own)}
    templates = [ec2.create_launch_template(LaunchTemplateName=f"lt-{name[:5]}", LaunchTemplateData={"KeyName": name})
                 ["LaunchTemplate"]["LaunchTemplateId"] for name in (used, own)]
    told = {"stacks": [["launch template", id] for id in templates], "recorded": []}
    leftovers._record_key_pairs(account, "gpu-cluster", told)
    assert told["recorded"] == [["key pair", keys[used]]]


def test_what_record_cannot_read_is_said(account: Account, answers: Answers) -> None:
    answers["eks", "describe_cluster"] = Refusal("AccessDeniedException", "no")
    assert record(account, "gpu-cluster", volumes=["vol-1"])["unread"] == ["eks:DescribeCluster: no"]


def test_another_region_is_refused(account: Account) -> None:
    with pytest.raises(RunbookError, match="us-east-1"):
        find(account, Mark("gpu-cluster", "us-east-1"))


def test_an_instance_on_its_way_out_still_uses_its_volume_and_is_no_leftover() -> None:
    going = replace(thing("instance", "i-1", **OWNED), going=True)
    kept, spared = judge([going, thing(users=("i-1",), **OWNED)], OURS)
    assert [one.id for one in kept] == ["i-1", "vol-1"]
    assert spared == []


def test_of_a_stack_that_lives_what_holds_others_gets_a_command_and_the_rest_goes_with_it(
        account: Account, answers: Answers) -> None:
    town = Town(account)
    group, stack_id = town.group("in-the-stack"), "arn:aws:cloudformation:x:1:stack/s/1"
    image = account.call("ec2", "describe_images")["Images"][0]["ImageId"]
    [instance] = town.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=town.subnets[0])["Instances"]
    one = {"StackName": "eksctl-gpu-cluster-nodegroup-a", "StackId": stack_id, "StackStatus": "DELETE_FAILED",
           "CreationTime": BORN}
    answers["cloudformation", "list_stacks"] = {"StackSummaries": [one]}
    answers["cloudformation", "describe_stacks"] = {"Stacks": [one | {"Tags": named((tags.RUN, "r-1"))}]}
    answers["cloudformation", "list_stack_resources"] = {"StackResourceSummaries": [
        {"ResourceType": f"AWS::EC2::{kind}", "PhysicalResourceId": id, "LogicalResourceId": kind, "ResourceStatus": status,
         "LastUpdatedTimestamp": BORN}
        for kind, id, status in (("SecurityGroup", group, "DELETE_FAILED"), ("Volume", town.volume(), "DELETE_COMPLETE"),
                                 ("Instance", instance["InstanceId"], "CREATE_COMPLETE"))]}
    found = find(account, Mark("gpu-cluster", REGION, "r-1"))
    assert {one.kind: one.with_stack for one in found.leftovers} == {"security group": True, "instance": False, "stack": False}
    assert [command.shown[2] for command in sweep.commands(found.leftovers)] == ["terminate-instances", "delete-stack"]


def test_an_instance_that_is_shutting_down_is_read_and_not_listed(account: Account, answers: Answers) -> None:
    volume = Town(account).volume((tags.RUN, "r-1"))
    answers["ec2", "describe_instances"] = {"Reservations": [{"Instances": [
        {"InstanceId": f"i-{state}", "InstanceType": "g4dn.xlarge", "LaunchTime": BORN, "State": {"Name": state},
         "Tags": named((tags.RUN, "r-1"))} for state in ("running", "shutting-down", "terminated")]}]}
    assert {one.id for one in find(account, Mark("gpu-cluster", REGION, "r-1")).leftovers} == {"i-running", volume}
    assert [one.id for one in inventory.instances(account, "gpu-cluster") if one.going] == ["i-shutting-down"]


def test_volumes_and_nat_gateways_that_are_gone_are_not_read(account: Account, answers: Answers) -> None:
    answers["ec2", "describe_volumes"] = {"Volumes": [
        {"VolumeId": state, "State": state, "AvailabilityZone": f"{REGION}a", "Size": 1, "VolumeType": "gp3", "CreateTime": BORN}
        for state in ("available", "in-use", "error", "deleting", "deleted")]}
    assert [one.id for one in inventory.volumes(account, "gpu-cluster")] == ["available", "in-use", "error"]
    answers["ec2", "describe_nat_gateways"] = {"NatGateways": [
        {"NatGatewayId": state, "State": state, "CreateTime": BORN,
         "NatGatewayAddresses": [{"NetworkInterfaceId": f"eni-{state}"}]}
        for state in ("pending", "available", "deleting", "deleted")]}
    gateways = inventory.nat_gateways(account, "gpu-cluster")
    assert [(one.id, one.also, one.going) for one in gateways] == [
        ("pending", ("eni-pending",), False), ("available", ("eni-available",), False), ("deleting", ("eni-deleting",), True)]


def test_what_aws_leaves_out_is_no_reason_to_stop(account: Account, answers: Answers) -> None:
    """A volume that a service of AWS holds has no instance, and an address of a carrier's no public IP."""
    base = {"State": "in-use", "AvailabilityZone": f"{REGION}a", "Size": 1, "VolumeType": "gp3", "CreateTime": BORN}
    answers["ec2", "describe_volumes"] = {"Volumes": [
        base | {"VolumeId": "vol-1", "Attachments": [{"State": "attached", "AssociatedResource": "arn:aws:ecs:x"}]},
        base | {"VolumeId": "vol-2", "Attachments": [{"State": "attached"}]}]}
    assert [one.users for one in inventory.volumes(account, "gpu-cluster")] == [("arn:aws:ecs:x",), ("a service of AWS",)]
    answers["ec2", "describe_addresses"] = {"Addresses": [{"AllocationId": "eipalloc-1", "CarrierIp": "192.0.2.1"}]}
    assert [(one.id, one.size) for one in inventory.addresses(account, "gpu-cluster")] == [("eipalloc-1", "")]
    answers["cloudformation", "list_stack_resources"] = {"StackResourceSummaries": [
        {"ResourceType": "AWS::EC2::EIP", "PhysicalResourceId": "192.0.2.9", "LogicalResourceId": "Ip",
         "ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": BORN}]}
    assert stack_members.members(account, stack("eksctl-gpu-cluster-cluster")) == []


def test_an_answer_that_cannot_be_read_is_unknown_and_ends_nothing(account: Account, answers: Answers) -> None:
    volume = Town(account).volume((tags.RUN, "r-1"))
    answers["ec2", "describe_key_pairs"] = {"KeyPairs": [{"unexpected": 1}]}
    answers["ec2", "describe_addresses"] = {"Addresses": [1]}
    answers["cloudformation", "list_stacks"] = {"StackSummaries": [{"unexpected": 1}]}
    found = find(account, Mark("gpu-cluster", REGION, "r-1"))
    assert [one.id for one in found.leftovers] == [volume]
    unknown = {check.name.removeprefix("left behind: "): check.evidence for check in found.checks if check.state == "unknown"}
    assert unknown["key pair"] == "key_pairs: AWS's answer could not be read: KeyError: 'KeyPairId'"
    assert "addresses: " in unknown["address"]
    assert "KeyError: 'StackName'" in unknown["stack"]
    assert len(unknown) == 3


def test_what_record_cannot_make_sense_of_is_said(account: Account, answers: Answers) -> None:
    answers["eks", "describe_cluster"] = {"cluster": {"name": "gpu-cluster"}}
    answers["cloudformation", "list_stacks"] = Refusal("AccessDenied", "no")
    kept = record(account, "gpu-cluster", volumes=["vol-1"])
    assert kept["recorded"] == [["volume", "vol-1"]]
    assert kept["unread"] == ["record_cluster: AWS's answer could not be read: KeyError: 'arn'", "cloudformation:ListStacks: no"]


def test_a_group_that_a_foreign_interface_uses_stays_and_is_told_of(account: Account) -> None:
    town = Town(account)
    group, free = town.group("used", (tags.RUN, "r-1")), town.group("free", (tags.RUN, "r-1"))
    foreign, ours = (town.ec2.create_network_interface(SubnetId=town.subnets[0], Groups=[id], TagSpecifications=spec(
        "network-interface", tag))["NetworkInterface"]["NetworkInterfaceId"]
        for id, tag in ((group, ("Name", "somebody's")), (free, (tags.RUN, "r-1"))))
    found = find(account, Mark("gpu-cluster", REGION, "r-1"))
    assert {one.id for one in found.leftovers} == {free, ours}
    told = f"{group}: in use by {foreign}, not ours"
    assert {check.evidence for check in found.checks if check.name == "left behind: security group"} == {
        f"{free}, {REGION}, price unknown; {told}"}
    assert not [c for c in sweep.commands(found.leftovers) if group in c.shown]
    town.ec2.delete_network_interface(NetworkInterfaceId=ours)
    town.ec2.delete_security_group(GroupId=free)
    checks = {check.name: (check.state, check.evidence) for check in find(account, Mark("gpu-cluster", REGION, "r-1")).checks}
    assert checks["left behind: security group"] == ("warn", told)


def test_a_group_of_our_instance_is_used_by_the_instance_and_not_by_aws(account: Account, answers: Answers) -> None:
    base = {"AvailabilityZone": f"{REGION}a", "Status": "in-use", "Groups": [{"GroupId": "sg-1"}]}
    answers["ec2", "describe_security_groups"] = {"SecurityGroups": [{"GroupId": "sg-1", "GroupName": "nodes"}]}
    answers["ec2", "describe_network_interfaces"] = {"NetworkInterfaces": [
        base | {"NetworkInterfaceId": "eni-elb", "InterfaceType": "interface", "RequesterManaged": True},
        base | {"NetworkInterfaceId": "eni-0", "Attachment": {"AttachmentId": "a-0", "DeviceIndex": 0, "InstanceId": "i-1"}}]}
    assert [one.users for one in inventory.security_groups(account, "gpu-cluster")] == [("i-1",)]


def summary(name: str, status: str = "DELETE_COMPLETE", ended: dt.datetime | None = None) -> dict[str, object]:
    return {"StackName": name, "StackId": f"arn:{name}", "StackStatus": status, "CreationTime": BORN - 9 * HOUR,
            **({"DeletionTime": ended} if ended else {})}


def test_of_deleted_stacks_only_those_that_may_be_the_clusters_are_asked_about(account: Account, answers: Answers) -> None:
    answers["cloudformation", "list_stacks"] = {"StackSummaries": [
        summary("eksctl-gpu-cluster-cluster", ended=BORN - HOUR), summary("eksctl-gpu-cluster-nodegroup-a", ended=BORN + HOUR),
        summary("eksctl-gpu-cluster-2-cluster", ended=BORN + HOUR), summary("eksctl-gpu-cluster-nodegroup-b", "DELETE_FAILED"),
        summary("eksctl-gpu-cluster-cluster-2-nodegroup-a", ended=BORN + HOUR)]}
    answers["cloudformation", "describe_stacks"] = lambda asked: {"Stacks": [
        summary(asked["StackName"].removeprefix("arn:"))]}

    def asked(**which: object) -> list[str]:
        answers.calls.clear()
        stack_members.stacks(account, "gpu-cluster", **which)  # type: ignore[arg-type]
        return [params["StackName"].removeprefix("arn:eksctl-gpu-cluster-") for _, name, params in answers.calls
                if name == "describe_stacks"]

    assert asked(deleted=False) == ["nodegroup-b"]
    assert asked(since=BORN) == ["nodegroup-a", "nodegroup-b"]
    assert asked() == ["cluster", "nodegroup-a", "nodegroup-b"]


@pytest.mark.parametrize(("version", "rate"), [("1.36", "standard"), ("1.31", "extended"), ("1.20", "unknown")])
def test_the_cluster_says_at_which_rate_it_is_billed(account: Account, answers: Answers, version: str, rate: str) -> None:
    answers["eks", "describe_cluster"] = {"cluster": {"arn": "arn:x", "createdAt": BORN, "version": version}}
    assert [one.detail for one in inventory.clusters(account, "gpu-cluster")] == [{"type": rate}]


def test_a_rate_that_cannot_be_asked_for_is_unknown_and_the_cluster_is_there(account: Account, answers: Answers) -> None:
    answers["eks", "describe_cluster"] = {"cluster": {"arn": "arn:x", "createdAt": BORN, "version": "1.36"}}
    for answer in (Refusal("AccessDeniedException", "no"), {"clusterVersions": [{"unexpected": 1}]}):
        answers["eks", "describe_cluster_versions"] = answer
        assert [one.detail for one in inventory.clusters(account, "gpu-cluster")] == [{"type": "unknown"}]


def test_a_log_group_carries_its_bytes(account: Account, answers: Answers) -> None:
    answers["logs", "describe_log_groups"] = {"logGroups": [{
        "logGroupName": "/aws/eks/gpu-cluster/cluster", "arn": "arn:aws:logs:x:1:log-group:g:*", "storedBytes": 5368709120,
        "creationTime": 1}]}
    answers["logs", "list_tags_for_resource"] = {"tags": {}}
    assert [one.detail for one in inventory.log_groups(account, "gpu-cluster")] == [{"bytes": "5368709120"}]


def test_interfaces_of_aws_itself_are_not_listed(account: Account, answers: Answers) -> None:
    base = {"AvailabilityZone": f"{REGION}a", "Status": "in-use", "TagSet": named(("a", "b"))}
    answers["ec2", "describe_network_interfaces"] = {"NetworkInterfaces": [
        base | {"NetworkInterfaceId": "eni-nat", "InterfaceType": "nat_gateway", "RequesterManaged": False},
        base | {"NetworkInterfaceId": "eni-eks", "InterfaceType": "interface", "RequesterManaged": True},
        base | {"NetworkInterfaceId": "eni-cni", "InterfaceType": "interface", "RequesterManaged": False, "Attachment": {
            "AttachmentId": "eni-attach-1", "DeviceIndex": 1, "InstanceId": "i-1"},
            "TagSet": named(("node.k8s.amazonaws.com/createdAt", "2026-11-22T12:00:00Z"))},
        base | {"NetworkInterfaceId": "eni-first", "RequesterManaged": False, "Attachment": {
            "AttachmentId": "eni-attach-0", "DeviceIndex": 0, "InstanceId": "i-1"}}]}
    cni, first = inventory.network_interfaces(account, "gpu-cluster")
    assert (cni.id, cni.created, cni.users, cni.detail) == ("eni-cni", BORN, ("i-1",), {"attachment": "eni-attach-1"})
    assert (first.id, first.created, first.detail) == ("eni-first", None, {})


def test_the_table_names_id_size_zone_and_price() -> None:
    one = leftovers.Leftover("volume", "vol-1", REGION, f"{REGION}a", "100 GiB gp3", why="because", per_hour=Decimal("0.011"))
    balancer = leftovers.Leftover("load balancer", "arn:x:loadbalancer/app/web/1", REGION, detail={"name": "web"})
    rows = leftovers.Found((one, balancer), (), ()).table.rows
    assert rows == [["volume", "vol-1", "100 GiB gp3", f"{REGION}a", "0.0110", "because"],
                    ["load balancer", "web", "", REGION, "unknown", ""]]
