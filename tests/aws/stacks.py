"""The account's side of eksctl: what CloudFormation does once it was asked, whether or not eksctl still lives.

A stack's real resources are made in moto at once; its story (statuses and events over time) is told from the clock, so
that people who poll see CREATE_IN_PROGRESS, then COMPLETE or a failure. What CloudFormation's templates would hold beyond
what moto can make (the control plane, node groups, instances) is made through moto's other calls.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.aws.lacking import REGION, image

STACK = "AWS::CloudFormation::Stack"
EKSCTL = "0.230.0"


@dataclass(frozen=True)
class Event:
    """Something that happens to a stack, `after` seconds from its beginning."""

    after: float
    logical: str
    type: str
    status: str
    reason: str = ""


@dataclass
class Story:
    """What happens to one stack. `began` is epoch seconds."""

    name: str
    events: Sequence[Event]
    began: float = field(default_factory=time.time)

    def so_far(self) -> list[Event]:
        return [event for event in self.events if self.began + event.after <= time.time()]

    @property
    def status(self) -> str:
        return next(e.status for e in reversed(self.so_far()) if e.type == STACK)

    @property
    def reason(self) -> str:
        return next(e.reason for e in reversed(self.so_far()) if e.type == STACK)


def created(name: str, seconds: float, parts: Sequence[tuple[str, str]]) -> Story:
    """A creation that succeeds after `seconds`; `parts` are (logical id, type)."""
    return Story(name, [Event(0, name, STACK, "CREATE_IN_PROGRESS", "User Initiated"),
                        *[Event(0, *part, "CREATE_IN_PROGRESS") for part in parts],
                        *[Event(seconds, *part, "CREATE_COMPLETE") for part in parts],
                        Event(seconds, name, STACK, "CREATE_COMPLETE")])


def failed(name: str, seconds: float, part: tuple[str, str], reason: str, status: str) -> Story:
    """A creation whose one `part` fails after `seconds` with AWS's reason; the stack ends as `status`."""
    events = [Event(0, name, STACK, "CREATE_IN_PROGRESS", "User Initiated"), Event(0, *part, "CREATE_IN_PROGRESS"),
              Event(seconds, *part, "CREATE_FAILED", reason)]
    why = f"The following resource(s) failed to create: [{part[0]}]. "
    if status == "CREATE_FAILED":
        events.append(Event(seconds, name, STACK, status, why))
    else:
        events.append(Event(seconds, name, STACK, "ROLLBACK_IN_PROGRESS", why + "Rollback requested by user."))
        if status != "ROLLBACK_IN_PROGRESS":
            events += [Event(seconds + 0.1, *part, "DELETE_FAILED" if status == "ROLLBACK_FAILED" else "DELETE_COMPLETE"),
                       Event(seconds + 0.1, name, STACK, status)]
    return Story(name, events)


def _told(name: str, seconds: float, parts: Sequence[tuple[str, str]], failing: dict[str, Any] | None) -> Story:
    if failing:
        return failed(name, seconds, parts[-1], failing["reason"], failing.get("status", "ROLLBACK_COMPLETE"))
    return created(name, seconds, parts)


def deleted(name: str) -> Story:
    """A deletion that has begun. When it ends the stack is gone, and so is its story."""
    return Story(name, [Event(0, name, STACK, "DELETE_IN_PROGRESS", "User Initiated")])


class Stacks:
    """The stories of this account's stacks, and the work behind them. Only the server uses it, from several threads."""

    def __init__(self, session: Any, endpoint: str) -> None:
        self._session, self._endpoint = session, endpoint
        self.stories: dict[str, Story] = {}
        self.clusters: dict[str, dict[str, Any]] = {}
        self.ids: dict[str, str] = {}
        self.addons: dict[str, list[str]] = {}
        self.starved: dict[str, str] = {}
        self._clients: dict[tuple[str, str], Any] = {}
        self._turn, self._making = threading.RLock(), threading.Lock()

    def client(self, service: str, region: str = REGION) -> Any:
        """A client that goes straight to moto, made once: making one takes 0.1 s, and boto3's Session is not for threads."""
        with self._making:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._session.client(
                    service, region_name=region, endpoint_url=self._endpoint)
            return self._clients[service, region]

    def forget(self) -> None:
        self.stories.clear()
        self.clusters.clear()
        self.ids.clear()
        self.addons.clear()
        self.starved.clear()

    def exists(self, name: str) -> bool:
        found = self.client("cloudformation").list_stacks()["StackSummaries"]
        return any(s["StackName"] == name and s["StackStatus"] != "DELETE_COMPLETE" for s in found)

    def make_cluster(self, asked: dict[str, Any]) -> None:
        """VPC, roles, the control plane. `asked`: config (a ClusterConfig), seconds, endpoint, ca, log_group.

        With `failing` {reason, status} the stack fails and there is no control plane.
        """
        metadata = asked["config"]["metadata"]
        name, tags = metadata["name"], tags_of(asked["config"])
        stack = f"eksctl-{name}-cluster"
        parts = [("VPC", "AWS::EC2::VPC"), ("ServiceRole", "AWS::IAM::Role"), ("ControlPlane", "AWS::EKS::Cluster")]
        failing, seconds = asked.get("failing"), asked.get("seconds", 0.0)
        with self._turn:
            self.stories[stack] = _told(stack, seconds, parts, failing)
            if failing:
                self._stack(stack, {"Resources": {"ServiceRole": _role("eks")}}, tags)
                return
            outputs = self._stack(stack, _cluster_template(stack), tags)
            group = self.client("ec2").create_security_group(
                GroupName=f"eks-cluster-sg-{name}-{uuid.uuid4().int % 10**10}", VpcId=outputs["VPC"],
                Description="EKS created security group", TagSpecifications=_specified(["security-group"], {
                    f"kubernetes.io/cluster/{name}": "owned", "aws:eks:cluster-name": name}))["GroupId"]
            self.client("eks").create_cluster(
                name=name, version=str(metadata["version"]), roleArn=outputs["ServiceRoleARN"],
                resourcesVpcConfig={"subnetIds": outputs["SubnetsPublic"].split(","),
                                    "securityGroupIds": [outputs["SecurityGroup"]]},
                tags=tags | {"Name": f"{stack}/ControlPlane", "aws:cloudformation:stack-name": stack})
            self.client("ec2").create_tags(Resources=[outputs["Address"]], Tags=[  # moto's CloudFormation does not
                {"Key": k, "Value": v} for k, v in {**tags, "Name": f"{stack}/NATIP"}.items()])
            known = {"vpcId": outputs["VPC"], "clusterSecurityGroupId": group}
            self.clusters[name] = {"vpc": known, "address": outputs["Address"], "endpoint": asked.get("endpoint"),
                                   "ca": asked.get("ca"), "subnets": outputs["SubnetsPublic"].split(",")}
            if asked.get("log_group"):
                self.client("logs").create_log_group(logGroupName=f"/aws/eks/{name}/cluster")

    def make_group(self, asked: dict[str, Any]) -> None:
        """A node group. `asked`: config, group (its entry), managed, seconds, and failing {reason, status} if its stack fails.

        `starved`: AWS's reason why a self-managed group gets no instance though its stack is complete.
        """
        config, group, managed = asked["config"], asked["group"], asked["managed"]
        name, seconds = config["metadata"]["name"], asked.get("seconds", 0.0)
        stack = f"eksctl-{name}-nodegroup-{group['name']}"
        tags = tags_of(config) | {"alpha.eksctl.io/nodegroup-name": group["name"],
                                  "alpha.eksctl.io/nodegroup-type": "managed" if managed else "unmanaged"}
        part = ("ManagedNodeGroup", "AWS::EKS::Nodegroup") if managed else ("NodeGroup", "AWS::AutoScaling::AutoScalingGroup")
        failing = asked.get("failing")
        with self._turn:
            self.stories[stack] = _told(stack, seconds, [("NodeInstanceRole", "AWS::IAM::Role"), part], failing)
            template = _group_template(stack, self.clusters[name]["vpc"]["vpcId"])
            if not managed and not failing:
                template["Resources"] |= _auto_scaling(stack, self._launch(config, group, managed, tags), group, asked.get("starved"),
                                                       self.clusters[name]["subnets"])
            outputs = self._stack(stack, template, tags)
            if failing or not managed:
                if reason := asked.get("starved"):
                    self.starved[stack] = reason
                return
            self.client("eks").create_nodegroup(
                clusterName=name, nodegroupName=group["name"], nodeRole=outputs["InstanceRoleARN"],
                subnets=self.clusters[name]["subnets"], instanceTypes=[group["instanceType"]],
                scalingConfig={"minSize": group.get("minSize", 0), "maxSize": group.get("maxSize", 2),
                               "desiredSize": group["desiredCapacity"]}, tags=tags)
            self.client("ec2").run_instances(
                MinCount=group["desiredCapacity"], MaxCount=group["desiredCapacity"], SubnetId=self.clusters[name]["subnets"][0],
                **self._launch(config, group, managed, tags))

    def _launch(self, config: dict[str, Any], group: dict[str, Any], managed: bool, tags: dict[str, str]) -> dict[str, Any]:
        """How an instance of the group is started, for RunInstances and for a launch template."""
        name, version = config["metadata"]["name"], str(config["metadata"]["version"])
        return {"ImageId": group.get("ami") or image(group.get("amiFamily", "AmazonLinux2023"), version),
                "InstanceType": group["instanceType"],
                "SecurityGroupIds": [self.clusters[name]["vpc"]["clusterSecurityGroupId"]],
                "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {
                    "VolumeSize": group.get("volumeSize", 80), "VolumeType": "gp3", "DeleteOnTermination": True}}],
                "TagSpecifications": _specified(["instance", "volume"], tags | {
                    f"kubernetes.io/cluster/{name}": "owned", "Name": f"{name}-{group['name']}-Node",
                    "aws:cloudformation:stack-name": f"eksctl-{name}-nodegroup-{group['name']}"})}

    def delete_group(self, cluster: str, group: str) -> None:
        """What is left of a node group goes: instances, the managed group, the stack and its story."""
        stack = f"eksctl-{cluster}-nodegroup-{group}"
        with self._turn:
            ec2, eks = self.client("ec2"), self.client("eks")
            found = ec2.describe_instances(Filters=[{"Name": "tag:alpha.eksctl.io/nodegroup-name", "Values": [group]},
                                                    {"Name": "tag:alpha.eksctl.io/cluster-name", "Values": [cluster]}])
            if ids := [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]]:
                ec2.terminate_instances(InstanceIds=ids)
            clusters = eks.list_clusters()["clusters"]
            if cluster in clusters and group in eks.list_nodegroups(clusterName=cluster)["nodegroups"]:
                eks.delete_nodegroup(clusterName=cluster, nodegroupName=group)
            self.client("cloudformation").delete_stack(StackName=stack)
            self.stories.pop(stack, None)

    def delete_cluster(self, cluster: str) -> None:
        """The control plane, its security group, the VPC and the stack. A log group stays, as it does on AWS."""
        stack = f"eksctl-{cluster}-cluster"
        with self._turn:
            if cluster in self.client("eks").list_clusters()["clusters"]:
                self.client("eks").delete_cluster(name=cluster)
            self.addons.pop(cluster, None)
            known = self.clusters.pop(cluster, None)
            if known:
                self.client("ec2").delete_security_group(GroupId=known["vpc"]["clusterSecurityGroupId"])
                self._networking(known)
            self.client("cloudformation").delete_stack(StackName=stack)
            self.stories.pop(stack, None)

    def _networking(self, known: dict[str, Any]) -> None:
        """What moto's DeleteStack would leave of a VPC goes."""
        ec2, of_vpc = self.client("ec2"), [{"Name": "vpc-id", "Values": [known["vpc"]["vpcId"]]}]
        for gateway in ec2.describe_nat_gateways(Filters=of_vpc)["NatGateways"]:
            ec2.delete_nat_gateway(NatGatewayId=gateway["NatGatewayId"])
        (address,) = ec2.describe_addresses(AllocationIds=[known["address"]])["Addresses"]
        if "AssociationId" in address:
            ec2.disassociate_address(AssociationId=address["AssociationId"])
        ec2.release_address(AllocationId=known["address"])
        attached = [{"Name": "attachment.vpc-id", "Values": [known["vpc"]["vpcId"]]}]
        for one in ec2.describe_internet_gateways(Filters=attached)["InternetGateways"]:
            ec2.detach_internet_gateway(InternetGatewayId=one["InternetGatewayId"], VpcId=known["vpc"]["vpcId"])
            ec2.delete_internet_gateway(InternetGatewayId=one["InternetGatewayId"])

    def _stack(self, name: str, template: dict[str, Any], tags: dict[str, str]) -> dict[str, str]:
        cloudformation = self.client("cloudformation")
        self.ids[name] = cloudformation.create_stack(
            StackName=name, TemplateBody=json.dumps(template), Capabilities=["CAPABILITY_IAM"],
            Tags=[{"Key": k, "Value": v} for k, v in tags.items()])["StackId"]
        (made,) = cloudformation.describe_stacks(StackName=name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in made.get("Outputs", ())}


def tags_of(config: dict[str, Any]) -> dict[str, str]:
    """What eksctl puts on every stack of a cluster: its own tags and the file's."""
    name = config["metadata"]["name"]
    return {"alpha.eksctl.io/cluster-name": name, "eksctl.cluster.k8s.io/v1alpha1/cluster-name": name,
            "alpha.eksctl.io/cluster-oidc-enabled": "false", "alpha.eksctl.io/eksctl-version": EKSCTL,
            **{k: str(v) for k, v in (config["metadata"].get("tags") or {}).items()}}


def _specified(types: Sequence[str], tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": one, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]} for one in types]


def _role(service: str) -> dict[str, Any]:
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": f"{service}.amazonaws.com"}}]}}}


def _outputs(stack: str, **values: Any) -> dict[str, Any]:
    return {key: {"Value": value, "Export": {"Name": f"{stack}::{key}"}} for key, value in values.items()}


def _cluster_template(stack: str) -> dict[str, Any]:
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
        "ServiceRole": _role("eks"),
    }, "Outputs": _outputs(
        stack, VPC={"Ref": "VPC"}, SubnetsPublic={"Fn::Join": [",", [{"Ref": f"SubnetPublic{z}"} for z in zones]]},
        SecurityGroup={"Ref": "ControlPlaneSecurityGroup"}, SharedNodeSecurityGroup={"Ref": "ClusterSharedNodeSecurityGroup"},
        ServiceRoleARN={"Fn::GetAtt": ["ServiceRole", "Arn"]}, ClusterStackName=stack, FeatureNATMode="Single",
        Address={"Fn::GetAtt": ["NATIP", "AllocationId"]})}


def _auto_scaling(stack: str, launch: dict[str, Any], group: dict[str, Any], starved: str | None,
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


def _group_template(stack: str, vpc: str) -> dict[str, Any]:
    return {"Resources": {
        "NodeInstanceRole": _role("ec2"),
        "SG": {"Type": "AWS::EC2::SecurityGroup", "Properties": {"GroupDescription": stack, "VpcId": vpc}},
    }, "Outputs": _outputs(stack, InstanceRoleARN={"Fn::GetAtt": ["NodeInstanceRole", "Arn"]})}
