"""A stand-in for eksctl where the real one cannot go: a create or a delete that succeeds. Everything it says is invented.

It is as strict as the real one: the flags of a verb are those of its recorded help, and what eksctl refuses is refused in
the recorded words and with its exit code. The account's side (stacks.py) goes on without it, as AWS does, so that it can be
killed between any two steps. Its settings are in a JSON file beside the installed program, read afresh at each step:

    kubeconfig   what `create cluster` and `utils write-kubeconfig` copy
    seconds      {"cluster", "group", "delete"}: how long CloudFormation takes; "nodes": until eksctl gives up waiting for a node
    fail         {GROUP or "control-plane": {"reason", "status", "times"}}: the stack fails for AWS's reason
    fail_delete  the same, of a deletion
    starve       {GROUP: reason}: a self-managed group's stack is complete, but AWS gives no instance, for that reason
    hang         a point from POINTS: it stays there, having written its name to eksctl.at, until it is killed
    log_group    make /aws/eks/NAME/cluster, which outlives the cluster
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import yaml

from tests.aws.asking import Account, cluster, endpoint, identity, region, say, supported, write_kubeconfig
from tests.aws.flags import Flags, Refusal, read

VERSION = "0.230.0"
INVENTED = "# invented: gpurunbook's stand-in for eksctl says this, no AWS was asked"
POINTS = ("before-control-plane", "during-control-plane", "after-control-plane", "during-groups", "after-groups",
          "before-delete", "between-deletes")
ADDONS = ("vpc-cni", "kube-proxy", "coredns", "metrics-server")
"""What eksctl itself installs once the control plane is there, as no stack does."""
POLL = 0.05


def main(argv: list[str], settings: Path) -> int:
    """Run the command line `argv` (without the program's name). Returns the exit code."""
    account = Account(settings)
    account.note(argv)
    try:
        flags = read(argv)
        if flags.verb == "version":
            print(VERSION)
            return 0
        print(INVENTED, file=sys.stderr if flags.verb.startswith("get ") else sys.stdout, flush=True)
        VERBS[flags.verb](account, flags)
    except Refusal as refusal:
        print(f"Error: {refusal}", file=sys.stderr)
        return 1
    return 0


def create_cluster(account: Account, flags: Flags) -> None:
    config = flags.config() if flags.file else flags.described()
    supported(account, config)
    if flags.on("dry-run"):
        identity(account)
        print(yaml.safe_dump(config))
        return
    name = config["metadata"]["name"]
    identity(account)
    say(f"eksctl version {VERSION}")
    say(f"using region {region(config)}")
    say(f'creating EKS cluster "{name}" in "{region(config)}" region')
    stack = f"eksctl-{name}-cluster"
    say(f'building cluster stack "{stack}"')
    account.point("before-control-plane")
    if stack in account.stacks():
        _give_up(name, [f'creating CloudFormation stack "{stack}": operation error CloudFormation: CreateStack, https response '
                        "error StatusCode: 400, RequestID: 0, "
                        f"AlreadyExistsException: Stack [{stack}] already exists"])
    _made(account, "clusters", {"config": config, "seconds": account.seconds("cluster"), **endpoint(account),
                                "failing": account.failing("fail", "control-plane"),
                                "log_group": bool(account.settings.get("log_group"))})
    say(f'deploying stack "{stack}"')
    account.point("during-control-plane")
    if problem := _wait_for(account, stack):
        _give_up(name, [problem])
    account.point("after-control-plane")
    say("creating addons")
    for addon in ADDONS:
        account.ask("/_stand_in/addons", {"cluster": name, "addon": addon})
    if problems := _make_groups(account, config, _groups(config)):
        _give_up(name, problems)
    account.point("after-groups")
    say("waiting for the control plane to become ready")
    write_kubeconfig(account, flags, name, region(config))
    say(f'all EKS cluster resources for "{name}" have been created', "✔")
    say(f'EKS cluster "{name}" in "{region(config)}" region is ready', "✔")


def create_addon(account: Account, flags: Flags) -> None:
    identity(account)
    name, addon = flags.must("cluster"), flags.must("name")
    cluster(account, name)
    say(f"creating addon: {addon}")
    account.ask("/_stand_in/addons", {"cluster": name, "addon": addon})


def create_nodegroup(account: Account, flags: Flags) -> None:
    config = flags.config()
    name = config["metadata"]["name"]
    identity(account)
    try:
        cluster(account, name)
    except Refusal as absent:
        raise Refusal(f"could not create cluster provider from options: {absent}") from absent
    wanted = [group for group in _groups(config) if flags.includes(group[0]["name"])]
    if not wanted:
        raise Refusal(f'no nodegroups match include glob filter specification: "{",".join(flags.list("include"))}"')
    there = sorted(set(account.groups(name)) & {group["name"] for group, _ in _groups(config)})
    if there:
        say(f"{len(there)} existing nodegroup(s) ({','.join(there)}) will be excluded")
    missing = [(group, managed) for group, managed in wanted if group["name"] not in there]
    if problems := _make_groups(account, config, missing):
        say(f"{len(problems)} error(s) occurred and nodegroups haven't been created properly, "
            "you may wish to check CloudFormation console")
        for problem in problems:
            say(problem, "✖")
        raise Refusal(f'failed to create nodegroups for cluster "{name}"')
    for kind, managed in (("nodegroup", False), ("managed nodegroup", True)):
        say(f'created {sum(m == managed for _, m in missing)} {kind}(s) in cluster "{name}"', "✔")


def delete_nodegroup(account: Account, flags: Flags) -> None:
    config = flags.config() if flags.file else None
    name = config["metadata"]["name"] if config else flags.must("cluster")
    wanted = [g["name"] for g, _ in _groups(config) if flags.includes(g["name"])] if config else [flags.must("name")]
    identity(account)
    cluster(account, name)
    found = account.groups(name)
    wanted = [group for group in wanted if group in found]
    planned = config is not None and not flags.on("approve")
    say(f"{'(plan) would ' if planned else 'will '}delete {len(wanted)} nodegroups from cluster \"{name}\"")
    if planned:
        say("no changes were applied, run again with '--approve' to apply the changes", "!")
        return
    _delete_groups(account, name, wanted, flags.on("wait"))
    say(f'deleted {len(wanted)} nodegroup(s) from cluster "{name}"', "✔")


def delete_cluster(account: Account, flags: Flags) -> None:
    name = flags.config()["metadata"]["name"] if flags.file else flags.must("name")
    identity(account)
    try:
        cluster(account, name)
    except Refusal as absent:
        if not flags.on("force"):
            raise
        say(f"failed to create provider for cluster; force = true skipping: {absent}", "!")
        print("panic: runtime error: invalid memory address or nil pointer dereference", file=sys.stderr)
        sys.exit(2)  # the real 0.230 does: pkg/actions/cluster/cluster.go:40
    say(f'deleting EKS cluster "{name}"')
    account.point("before-delete")
    _delete_groups(account, name, list(account.groups(name)), True)
    account.point("between-deletes")
    stack = f"eksctl-{name}-cluster"
    if stack in account.stacks():
        say(f'will delete stack "{stack}"')
        if planned := account.failing("fail_delete", "cluster"):
            _fail_delete(account, stack, planned, "cluster with nodegroup(s)")
        account.ask("/_stand_in/clusters/delete", {"cluster": name, "seconds": account.seconds("delete")})
        if flags.on("wait"):
            say(f'waiting for stack "{stack}" to get deleted')
            _wait_gone(account, stack)
    say("all cluster resources were deleted", "✔")


def get_cluster(account: Account, flags: Flags) -> None:
    identity(account)
    if not flags.value("name"):
        print(json.dumps([{"Name": name, "Region": region(), "Owned": "True"}
                          for name in account.ask("/_stand_in/clusters")], indent=4))
        return
    found = cluster(account, flags.must("name"), f'unable to describe control plane "{flags.must("name")}"')
    tags = found.pop("tags", {})
    print(json.dumps([{**_capitalised(found), "Tags": tags}], indent=4))


def _capitalised(value: Any) -> Any:
    """With names as eksctl prints them, which are those of AWS's Go library."""
    if isinstance(value, dict):
        return {key[0].upper() + key[1:]: _capitalised(one) for key, one in value.items()}
    return [_capitalised(one) for one in value] if isinstance(value, list) else value


def get_nodegroup(account: Account, flags: Flags) -> None:
    identity(account)
    name = flags.must("cluster")
    cluster(account, name)
    print(json.dumps([{"StackName": f"eksctl-{name}-nodegroup-{group}", "Cluster": name, "Name": group, "Status": status}
                      for group, status in sorted(account.groups(name).items())], indent=4))


def utils_write_kubeconfig(account: Account, flags: Flags) -> None:
    identity(account)
    cluster(account, flags.must("cluster"))
    write_kubeconfig(account, flags, flags.must("cluster"), flags.value("region") or region())


VERBS: dict[str, Callable[[Account, Flags], None]] = {
    "create addon": create_addon, "create cluster": create_cluster, "create nodegroup": create_nodegroup,
    "delete nodegroup": delete_nodegroup, "delete cluster": delete_cluster, "get cluster": get_cluster,
    "get nodegroup": get_nodegroup, "utils write-kubeconfig": utils_write_kubeconfig}







def _groups(config: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """Every node group's entry, and whether EKS manages it."""
    return [(group, managed) for key, managed in (("nodeGroups", False), ("managedNodeGroups", True))
            for group in config.get(key) or ()]


def _make_groups(account: Account, config: dict[str, Any], groups: list[tuple[dict[str, Any], bool]]) -> list[str]:
    """All at once, as eksctl makes them. Returns what went wrong."""
    stacks = []
    for group, managed in groups:
        stacks.append(f"eksctl-{config['metadata']['name']}-nodegroup-{group['name']}")
        say(f'building {"managed " if managed else ""}nodegroup stack "{stacks[-1]}"')
        _made(account, "groups", {"config": config, "group": group, "managed": managed, "seconds": account.seconds("group"),
                                  "starved": account.settings.get("starve", {}).get(group["name"]),
                                  "failing": account.failing("fail", group["name"])})
        say(f'deploying stack "{stacks[-1]}"')
    account.point("during-groups")
    if problems := [problem for stack in stacks if (problem := _wait_for(account, stack))]:
        return problems
    for name in account.settings.get("starve", {}).keys() & {group["name"] for group, _ in groups}:
        time.sleep(account.seconds("nodes"))
        raise Refusal(f'timed out waiting for at least 1 nodes to join the cluster and become ready in "{name}"')
    return []


def _made(account: Account, what: str, asked: dict[str, Any]) -> None:
    account.ask(f"/_stand_in/{what}", asked)


def _wait_for(account: Account, stack: str) -> str:
    """Until a creation has ended. Returns what went wrong."""
    say(f'waiting for CloudFormation stack "{stack}"')
    while (status := account.stacks().get(stack, "DELETE_COMPLETE")).endswith("_IN_PROGRESS"):
        time.sleep(POLL)
    if status == "CREATE_COMPLETE":
        return ""
    say(f'unexpected status "{status}" while waiting for CloudFormation stack "{stack}"', "✖")
    say("fetching stack events in attempt to troubleshoot the root cause of the failure")
    for event in account.ask(f"/_stand_in/events/{stack}"):
        if event["status"] == "CREATE_FAILED":
            say(f'{event["type"]}/{event["logical"]}: {event["status"]} – "{event["reason"]}"', "✖")
    return f'waiter state transitioned to Failure for stack "{stack}"'


def _give_up(cluster: str, problems: list[str]) -> NoReturn:
    say(f"{len(problems)} error(s) occurred and cluster hasn't been created properly, "
        "you may wish to check CloudFormation console", "!")
    say(f"to cleanup resources, run 'eksctl delete cluster --region={region()} --name={cluster}'")
    for problem in problems:
        say(problem, "✖")
    raise Refusal(f'failed to create cluster "{cluster}"')


def _delete_groups(account: Account, cluster: str, groups: list[str], wait: bool) -> None:
    stacks = [f"eksctl-{cluster}-nodegroup-{group}" for group in groups]
    for group, stack in zip(groups, stacks, strict=True):
        say(f'will delete stack "{stack}"')
        if planned := account.failing("fail_delete", group):
            _fail_delete(account, stack, planned, "nodegroup(s)")
        account.ask("/_stand_in/groups/delete", {"cluster": cluster, "group": group, "seconds": account.seconds("delete")})
    for stack in stacks if wait else ():
        say(f'waiting for stack "{stack}" to get deleted')
        _wait_gone(account, stack)


def _fail_delete(account: Account, stack: str, planned: dict[str, Any], what: str) -> NoReturn:
    reason = planned["reason"]
    account.ask(f"/_stand_in/stacks/{stack}", {"status": "DELETE_FAILED", "reason": reason, "events": [
        [planned.get("logical", "VPC"), planned.get("type", "AWS::EC2::VPC"), "DELETE_FAILED", reason]]})
    say(f"1 error(s) occurred while deleting {what}")
    say(f'unexpected status "DELETE_FAILED" while waiting for CloudFormation stack "{stack}"', "✖")
    raise Refusal(f"failed to delete {what}")


def _wait_gone(account: Account, stack: str) -> None:
    while stack in account.stacks():
        time.sleep(POLL)


