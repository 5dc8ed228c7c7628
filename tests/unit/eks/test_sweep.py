"""Leftovers become commands in an order in which each can succeed. All data is invented."""

from __future__ import annotations

import sys

import pytest

from gpurunbook.targets.eks import aws, inventory, sweep
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.leftovers import Leftover, find
from gpurunbook.targets.eks.ownership import Mark
from tests.aws.answers import Answers
from tests.unit.eks.conftest import REGION
from tests.unit.eks.test_leftovers import Town, run


def left(kind: str, id: str, with_stack: bool = False, **detail: str) -> Leftover:
    return Leftover(kind, id, REGION, detail=detail, why="tag", with_stack=with_stack)


ONE_OF_EACH = [left("log group", "/aws/eks/gpu-cluster/cluster"), left("stack", "arn:1", name="eksctl-gpu-cluster-cluster"),
               left("stack", "arn:2", name="eksctl-gpu-cluster-nodegroup-gpu"), left("key pair", "key-1"),
               left("OIDC provider", "arn:3"), left("launch template", "lt-1"), left("security group", "sg-1"),
               left("volume", "vol-1"), left("address", "eipalloc-1"), left("NAT gateway", "nat-1"),
               left("network interface", "eni-1"), left("cluster", "gpu-cluster"), left("instance", "i-1"),
               left("auto scaling group", "asg-1"), left("node group", "gpu-cluster/gpu"), left("target group", "arn:4"),
               left("classic load balancer", "clb"), left("load balancer", "arn:5")]


def words(leftovers: list[Leftover]) -> list[str]:
    return [command.short.removesuffix(f" --region {REGION}") for command in sweep.commands(leftovers)]


def test_what_uses_goes_before_what_is_used() -> None:
    assert words(ONE_OF_EACH) == [
        "aws elbv2 delete-load-balancer --load-balancer-arn arn:5",
        "aws elb delete-load-balancer --load-balancer-name clb",
        "aws elbv2 delete-target-group --target-group-arn arn:4",
        "aws eks delete-nodegroup --cluster-name gpu-cluster --nodegroup-name gpu",
        "aws autoscaling delete-auto-scaling-group --auto-scaling-group-name asg-1 --force-delete",
        "aws ec2 terminate-instances --instance-ids i-1",
        "aws eks delete-cluster --name gpu-cluster",
        "aws ec2 delete-network-interface --network-interface-id eni-1",
        "aws ec2 delete-nat-gateway --nat-gateway-id nat-1",
        "aws ec2 release-address --allocation-id eipalloc-1",
        "aws ec2 delete-volume --volume-id vol-1",
        "aws ec2 delete-security-group --group-id sg-1",
        "aws ec2 delete-launch-template --launch-template-id lt-1",
        "aws iam delete-open-id-connect-provider --open-id-connect-provider-arn arn:3",
        "aws ec2 delete-key-pair --key-pair-id key-1",
        "aws cloudformation delete-stack --stack-name arn:2",
        "aws cloudformation delete-stack --stack-name arn:1",
        "aws logs delete-log-group --log-group-name /aws/eks/gpu-cluster/cluster",
        "aws logs delete-log-group --log-group-name /aws/eks/gpu-cluster/cluster"]


def test_every_kind_that_can_be_found_can_be_deleted() -> None:
    assert {*inventory.READERS, "cluster", "stack"} == set(sweep.FLAGS) == {one.kind for one in ONE_OF_EACH}


def test_the_line_that_runs_is_the_line_that_is_shown_by_our_program() -> None:
    for command in sweep.commands(ONE_OF_EACH):
        assert command.argv[:3] == (sys.executable, "-m", "gpurunbook.targets.eks.aws")
        assert command.shown[0] == "aws"
        assert command.argv[3:len(command.shown) + 2] == command.shown[1:]
        assert command.shown[-2:] == ("--region", REGION)
        assert not command.guarded
        assert command.limit > aws.ACTIONS[command.shown[1], command.shown[2]].limit  # the program says it first
        assert aws._parser(list(command.argv[3:]), aws.ACTIONS[command.argv[3], command.argv[4]]).parse_args(command.argv[5:])


def test_the_second_deletion_of_a_log_group_waits_for_late_logs() -> None:
    groups = [left("log group", f"/aws/eks/{name}/cluster") for name in "ab"]
    first_a, first_b, again_a, again_b = sweep.commands(groups, settle=7)
    assert again_a.argv[-2:] == ("--after", "7")
    assert again_a.limit - first_a.limit == 7
    assert all("--after" not in command.argv for command in (first_a, first_b, again_b))
    assert "late" in again_b.why


def test_an_attached_interface_is_detached_first() -> None:
    assert words([left("network interface", "eni-1", attachment="eni-attach-1")]) == [
        "aws ec2 detach-network-interface --attachment-id eni-attach-1 --force",
        "aws ec2 delete-network-interface --network-interface-id eni-1"]


def test_all_rules_between_groups_go_before_the_first_group() -> None:
    """Also those of a group that goes with its stack: they would hold the other one."""
    groups = [left("security group", "sg-1", ingress="sgr-1 sgr-2"), left("security group", "sg-2", True, egress="sgr-3")]
    assert words(groups) == [
        "aws ec2 revoke-security-group-ingress --group-id sg-1 --security-group-rule-ids sgr-1",
        "aws ec2 revoke-security-group-ingress --group-id sg-1 --security-group-rule-ids sgr-2",
        "aws ec2 revoke-security-group-egress --group-id sg-2 --security-group-rule-ids sgr-3",
        "aws ec2 delete-security-group --group-id sg-1"]


def test_what_goes_with_its_stack_needs_no_command() -> None:
    assert words([left("address", "eipalloc-1", True), left("log group", "/aws/x", True)]) == []


def test_a_kind_that_nothing_can_delete_is_an_error() -> None:
    with pytest.raises(KeyError, match="subnet"):
        sweep.commands([left("subnet", "subnet-1")])


def test_groups_that_name_each_other_are_freed_on_moto(account: Account, answers: Answers) -> None:
    town = Town(account)
    owned = ("kubernetes.io/cluster/gpu-cluster", "owned")
    one, two, foreign = town.group("one", owned), town.group("two", owned), town.group("foreign")
    for group, other in ((one, two), (two, one), (one, one), (foreign, one)):
        town.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "UserIdGroupPairs": [{"GroupId": other}]}])
    commands = sweep.commands(find(account, Mark("gpu-cluster", REGION)).leftovers)
    assert [command.shown[2] for command in commands] == ["revoke-security-group-ingress"] * 2 + ["delete-security-group"] * 2
    assert {command.shown[4] for command in commands[:2]} == {one, two}
    assert [run(command.argv, answers) for command in commands] == [0] * 4
    assert [run(command.argv, answers) for command in commands] == [0] * 4
    rules = account.pages("ec2", "describe_security_group_rules", "SecurityGroupRules",
                          Filters=[{"Name": "group-id", "Values": [foreign]}])
    assert [rule["ReferencedGroupInfo"]["GroupId"] for rule in rules if not rule["IsEgress"]] == [one]  # not ours to revoke


def test_an_instance_its_interface_and_its_volume_go_in_order_on_moto(account: Account, answers: Answers) -> None:
    town = Town(account)
    owned = ("kubernetes.io/cluster/gpu-cluster", "owned")
    image = account.call("ec2", "describe_images")["Images"][0]["ImageId"]
    [instance] = town.ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, SubnetId=town.subnets[0], TagSpecifications=[
        {"ResourceType": "instance", "Tags": [{"Key": owned[0], "Value": owned[1]}]}])["Instances"]
    interface, volume = town.interface(owned), town.volume(owned)
    town.ec2.attach_network_interface(NetworkInterfaceId=interface, InstanceId=instance["InstanceId"], DeviceIndex=1)
    town.ec2.attach_volume(VolumeId=volume, InstanceId=instance["InstanceId"], Device="/dev/sdf")
    found = find(account, Mark("gpu-cluster", REGION))
    assert {one.id for one in found.leftovers} == {instance["InstanceId"], interface, volume}
    commands = sweep.commands(found.leftovers)
    assert [command.shown[2] for command in commands] == ["terminate-instances", "detach-network-interface",
                                                          "delete-network-interface", "delete-volume"]
    assert [run(command.argv, answers) for command in commands] == [0] * 4
    assert find(account, Mark("gpu-cluster", REGION)).clean
