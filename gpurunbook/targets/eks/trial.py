"""The account check, the tutorial's first step: a default cluster is made and deleted again, under the same guards."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurunbook.config import ClusterConfig, NodeGroup
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Plan
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets import Wishes
from gpurunbook.targets.eks import agreement, facts, resume, tags
from gpurunbook.targets.eks.account import Account

if TYPE_CHECKING:
    from gpurunbook.runbook import Run


def plan(run: Run, account: Account, eksctl: Eksctl, name: str, wishes: Wishes, now: dt.datetime,
         blocked: str = "") -> Plan:
    """Create and delete the throw-away cluster; where an interrupted check left one of this run, only delete it.

    Raises:
        ConfigError: hours or dollars were not given.
        RunbookError: a cluster of this name is there that this run did not make, or it would cost more than was agreed.
    """
    if name == run.cluster.name:
        raise RunbookError(f"{name} is the cluster of cluster.yaml itself", where="parameter account_check",
                           next="name a throw-away cluster: -p account_check=cluster-1")
    region, found = run.cluster.region, facts.read(account, name)
    delete = eksctl.delete_cluster(name, region)
    if found.anything and found.run_id != run.id:
        raise RunbookError(f"a cluster {name} is there already, made by {found.run_id or 'nobody of ours'}",
                           where=f"eksctl get cluster --name {name} --region {region}",
                           next="give another name: -p account_check=cluster-2")
    if found.anything:
        return run.plan(resume.remove(found, name, region, eksctl), f"an interrupted account check left {name}: delete it")
    if blocked:
        return run.plan((), blocked)
    told = run.journal.last("trial", name=name)
    if told and told["state"] == "planned" and _deleted(run, name):
        return run.plan((), f"the account was tried with {name} in this run, and {name} is gone again")
    small = _default(run.cluster, name)
    agreement.confirmed(small, wishes)
    bill = agreement.estimate(account, small, hours=wishes.max_hours, today=now.date())
    agreement.within(bill, wishes)
    marks = tags.of_run(run.id, account.identity()["name"], now + dt.timedelta(hours=wishes.max_hours))
    run.journal.append("trial", name=name, state="planned")
    create = eksctl.try_account(name, region, run.cluster.version, run.folder / "kubeconfig.trial", marks)
    rows = replace(bill.table, caption=f"{name} for up to {wishes.max_hours:g} h: {bill.sentence}")
    return run.plan([create, delete], "create a default cluster with two nodes, and delete it: does the account let us?",
                    notes=[rows])


def names(run: Run) -> list[str]:
    """The clusters that account checks of this run may have left."""
    return list(dict.fromkeys(r["name"] for r in run.journal.records() if r["kind"] == "trial" and r["name"] != run.cluster.name))


def _deleted(run: Run, name: str) -> bool:
    return any(f"--name={name}" in r["argv"] and "delete" in r["argv"] for r in run.journal.succeeded())


def _default(cluster: ClusterConfig, name: str) -> ClusterConfig:
    """What `eksctl create cluster --nodes=2` makes, for the bill: two m5.large with 80 GiB each."""
    group = NodeGroup(name="default", instance_type="m5.large", desired=2, min=2, max=2, volume_gib=80,
                      ami_family="AmazonLinux2023", ami="", labels={}, taints=(), zones=(), managed=True)
    return ClusterConfig(path=Path(), name=name, region=cluster.region, version=cluster.version, groups=(group,), warnings=())
