"""What is missing between the account and cluster.yaml, and the commands that finish it: pure, so every case is tested.

eksctl cannot go on with a cluster that it began (eksctl#2005), and `create nodegroup` calls a group whose stack has
failed created (eksctl#4977). So the stacks decide: what is complete stays, what failed is deleted and made again, what
is on its way is waited for, and what is absent is created.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from gpurunbook.command import Command
from gpurunbook.config import ClusterConfig
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets.eks.facts import ADDONS, Facts
from gpurunbook.targets.eks.stacks import Stack

COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
UNBORN = ("CREATE_IN_PROGRESS", "ROLLBACK_IN_PROGRESS", "ROLLBACK_COMPLETE")
"""Of the control plane's stack: EKS has no cluster that eksctl could delete, yet or any more."""
WAIT_SECONDS = 45 * 60.0


def missing(facts: Facts, cluster: ClusterConfig, eksctl: Eksctl, *, config: Path, kubeconfig: Path,
            shown: Callable[[Path], str] = str) -> tuple[list[Command], str]:
    """The commands that finish the cluster, and why; none when all of it is there.

    Args:
        config: the derived cluster.yaml; `shown` is how people see a path.
    """
    create = eksctl.create_cluster(config, kubeconfig, shown_config=shown(config), shown_kubeconfig=shown(kubeconfig))
    whole = facts.stack("cluster")
    if not facts.anything:
        return [create], "no cluster yet: one command makes the control plane and every node group"
    settle = [wait(s, cluster.region) for s in facts.stacks if s.status.endswith("IN_PROGRESS")]
    remake = [*remove(facts, cluster.name, cluster.region, eksctl), create]
    if whole and whole.status == "DELETE_IN_PROGRESS":
        return remake, "the cluster is being deleted: wait for that, then make it anew"
    lives = whole is not None and (whole.status in COMPLETE or whole.status == "CREATE_IN_PROGRESS")
    if not lives or facts.status == "FAILED":
        state = f"stack is {whole.status}" if whole else "stack is gone"
        return (remake, f"the control plane's {state}, EKS says {facts.status or 'that there is none'}: it cannot be mended, "
                "so it is deleted and made again")
    lacking = [name for name in ADDONS if name not in facts.addons and cluster.default_addons]
    commands = [*settle, *(eksctl.create_addon(name, cluster.name, cluster.region) for name in lacking)]
    failed = [g.name for g in cluster.groups if _failed(facts, g.name)]
    absent = [g.name for g in cluster.groups if _absent(facts, g.name)]
    commands += [eksctl.delete_nodegroup(name, cluster.name, cluster.region) for name in failed]
    if failed or absent:
        commands.append(eksctl.create_nodegroup(config, *failed, *absent, shown_config=shown(config)))
    if not commands:
        return [], "the control plane is there, and so is every node group"
    told = [f"on its way: {', '.join(s.name for s in facts.stacks if s.status.endswith('IN_PROGRESS'))}" if settle else "",
            f"add-ons to install: {', '.join(lacking)}" if lacking else "",
            f"failed, to be deleted and made again: {', '.join(failed)}" if failed else "",
            f"absent: {', '.join(absent)}" if absent else ""]
    return commands, "the control plane is there and stays; " + "; ".join(filter(None, told))


def _absent(facts: Facts, group: str) -> bool:
    stack = facts.stack("nodegroup", group)
    return stack.status == "DELETE_IN_PROGRESS" if stack else group not in facts.groups


def _failed(facts: Facts, group: str) -> bool:
    stack = facts.stack("nodegroup", group)
    if _absent(facts, group):
        return False
    if facts.groups.get(group) in ("CREATE_FAILED", "DELETE_FAILED"):
        return True
    return stack is not None and stack.status not in COMPLETE and not stack.status.startswith("CREATE_IN")


def remove(facts: Facts, cluster: str, region: str, eksctl: Eksctl) -> list[Command]:
    """What takes away all there is. eksctl refuses to delete a cluster that EKS does not have, whatever its stacks."""
    commands = [wait(stack, region) for stack in facts.stacks if stack.busy and not stack.status.startswith("CREATE")]
    stay = [stack for stack in facts.stacks if stack.status != "DELETE_IN_PROGRESS"]
    unborn = any(stack.kind == "cluster" and stack.status in UNBORN for stack in stay)
    if facts.status and not unborn:
        # The node groups' stacks may already be on their way out while the control plane's has not begun.
        return [*commands, eksctl.delete_cluster(cluster, region)] if stay or facts.status != "DELETING" else commands
    return commands + [_delete_stack(stack, region) for stack in sorted(stay, key=lambda stack: stack.kind == "cluster")]


def _delete_stack(stack: Stack, region: str) -> Command:
    args = ("cloudformation", "delete-stack", "--stack-name", stack.name, "--region", region)
    return Command((sys.executable, "-m", "gpurunbook.targets.eks.aws", *args), shown=("aws", *args), limit=WAIT_SECONDS,
                   usual=(60, 15 * 60), why=f"delete the stack {stack.name}, {stack.status}, whose cluster EKS does not have")


def wait(stack: Stack, region: str) -> Command:
    """Wait for a stack that CloudFormation is at work on: it goes on without the eksctl that asked for it."""
    args = ("--stack-name", stack.name, "--region", region)
    goals = {"CREATE_IN_PROGRESS": "stack-create-complete", "DELETE_IN_PROGRESS": "stack-delete-complete"}
    ours = ("-m", "gpurunbook.targets.eks.settle", *args)
    shown = ("aws", "cloudformation", "wait", goals[stack.status], *args) if stack.status in goals else ("python", *ours)
    return Command((sys.executable, *ours), shown=shown, limit=WAIT_SECONDS, changes=False, usual=(60, 15 * 60),
                   why=f"wait for the stack {stack.name}, now {stack.status}")
