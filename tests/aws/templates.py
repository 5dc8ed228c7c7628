"""CloudFormation templates of the stacks that eksctl makes, as far as moto can make what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

EKSCTL = "0.230.0"


def tags_of(config: dict[str, Any]) -> dict[str, str]:
    """What eksctl puts on every stack of a cluster: its own tags and the file's."""
    name = config["metadata"]["name"]
    return {"alpha.eksctl.io/cluster-name": name, "eksctl.cluster.k8s.io/v1alpha1/cluster-name": name,
            "alpha.eksctl.io/cluster-oidc-enabled": "false", "alpha.eksctl.io/eksctl-version": EKSCTL,
            **{k: str(v) for k, v in (config["metadata"].get("tags") or {}).items()}}


def specified(types: Sequence[str], tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": one, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]} for one in types]


def role(service: str) -> dict[str, Any]:
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}]}}}


def _outputs(stack: str, **values: Any) -> dict[str, Any]:
    return {key: {"Value": value, "Export": {"Name": f"{stack}::{key}"}} for key, value in values.items()}


def cluster_template(stack: str) -> dict[str, Any]:
    zones = ("a", "b", "c")
    named = {"Tags": [{"Key": "Name", "Value": f"{stack}/VPC"}]}
    return {"Resources": {
        "VPC": {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "192.168.0.0/16", **named}},
        **{f"SubnetPublic{z}": {"Type": "AWS::EC2::Subnet", "Properties": {
            "VpcId": {"Ref": "VPC"}, "CidrBlock": f"192.168.{32 * i}.0/19",
            "AvailabilityZone": {"Fn::Sub": f"${{AWS::Region}}{z}"}}} for i, z in enumerate(zones)},
        "InternetGateway": {"Type": "AWS::EC2::InternetGateway"},
        "VPCGatewayAttachment": {"Type": "AWS::EC2::VPCGatewayAttachment", "Properties": {
            "VpcId": {"Ref": "VPC"}, "InternetGatewayId": {"Ref": "InternetGateway"}}},
        "NATIP": {"Type": "AWS::EC2::EIP", "Properties": {"Domain": "vpc"}},
        "NATGateway": {"Type": "AWS::EC2::NatGateway", "Properties": {
            "SubnetId": {"Ref": "SubnetPublica"}, "AllocationId": {"Fn::GetAtt": ["NATIP", "AllocationId"]}}},
        **{group: {"Type": "AWS::EC2::SecurityGroup", "Properties": {
            "GroupDescription": group, "VpcId": {"Ref": "VPC"}}}
           for group in ("ControlPlaneSecurityGroup", "ClusterSharedNodeSecurityGroup")},
        "ServiceRole": role("eks"),
    }, "Outputs": _outputs(
        stack, VPC={"Ref": "VPC"}, SubnetsPublic={"Fn::Join": [",", [{"Ref": f"SubnetPublic{z}"} for z in zones]]},
        SecurityGroup={"Ref": "ControlPlaneSecurityGroup"}, SharedNodeSecurityGroup={"Ref": "ClusterSharedNodeSecurityGroup"},
        ServiceRoleARN={"Fn::GetAtt": ["ServiceRole", "Arn"]}, ClusterStackName=stack, FeatureNATMode="Single",
        Address={"Fn::GetAtt": ["NATIP", "AllocationId"]})}


def auto_scaling(stack: str, launch: dict[str, Any], group: dict[str, Any], starved: str | None,
                  subnets: list[str]) -> dict[str, Any]:
    """A self-managed group's launch template and auto scaling group; moto starts its instances at once."""
    wanted = 0 if starved else group["desiredCapacity"]
    return {
        "NodeGroupLaunchTemplate": {"Type": "AWS::EC2::LaunchTemplate", "Properties": {
            "LaunchTemplateName": stack, "LaunchTemplateData": launch}},
        "NodeGroup": {"Type": "AWS::AutoScaling::AutoScalingGroup", "Properties": {
            "MinSize": str(min(wanted, group.get("minSize", 0))), "MaxSize": str(group.get("maxSize", 2)),
            "DesiredCapacity": str(wanted), "VPCZoneIdentifier": subnets[:1],
            "LaunchTemplate": {"LaunchTemplateId": {"Ref": "NodeGroupLaunchTemplate"}, "Version": {
                "Fn::GetAtt": ["NodeGroupLaunchTemplate", "LatestVersionNumber"]}},
            "Tags": [{**tag, "PropagateAtLaunch": "true"} for tag in launch["TagSpecifications"][0]["Tags"]]}}}


def group_template(stack: str, vpc: str) -> dict[str, Any]:
    return {"Resources": {
        "NodeInstanceRole": role("ec2"),
        "SG": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": stack, "VpcId": vpc}},
    }, "Outputs": _outputs(stack, InstanceRoleARN={"Fn::GetAtt": ["NodeInstanceRole", "Arn"]})}
