"""The few `aws` commands that a sweep runs: `python -m gpurunbook.targets.eks.aws ec2 delete-volume --volume-id V ...`.

The aws program may be absent, or of version 1 or 2; this one takes the same flags for exactly the commands in ACTIONS and
refuses everything else. It says what it waits for, and ends with 0 when the thing is gone (also when it was gone before),
1 with AWS's message when it is not, 2 when the command is none of ours. Run it as often as you like.

One flag is its own: `--after SECONDS` waits first.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gpurunbook.targets.eks.account import Account, AwsError, patiently

POLL = 5.0
"""Seconds between two looks."""
BUSY_STATES = ("in-use", "attaching", "detaching", "associated")
"""States in which AWS would refuse: what uses it is still on its way out."""
BUSY = {"DependencyViolation", "VolumeInUse", "ResourceInUse", "ResourceInUseException", "ResourceInUseFault",
        "InvalidIPAddress.InUse", "InvalidNetworkInterface.InUse", "ScalingActivityInProgress", "OperationInProgressException"}
"""AWS's codes for: something that was deleted a moment ago still uses it."""
FAILED = ("DELETE_FAILED", "failed")

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Action:
    """One command.

    Attributes:
        flags: flag -> (boto3's parameter, str, list or bool).
        state: what the thing is now, in AWS's words, with a reason after a colon; "" when it is gone.
        limit: seconds until it must be gone.
    """

    operation: str
    flags: Mapping[str, tuple[str, type]]
    state: Callable[[Account, Values], str]
    limit: float = 300


def _first(items: list[dict[str, Any]], *path: str) -> str:
    """A state out of the first item: "" for no item, "present" where there is no such word in it."""
    if not items:
        return ""
    found: Any = items[0]
    for key in path:
        found = found.get(key) or {}
    return found if isinstance(found, str) else "present"


def _instance(account: Account, v: Values) -> str:
    told = account.call("ec2", "describe_instances", InstanceIds=v["InstanceIds"])["Reservations"]
    return next((s for r in told for i in r["Instances"] if (s := i["State"]["Name"]) != "terminated"), "")


def _address(account: Account, v: Values) -> str:
    told = account.call("ec2", "describe_addresses", AllocationIds=[v["AllocationId"]])["Addresses"]
    return "associated" if any(a.get("AssociationId") for a in told) else _first(told)


def _nat_gateway(account: Account, v: Values) -> str:
    state = _first(account.call("ec2", "describe_nat_gateways", NatGatewayIds=[v["NatGatewayId"]])["NatGateways"], "State")
    return "" if state == "deleted" else state


def _attachment(account: Account, v: Values) -> str:
    return _first(account.call("ec2", "describe_network_interfaces", Filters=[
        {"Name": "attachment.attachment-id", "Values": [v["AttachmentId"]]}])["NetworkInterfaces"], "Attachment", "Status")


def _rules(account: Account, v: Values) -> str:
    told = account.pages("ec2", "describe_security_group_rules", "SecurityGroupRules",
                         Filters=[{"Name": "group-id", "Values": [v["GroupId"]]}])
    return _first([rule for rule in told if rule["SecurityGroupRuleId"] in v["SecurityGroupRuleIds"]])


def _group_of_instances(account: Account, v: Values) -> str:
    return _first(account.call("autoscaling", "describe_auto_scaling_groups",
                               AutoScalingGroupNames=[v["AutoScalingGroupName"]])["AutoScalingGroups"], "Status")


def _node_group(account: Account, v: Values) -> str:
    told = account.call("eks", "describe_nodegroup", clusterName=v["clusterName"], nodegroupName=v["nodegroupName"])["nodegroup"]
    return ": ".join([told["status"], *(issue["message"] for issue in told.get("health", {}).get("issues", ()))])


def _stack(account: Account, v: Values) -> str:
    told = account.call("cloudformation", "describe_stacks", StackName=v["StackName"])["Stacks"][0]
    return "" if told["StackStatus"] == "DELETE_COMPLETE" else ": ".join(
        filter(None, [told["StackStatus"], told.get("StackStatusReason", "")]))


def _log_group(account: Account, v: Values) -> str:
    told = account.pages("logs", "describe_log_groups", "logGroups", logGroupNamePrefix=v["logGroupName"])
    return _first([group for group in told if group["logGroupName"] == v["logGroupName"]])


def _one(flag: str, parameter: str) -> dict[str, tuple[str, type]]:
    return {flag: (parameter, str)}


_RULES: dict[str, tuple[str, type]] = {"--group-id": ("GroupId", str),
                                       "--security-group-rule-ids": ("SecurityGroupRuleIds", list)}

ACTIONS: dict[tuple[str, str], Action] = {
    ("elbv2", "delete-load-balancer"): Action(
        "delete_load_balancer", _one("--load-balancer-arn", "LoadBalancerArn"), lambda a, v: _first(
            a.call("elbv2", "describe_load_balancers", LoadBalancerArns=[v["LoadBalancerArn"]])["LoadBalancers"],
            "State", "Code")),
    ("elb", "delete-load-balancer"): Action(
        "delete_load_balancer", _one("--load-balancer-name", "LoadBalancerName"), lambda a, v: _first(
            a.call("elb", "describe_load_balancers", LoadBalancerNames=[v["LoadBalancerName"]])["LoadBalancerDescriptions"])),
    ("elbv2", "delete-target-group"): Action(
        "delete_target_group", _one("--target-group-arn", "TargetGroupArn"), lambda a, v: _first(
            a.call("elbv2", "describe_target_groups", TargetGroupArns=[v["TargetGroupArn"]])["TargetGroups"])),
    ("eks", "delete-nodegroup"): Action(
        "delete_nodegroup", {"--cluster-name": ("clusterName", str), "--nodegroup-name": ("nodegroupName", str)},
        _node_group, 1800),
    ("autoscaling", "delete-auto-scaling-group"): Action(
        "delete_auto_scaling_group", {"--auto-scaling-group-name": ("AutoScalingGroupName", str),
                                      "--force-delete": ("ForceDelete", bool)}, _group_of_instances, 900),
    ("ec2", "terminate-instances"): Action("terminate_instances", {"--instance-ids": ("InstanceIds", list)}, _instance, 900),
    ("eks", "delete-cluster"): Action(
        "delete_cluster", _one("--name", "name"), lambda a, v: str(a.call("eks", "describe_cluster", name=v["name"])
                                                                   ["cluster"]["status"]), 1800),
    ("ec2", "detach-network-interface"): Action(
        "detach_network_interface", {"--attachment-id": ("AttachmentId", str), "--force": ("Force", bool)}, _attachment),
    ("ec2", "delete-network-interface"): Action(
        "delete_network_interface", _one("--network-interface-id", "NetworkInterfaceId"), lambda a, v: _first(
            a.call("ec2", "describe_network_interfaces", NetworkInterfaceIds=[v["NetworkInterfaceId"]])
            ["NetworkInterfaces"], "Status")),
    ("ec2", "delete-nat-gateway"): Action("delete_nat_gateway", _one("--nat-gateway-id", "NatGatewayId"), _nat_gateway, 900),
    ("ec2", "release-address"): Action("release_address", _one("--allocation-id", "AllocationId"), _address),
    ("ec2", "delete-volume"): Action(
        "delete_volume", _one("--volume-id", "VolumeId"), lambda a, v: _first(
            a.call("ec2", "describe_volumes", VolumeIds=[v["VolumeId"]])["Volumes"], "State")),
    ("ec2", "revoke-security-group-ingress"): Action("revoke_security_group_ingress", _RULES, _rules),
    ("ec2", "revoke-security-group-egress"): Action("revoke_security_group_egress", _RULES, _rules),
    ("ec2", "delete-security-group"): Action(
        "delete_security_group", _one("--group-id", "GroupId"), lambda a, v: _first(
            a.call("ec2", "describe_security_groups", GroupIds=[v["GroupId"]])["SecurityGroups"])),
    ("ec2", "delete-launch-template"): Action(
        "delete_launch_template", _one("--launch-template-id", "LaunchTemplateId"), lambda a, v: _first(
            a.call("ec2", "describe_launch_templates", LaunchTemplateIds=[v["LaunchTemplateId"]])["LaunchTemplates"])),
    ("iam", "delete-open-id-connect-provider"): Action(
        "delete_open_id_connect_provider", _one("--open-id-connect-provider-arn", "OpenIDConnectProviderArn"),
        lambda a, v: _first([a.call("iam", "get_open_id_connect_provider",
                                    OpenIDConnectProviderArn=v["OpenIDConnectProviderArn"])])),
    ("ec2", "delete-key-pair"): Action(
        "delete_key_pair", _one("--key-pair-id", "KeyPairId"), lambda a, v: _first(
            a.call("ec2", "describe_key_pairs", KeyPairIds=[v["KeyPairId"]])["KeyPairs"])),
    ("cloudformation", "delete-stack"): Action("delete_stack", _one("--stack-name", "StackName"), _stack, 1800),
    ("logs", "delete-log-group"): Action("delete_log_group", _one("--log-group-name", "logGroupName"), _log_group),
}
"""(service, command) -> what it does. Flags and names are the aws program's, from its reference."""


def main(arguments: list[str] | None = None, *, session: Any = None, clock: Callable[[], float] = time.monotonic,
         sleep: Callable[[float], object] = time.sleep) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    action = ACTIONS.get((words[0], words[1])) if len(words) > 1 else None
    if not action:
        told = "\n".join(f"  {' '.join(key)} {' '.join(one.flags)} --region" for key, one in ACTIONS.items())
        print(f"not one of the commands of a sweep: {' '.join(words[:2]) or '(nothing)'}\nThese are:\n{told}", file=sys.stderr)
        return 2
    try:
        chosen = _parser(words, action).parse_args(words[2:])
    except SystemExit as ended:  # argparse has said why
        return int(ended.code or 0)
    values = {parameter: getattr(chosen, parameter) for parameter, _ in action.flags.values()}
    account = Account(chosen.region, session)
    try:
        if chosen.after:
            _say(f"waiting {chosen.after:g} s first")
            sleep(chosen.after)
        return _until_gone(action, words[0], values, account, clock, sleep)
    except AwsError as error:
        print(error, file=sys.stderr)
        return 1


def _parser(words: list[str], action: Action) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"aws {words[0]} {words[1]}", allow_abbrev=False)
    for flag, (parameter, type) in action.flags.items():
        if type is bool:
            parser.add_argument(flag, dest=parameter, action="store_true")
        else:
            parser.add_argument(flag, dest=parameter, required=True, nargs="+" if type is list else None)
    parser.add_argument("--region", required=True)
    parser.add_argument("--after", type=float, default=0.0)
    return parser


def _until_gone(action: Action, service: str, values: Values, account: Account, clock: Callable[[], float],
                sleep: Callable[[float], object]) -> int:
    """Wait until AWS would not refuse, ask once, and wait until it is gone. Raises AwsError."""
    began, asked, busy = clock(), False, ""
    while state := patiently(lambda: _state(action, account, values), POLL, say=_say, sleep=sleep):
        elapsed = clock() - began
        if asked and state.split(":")[0] in FAILED:
            print(f"AWS could not delete it: {state}", file=sys.stderr)
            return 1
        if elapsed > action.limit:
            print(f"it is still there after {elapsed:.0f} s: {busy or state}", file=sys.stderr)
            return 1
        if not asked and state not in BUSY_STATES:
            busy = _ask(action, service, values, account)
            asked = not busy
            if asked and state.split(":")[0] not in FAILED:
                continue
            state = busy or state
        _say(f"{elapsed:.0f} s: {state}")
        sleep(POLL)
    _say("gone" if asked else "already gone")
    return 0


def _state(action: Action, account: Account, values: Values) -> str:
    try:
        return action.state(account, values)
    except AwsError as error:
        if error.absent:
            return ""
        raise


def _ask(action: Action, service: str, values: Values, account: Account) -> str:
    """Send the one request that changes something; AWS's message when it is too early. Raises AwsError."""
    from botocore.exceptions import BotoCoreError, ClientError
    try:
        getattr(account.client(service), action.operation)(**values)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        refused = AwsError(str(error), code, where=f"{service} {action.operation}")
        if code in BUSY:
            return str(error)
        if not refused.absent:
            raise refused from error
    except BotoCoreError as error:
        raise AwsError(str(error), type(error).__name__, where=f"{service} {action.operation}",
                       next="run the same again") from error
    return ""


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
