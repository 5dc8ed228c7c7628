"""Leftovers -> Commands, in an order in which each can succeed.

What uses comes before what is used: load balancers before their target groups, groups that start instances before the
instances, instances before their interfaces and volumes, NAT gateways before their addresses, all of these before the
security groups, and the stacks after what blocked them: they take with them what is theirs. Log groups are last, and are
deleted a second time: what was still on its way to them makes them anew (eksctl#1018).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from gpurunbook.command import Command
from gpurunbook.targets.eks import aws
from gpurunbook.targets.eks.leftovers import Leftover

SETTLE = 60.0
"""Seconds between the two deletions of a log group: CloudWatch delivers what it was given within about that time."""
MARGIN = 30.0
"""Seconds that the program has beyond its own limit, to say that it was reached."""

FLAGS: dict[str, Callable[[Leftover], tuple[str, ...]]] = {
    "load balancer": lambda one: ("elbv2", "delete-load-balancer", "--load-balancer-arn", one.id),
    "classic load balancer": lambda one: ("elb", "delete-load-balancer", "--load-balancer-name", one.id),
    "target group": lambda one: ("elbv2", "delete-target-group", "--target-group-arn", one.id),
    "node group": lambda one: ("eks", "delete-nodegroup", "--cluster-name", one.id.partition("/")[0],
                               "--nodegroup-name", one.id.partition("/")[2]),
    "auto scaling group": lambda one: ("autoscaling", "delete-auto-scaling-group", "--auto-scaling-group-name", one.id,
                                       "--force-delete"),
    "instance": lambda one: ("ec2", "terminate-instances", "--instance-ids", one.id),
    "cluster": lambda one: ("eks", "delete-cluster", "--name", one.id),
    "network interface": lambda one: ("ec2", "delete-network-interface", "--network-interface-id", one.id),
    "NAT gateway": lambda one: ("ec2", "delete-nat-gateway", "--nat-gateway-id", one.id),
    "address": lambda one: ("ec2", "release-address", "--allocation-id", one.id),
    "volume": lambda one: ("ec2", "delete-volume", "--volume-id", one.id),
    "security group": lambda one: ("ec2", "delete-security-group", "--group-id", one.id),
    "launch template": lambda one: ("ec2", "delete-launch-template", "--launch-template-id", one.id),
    "OIDC provider": lambda one: ("iam", "delete-open-id-connect-provider", "--open-id-connect-provider-arn", one.id),
    "key pair": lambda one: ("ec2", "delete-key-pair", "--key-pair-id", one.id),
    "stack": lambda one: ("cloudformation", "delete-stack", "--stack-name", one.id),
    "log group": lambda one: ("logs", "delete-log-group", "--log-group-name", one.id),
}
"""Kind -> what deletes one, in the order of the sweep."""


def commands(leftovers: Iterable[Leftover], *, settle: float = SETTLE) -> list[Command]:
    """One command for each leftover that does not go with its stack, and before it those that free it. Run in order.

    Raises:
        KeyError: a kind that nothing here can delete.
    """
    order = list(FLAGS)
    # The cluster's own stack comes last of the stacks: the others import what it exports.
    ordered = sorted(leftovers, key=lambda one: (order.index(one.kind) if one.kind in FLAGS else len(order),
                                                 one.detail.get("name", "").endswith("-cluster"), one.id))
    groups = [one for one in ordered if one.kind == "security group"]
    told = []
    for one in ordered:
        if one.kind == "network interface" and "attachment" in one.detail:
            told.append(_command(one, "detach", ("ec2", "detach-network-interface", "--attachment-id", one.detail["attachment"],
                                                 "--force")))
        if groups and one == groups[0]:
            told += [_command(group, "free", ("ec2", f"revoke-security-group-{way}", "--group-id", group.id,
                                              "--security-group-rule-ids", rule))
                     for group in groups for way in ("ingress", "egress") for rule in group.detail.get(way, "").split()]
        if not one.with_stack:
            told.append(_command(one, "delete", FLAGS[one.kind](one)))
    again = [one for one in ordered if one.kind == "log group" and not one.with_stack]
    return told + [_command(one, "delete once more, for what was logged late:", FLAGS[one.kind](one),
                            after=0 if i else settle) for i, one in enumerate(again)]


def _command(one: Leftover, verb: str, words: tuple[str, ...], after: float = 0) -> Command:
    typed = (*words, "--region", one.region)
    limit = aws.ACTIONS[words[0], words[1]].limit
    size = f" ({one.size})" if one.size else ""
    return Command((sys.executable, "-m", "gpurunbook.targets.eks.aws", *typed, *(("--after", f"{after:g}") if after else ())),
                   f"{verb} {one.kind}{size}: {one.why}", limit + after + MARGIN, shown=("aws", *typed))
