"""What is missing between the account and cluster.yaml, and the commands that finish it: pure, so every case is tested.

eksctl cannot go on with a cluster that it began (eksctl#2005), and `create nodegroup` calls a group whose stack has
failed created (eksctl#4977). So the stacks decide: what is complete stays, what failed is deleted and made again, what
is on its way is waited for, and what is absent is created.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from gpurunbook.command import Command
from gpurunbook.config import ClusterConfig
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets.eks.facts import ADDONS, Facts
from gpurunbook.targets.eks.stacks import Stack

COMPLETE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE")
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
    if whole and whole.status == "DELETE_IN_PROGRESS":
        return [*settle, create], "the cluster is being deleted: wait for that, then make it anew"
    if whole is None or not (whole.status in COMPLETE or whole.status == "CREATE_IN_PROGRESS"):
        state = whole.status if whole else f"gone, while EKS still says {facts.status or 'nothing'}"
        return ([*settle, eksctl.delete_cluster(cluster.name, cluster.region), create],
                f"the control plane's stack is {state}: it cannot be mended, so it is deleted and made again")
    lacking = [name for name in ADDONS if name not in facts.addons]
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


def wait(stack: Stack, region: str) -> Command:
    """Wait for a stack to settle: CloudFormation goes on without the eksctl that asked for it."""
    goal = "stack-create-complete" if stack.status == "CREATE_IN_PROGRESS" else (
        "stack-delete-complete" if stack.status.startswith("DELETE") else "stack-rollback-complete")
    args: Sequence[str] = ("cloudformation", "wait", goal, "--stack-name", stack.name, "--region", region)
    return Command((sys.executable, "-m", "gpurunbook.targets.eks.aws", *args), shown=("aws", *args), limit=WAIT_SECONDS,
                   changes=False, usual=(60, 15 * 60), why=f"wait for the stack {stack.name}, now {stack.status}")
