"""09 on AWS: what ends the cluster, what outlived it, and the proof that nothing is left."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gpurunbook import masking, show
from gpurunbook.command import Command
from gpurunbook.plan import Check, Plan
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets.eks import bill, facts, leftovers, ownership, prices, resume, trial
from gpurunbook.targets.eks import sweep as sweeping
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.agreement import Agreement
from gpurunbook.targets.eks.facts import EksState

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

OTHERWISE = "the rest can go all the same; what stays is named at the end, and another teardown tries it again"


def delete(run: Run, account: Account, eksctl: Eksctl, state: EksState) -> Plan:
    """The cluster, and what an account check left. What is known of it is written down first."""
    commands = _trials(run, account, eksctl)
    found, cluster = state.facts, run.cluster
    if found.anything:
        record(run, account, answers=state.answers)
        commands += resume.remove(found, cluster.name, cluster.region, eksctl)
    reason = ("the node groups, the control plane, and their stacks with all that is in them" if commands
              else f"AWS has no cluster {cluster.name}, and no stack of it")
    # What keeps a stack from being deleted is what the sweep is for; what stays is named at the end.
    return run.plan([replace(command, otherwise=OTHERWISE) for command in commands], reason)


def _trials(run: Run, account: Account, eksctl: Eksctl) -> list[Command]:
    commands: list[Command] = []
    for name in trial.names(run):
        found = facts.read(account, name)
        if found.anything and found.run_id == run.id:
            commands += resume.remove(found, name, run.cluster.region, eksctl)
    return commands


def sweep(run: Run, account: Account) -> Plan:
    """What outlived the cluster, found afresh; the kubeconfig goes last."""
    found = _leftovers(run, account)
    commands = [replace(command, otherwise=OTHERWISE) for command in sweeping.commands(found.leftovers)]
    if run.kubeconfig.exists():
        commands.append(remove_file(run.kubeconfig, "remove the run's kubeconfig, last of all"))
    return run.plan(commands, f"{len(found.leftovers)} thing(s) of this cluster outlived it" if found.leftovers
                    else "eksctl left nothing of this cluster behind", notes=_notes(found))


def left(run: Run, account: Account) -> list[Check]:
    """Each kind of thing that may be left, each a pass only if it was looked at."""
    # What could not be looked at may be there, and what others use is there: neither is an empty account.
    checks = [replace(check, state="fail") if check.state in ("unknown", "warn") else check
              for check in _leftovers(run, account).checks]
    for name in trial.names(run):
        found = facts.read(account, name)
        there = found.anything and found.run_id == run.id
        checks.append(Check(f"the account check's cluster {name} is gone", "fail" if there else "pass",
                            f"EKS: {found.status or 'gone'}, {len(found.stacks)} stack(s)" if there else "none of ours",
                            f"gpurunbook teardown --run-id {run.id}", "billed by the hour until somebody finds it"))
    return [*checks, Check("its kubeconfig is gone", "fail" if run.kubeconfig.exists() else "pass", str(run.kubeconfig),
                           f"rm {run.kubeconfig}")]


def _leftovers(run: Run, account: Account) -> leftovers.Found:
    listed = prices.look_up(account, [*bill.LEFTOVER_ITEMS, *bill.items(run.cluster)], today=dt.datetime.now(dt.UTC).date())
    return leftovers.find(account, _mark(run, account), price=lambda one: bill.leftover_price(
        one.kind.removeprefix("classic ").replace(" ", "-"), float(one.detail.get("gib") or one.detail.get("bytes") or 0),
        listed, type=one.detail.get("type", "")))


def record(run: Run, account: Account, *, answers: bool) -> None:
    """What must be known after the cluster is gone: its ARN, its age, and ids that carry no tag.

    Args:
        answers: the API server does, so that it can be asked for volumes.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    volumes: list[str] = []
    unread = [] if answers else ["volumes: the API server does not answer"]
    try:
        for volume in run.core.list_persistent_volume(_request_timeout=30).items if answers else ():
            if volume.spec.csi and "pv.kubernetes.io/provisioned-by" in (volume.metadata.annotations or {}):
                volumes.append(volume.spec.csi.volume_handle)
    except (ApiException, HTTPError) as error:
        unread.append(f"volumes: {type(error).__name__}")
    found = leftovers.record(account, run.cluster.name, volumes=volumes)
    before = (run.journal.last("cluster") or {}).get("record", {})
    # Half of it may be gone by now: what was seen once stays known.
    for key in ("recorded", "stacks"):
        found[key] += [pair for pair in before.get(key, []) if pair not in found[key]]
    kept = {key: value for key, value in before.items() if value and not found.get(key)}
    run.journal.append("cluster", record={**found, **kept}, unread=unread)


def _mark(run: Run, account: Account) -> ownership.Mark:
    told = run.journal.last("cluster")
    # Account ids do not stand in files; whoever asks now has theirs.
    number = account.identity()["account"]
    record = json.loads(json.dumps(told["record"] if told else {}).replace(masking.short(number), number))
    agreed = Agreement.of(run.journal, past=True)
    owner = agreed.owner if agreed else record.get("owner", "")
    return ownership.mark({**record, "name": run.cluster.name, "region": run.cluster.region, "run_id": run.id, "owner": owner})


def _notes(found: leftovers.Found) -> list[show.Table]:
    rows = [(thing.kind, leftovers.short(thing), reason) for thing, reason in found.spared]
    return ([found.table] if found.leftovers else []) + (
        [show.Table(("kind", "id", "left alone because"), rows, "looks like ours, and is not touched")] if rows else [])


def remove_file(file: Path, why: str) -> Command:
    return Command(("rm", "-f", str(file)), why=why, limit=10)
