"""The account's side of eksctl: what CloudFormation does once it was asked, whether or not eksctl still lives.

A stack's real resources are made in moto at once. Its story (statuses and events over time) is told from the clock, which
starts when moto has made it: people who poll see CREATE_IN_PROGRESS, then COMPLETE or a failure. What moto's
CloudFormation cannot make (the control plane, managed groups and their instances) is made through moto's other calls.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.aws.lacking import REGION, image
from tests.aws.templates import auto_scaling, cluster_template, group_template, role, specified, tags_of

STACK = "AWS::CloudFormation::Stack"
DEVICE = "/dev/xvda"
"""An instance's disk; not /dev/sda1, where moto puts one of its own."""


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
                self._stack(stack, {"Resources": {"ServiceRole": role("eks")}}, tags)
                self.stories[stack].began = time.time()
                return
            outputs = self._stack(stack, cluster_template(stack), tags)
            group = self.client("ec2").create_security_group(
                GroupName=f"eks-cluster-sg-{name}-{uuid.uuid4().int % 10**10}", VpcId=outputs["VPC"],
                Description="EKS created security group", TagSpecifications=specified(["security-group"], {
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
            self.stories[stack].began = time.time()

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
            template = group_template(stack, self.clusters[name]["vpc"]["vpcId"])
            if not managed and not failing:
                template["Resources"] |= auto_scaling(
                    stack, self._launch(config, group, tags), group, asked.get("starved"), self.clusters[name]["subnets"])
            outputs = self._stack(stack, template, tags)
            self.stories[stack].began = time.time()
            if failing:
                return
            if not managed:
                if reason := asked.get("starved"):
                    self.starved[stack] = reason
                self._disks(self._instances(name, group["name"]), tags)
                return
            self.client("eks").create_nodegroup(
                clusterName=name, nodegroupName=group["name"], nodeRole=outputs["InstanceRoleARN"],
                subnets=self.clusters[name]["subnets"], instanceTypes=[group["instanceType"]],
                scalingConfig={"minSize": group.get("minSize", 0), "maxSize": group.get("maxSize", 2),
                               "desiredSize": group["desiredCapacity"]}, tags=tags)
            self.client("ec2").run_instances(
                MinCount=group["desiredCapacity"], MaxCount=group["desiredCapacity"], SubnetId=self.clusters[name]["subnets"][0],
                **self._launch(config, group, tags))

    def _launch(self, config: dict[str, Any], group: dict[str, Any], tags: dict[str, str]) -> dict[str, Any]:
        """How an instance of the group is started, for RunInstances and for a launch template."""
        name, version = config["metadata"]["name"], str(config["metadata"]["version"])
        return {"ImageId": group.get("ami") or image(group.get("amiFamily", "AmazonLinux2023"), version),
                "InstanceType": group["instanceType"],
                "SecurityGroupIds": [self.clusters[name]["vpc"]["clusterSecurityGroupId"]],
                "BlockDeviceMappings": [{"DeviceName": DEVICE, "Ebs": {
                    "VolumeSize": group.get("volumeSize", 80), "VolumeType": "gp3", "DeleteOnTermination": True}}],
                "TagSpecifications": specified(["instance", "volume"], tags | {
                    f"kubernetes.io/cluster/{name}": "owned", "Name": f"{name}-{group['name']}-Node",
                    "aws:cloudformation:stack-name": f"eksctl-{name}-nodegroup-{group['name']}"})}

    def _instances(self, cluster: str, group: str) -> list[str]:
        found = self.client("ec2").describe_instances(Filters=[
            {"Name": "tag:alpha.eksctl.io/nodegroup-name", "Values": [group]},
            {"Name": "tag:alpha.eksctl.io/cluster-name", "Values": [cluster]}])
        return [i["InstanceId"] for r in found["Reservations"] for i in r["Instances"]]

    def _disks(self, instances: list[str], tags: dict[str, str]) -> None:
        """moto's auto scaling groups forget the tags of disks, and give each instance a disk more than its template says."""
        ec2 = self.client("ec2")
        for instance in instances:
            for disk in ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance]}])["Volumes"]:
                if disk["Attachments"][0]["Device"] == DEVICE:
                    ec2.create_tags(Resources=[disk["VolumeId"]], Tags=[{"Key": k, "Value": v} for k, v in tags.items()])
                else:
                    ec2.detach_volume(VolumeId=disk["VolumeId"], InstanceId=instance)
                    ec2.delete_volume(VolumeId=disk["VolumeId"])

    def delete(self, stack: str) -> None:
        """What goes with a stack (name or id) that somebody deletes without eksctl, besides what moto knows to be in it."""
        name = stack.rpartition(":stack/")[2].partition("/")[0]
        if of_group := re.fullmatch(r"eksctl-(.+)-nodegroup-(.+)", name):
            self.delete_group(of_group[1], of_group[2])
        elif of_cluster := re.fullmatch(r"eksctl-(.+)-cluster", name):
            self.delete_cluster(of_cluster[1])
        self.stories.pop(name, None)

    def delete_group(self, cluster: str, group: str) -> None:
        """What is left of a node group goes: instances, the managed group, the stack and its story."""
        stack = f"eksctl-{cluster}-nodegroup-{group}"
        with self._turn:
            ec2, eks = self.client("ec2"), self.client("eks")
            instances = self._instances(cluster, group)
            clusters = eks.list_clusters()["clusters"]
            if cluster in clusters and group in eks.list_nodegroups(clusterName=cluster)["nodegroups"]:
                eks.delete_nodegroup(clusterName=cluster, nodegroupName=group)
            self.client("cloudformation").delete_stack(StackName=stack)
            if instances:
                ec2.terminate_instances(InstanceIds=instances)
            self.stories.pop(stack, None)
            self.starved.pop(stack, None)

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
