"""The target `eks`: AWS by eksctl. What is in which file, see this folder's __init__."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import masking, show, yaml_file
from gpurunbook.command import Command, Result
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.plan import Check, Plan
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets import ClusterState, Spent, Target, Wishes
from gpurunbook.targets.eks import agreement, bill, derived, ending, facts, failures, identity, resume, stacks, trial
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.agreement import Agreement
from gpurunbook.targets.eks.facts import EksState, Facts
from gpurunbook.targets.eks.watching import watching

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig
    from gpurunbook.live import Live
    from gpurunbook.runbook import Run

LOOK_SECONDS = 15.0
"""How often a waiting stage asks AWS whether it can still succeed."""
STAYS = "keep this machine awake: eksctl runs on it"


class Eks(Target):
    """See gpurunbook.targets.Target."""

    name = "eks"
    programs = ("eksctl", "kubectl", "helm")
    poll = 3.0
    only_shipped = True

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._looked = 0.0
        self._agreed: Agreement | None = None

    def account(self, region: str) -> Account:
        """The account behind the environment's credentials, in one region."""
        return self._accounts.setdefault(region, Account(region))

    def hide_secrets(self, cluster: ClusterConfig) -> None:
        with suppress(AwsError):  # whoever cannot sign in learns nothing that could be hidden
            self.account(cluster.region).identity()

    @property
    def passes_on(self) -> tuple[str, ...]:
        return tuple(name for name in os.environ if name.startswith("AWS_"))

    def machine(self, cluster: ClusterConfig) -> list[Check]:
        from gpurunbook.targets.eks import preflight
        return [preflight.authenticator(shutil.which)]

    def checks(self, cluster: ClusterConfig, image: str) -> list[Check]:
        from gpurunbook.targets.eks import preflight
        return preflight.checks(self.account(cluster.region), cluster, today=_now().date(), image=image, which=None)

    def context(self, run: Run) -> str:
        """eksctl names it after who signs in; it makes it the current one of the run's own kubeconfig."""
        told: dict[str, Any] = (
            yaml_file.load(run.kubeconfig) if run.kubeconfig.exists() else None) or {}
        return str(told.get("current-context") or f"{run.cluster.name}.{run.cluster.region}.eksctl.io")

    def identity(self, run: Run, seen: dict[str, str]) -> dict[str, str]:
        """The hash of the ARN; AWS's cluster of that name and the kubeconfig's must be one, and its nodes in EC2."""
        from gpurunbook.stages import nodes
        return identity.same(self.account(run.cluster.region), run.cluster.name, seen["server"], nodes.observe(run))

    def permit(self, run: Run, command: Command) -> None:
        if Path(command.argv[0]).name == "eksctl" or any(word.startswith("gpurunbook.targets.eks.") for word in command.argv):
            self._same_account(run)

    def observe(self, run: Run) -> EksState:
        self._same_account(run)
        account, cluster = self.account(run.cluster.region), run.cluster
        found = facts.read(account, cluster.name)
        nodes: dict[str, str] = {}
        answers = False
        if found.status == "ACTIVE" and found.run_id == run.id and run.journal.writes and not run.kubeconfig.exists():
            run.ask(self._eksctl(run).write_kubeconfig(cluster.name, cluster.region, run.kubeconfig), check=False)
        if found.status == "ACTIVE" and run.kubeconfig.exists():
            from kubernetes.client import ApiException
            from kubernetes.config import ConfigException
            from urllib3.exceptions import HTTPError
            with suppress(ApiException, HTTPError, ConfigException):  # one that is coming up refuses: here a state, no error
                from gpurunbook.stages import nodes as node_stage
                nodes = {node.name: node.group for node in node_stage.observe(run) if node.ready}
                answers = True
        lacking = {group.name: group.desired - list(nodes.values()).count(group.name) for group in cluster.groups}
        return EksState(facts.parts(found, cluster), answers, tuple(nodes),
                        tuple(f"{name}: {count} node(s)" for name, count in lacking.items() if count > 0), found)

    def starting(self, run: Run) -> None:
        """A self-managed group whose nodes cannot start says so in its stack or its health, long before a limit."""
        if (now := _now().timestamp()) - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        found = facts.read(self.account(run.cluster.region), run.cluster.name)
        for part in facts.parts(found, run.cluster):
            if part.state == "failed":
                raise RunbookError(f"{part.name}: {part.evidence}", where="aws cloudformation describe-stack-events",
                                   next="run notebooks/02_provision.ipynb again: it makes anew what failed")
        for stack in (s for s in found.stacks if s.kind == "nodegroup"):
            failure = failures.classify([], health=failures.launches(self.account(run.cluster.region), stack.id))
            if failure:
                raise RunbookError(f"node group {stack.group}: {failure.kind}: {failure.message}", where=stack.name,
                                   next=failures.advice(replace(failure, group=stack.group), cluster_zones=found.zones))

    def estimate(self, cluster: ClusterConfig, hours: float) -> bill.Bill:
        return agreement.estimate(self.account(cluster.region), cluster, hours=hours, today=_now().date())

    def spent(self, folder: Path) -> Spent | None:
        agreed = Agreement.of(Journal(folder), past=True)
        if agreed is None or agreed.began is None:
            return None
        end = agreed.ended or _now()
        return Spent(f"about {agreed.cost(end)} of ${agreed.budget:,.2f} in {(end - agreed.began).total_seconds() / 3600:.2f} h"
                     f"{'' if agreed.ended else ', and counting'}", tuple(tuple(map(str, row)) for row in agreed.bill.table.rows),
                     bill.LEFT_OUT, agreed.ended is None)

    def begun(self, folder: Path) -> bool:
        return Agreement.of(Journal(folder)) is not None

    def agree(self, cluster: ClusterConfig, wishes: Wishes) -> None:
        agreement.confirmed(cluster, wishes)

    def try_account(self, run: Run, name: str, wishes: Wishes, blocked: str = "") -> Plan:
        if not name or not run.journal.writes:
            return run.plan((), "not asked for: it would make a default cluster and delete it again, for about half an hour")
        self._same_account(run)
        return trial.plan(run, self.account(run.cluster.region), self._eksctl(run), name, wishes, _now(), blocked)

    def create(self, run: Run, state: ClusterState, wishes: Wishes) -> Plan:
        assert isinstance(state, EksState)
        self._ours(run, state.facts)
        config, text = run.folder / "cluster.yaml", run.cluster.path.read_text()
        commands, reason = resume.missing(state.facts, run.cluster, self._eksctl(run), config=config,
                                          kubeconfig=run.kubeconfig, shown=lambda path: _shown(path, run))
        if not run.journal.writes or not (commands or state.facts.anything):
            return run.plan(commands, reason)
        agreed = self._agree(run, state.facts, wishes)
        if not commands:
            return run.plan((), reason)
        self.admit(run)
        if any(command.argv[1:3] == ("create", "cluster") for command in commands):
            # What comes is another cluster than the one that the run knew by this name.
            run.journal.append("identity", void=True)
            if run.kubeconfig.exists():
                commands.insert(0, ending.remove_file(run.kubeconfig, "remove the kubeconfig of the cluster that is made anew"))
        made = derived.derive(text, agreed.tags(run.id), self._zones(run, state.facts))
        notes = (agreed.bill.table, show.Terminal("diff -u cluster.yaml " + _shown(config, run), derived.diff(
            text, made, name=run.cluster.path.name, derived=_shown(config, run))))
        return run.plan(commands, reason, files={config: made}, notes=notes)

    def _agree(self, run: Run, found: Facts, wishes: Wishes) -> Agreement:
        """What was agreed for this cluster; asked for anew where it is another one. Raises ConfigError, RunbookError."""
        agreed, wanted = Agreement.of(run.journal), agreement.what(run.cluster)
        if agreed and agreed.began and agreed.of_what[:2] != wanted[:2]:
            raise RunbookError(f"this run made {agreed.of_what[0]} in {agreed.of_what[1]}; {run.cluster.path.name} now names "
                               f"{wanted[0]} in {wanted[1]}", where=str(run.cluster.path),
                               next=f"gpurunbook teardown --run-id {run.id}, or begin another run: --run-id OTHER")
        if agreed is None or agreed.of_what != wanted or (agreed.began is None and not found.anything):
            began = found.detail.get("createdAt") or min((stack.created for stack in found.stacks), default=None)
            agreement.agree(run.journal, self.account(run.cluster.region), run.cluster, wishes, _now(), began)
            agreed = Agreement.of(run.journal)
            assert agreed is not None
        self._agreed = agreed
        return agreed

    def created(self, run: Run) -> None:
        ending.record(run, self.account(run.cluster.region), answers=True)

    def admit(self, run: Run) -> None:
        self._same_account(run)
        agreed = Agreement.of(run.journal)
        failed = [check for check in agreement.checks(agreed, _now()) if check.state == "fail"] if agreed else []
        if failed:
            raise RunbookError(f"{failed[0].name}: {failed[0].evidence}", where=str(run.journal.path),
                               next=f"gpurunbook teardown --run-id {run.id}")

    def meter(self, run: Run) -> str:
        if self._agreed is None or self._agreed.began is None:
            self._agreed = Agreement.of(run.journal)
        return f"about {self._agreed.cost(_now())} so far" if self._agreed and self._agreed.began else ""

    def following(self, run: Run, command: Command, live: Live) -> AbstractContextManager[object]:
        return self._events(run, command, live) if _works_on_stacks(command) else nullcontext()

    @contextmanager
    def _events(self, run: Run, command: Command, live: Live) -> Iterator[None]:
        seen: list[stacks.Event] = []
        phase = live.phase

        def tell(event: stacks.Event) -> None:
            seen.append(event)
            live.phase = f"{phase} ({stacks.phase(seen)}; {STAYS})"
            live.event(stacks.line(event))
            run.journal.append("event", stage=run.stage, line=stacks.line(event), status=event.status, at=event.time)

        def blocked(line: str) -> None:
            live.blocker = line
            run.journal.append("event", stage=run.stage, line=line, status="BLOCKED")

        with watching(self.account(run.cluster.region), _cluster_of(command, run), tell, blocked):
            yield
        live.phase = phase

    def explain(self, run: Run, result: Result) -> RunbookError | None:
        """The root cause, from the stacks' events and EKS's health, else from what eksctl printed."""
        if not _works_on_stacks(result.command):
            return None
        account, name = self.account(run.cluster.region), _cluster_of(result.command, run)
        events: list[stacks.Event] = []
        health: list[str] = []
        zones: tuple[str, ...] = ()
        with suppress(AwsError):  # what eksctl printed is then all there is
            for stack in stacks.of_cluster(account, name):
                events += stacks.events(account, stack.id)
                if stack.group:
                    health += [*failures.launches(account, stack.id), *failures.health(account, name, stack.group)]
            zones = facts.read(account, name).zones
        failure = failures.classify(events, output=result.stdout + result.stderr, health=health)
        if failure is None:
            return None
        return CommandFailed(f"{failure.kind}: {failure.message}", result=result, again=failure.again,
                             where=failure.stack or str(result.log or result.command.full),
                             next=failures.advice(failure, cluster_zones=zones))

    def delete(self, run: Run, state: ClusterState) -> Plan:
        assert isinstance(state, EksState)
        if state.facts.anything:
            self._ours(run, state.facts)
        return ending.delete(run, self.account(run.cluster.region), self._eksctl(run), state)

    def sweep(self, run: Run) -> Plan:
        self._same_account(run)
        return ending.sweep(run, self.account(run.cluster.region))

    def left(self, run: Run) -> list[Check]:
        self._same_account(run)
        return ending.left(run, self.account(run.cluster.region))

    def _ours(self, run: Run, found: Facts) -> None:
        """Raises RunbookError unless the run made the cluster, or a person named the run that made it."""
        agreed, started = Agreement.of(run.journal), run.journal.first("run") or {}
        facts.claim(found, run.cluster.name, run.id, ours=bool(agreed and agreed.began) or bool(started.get("named")),
                    me=lambda: self.account(run.cluster.region).identity()["name"])

    def _zones(self, run: Run, found: Facts) -> dict[str, list[str]]:
        """Node group -> zones in which AWS said there is capacity; kept, since a failed stack's events go with it."""
        known = run.journal.last("zones")
        zones: dict[str, list[str]] = dict(known["zones"]) if known else {}
        for stack in found.stacks:
            if stack.group and ("FAILED" in stack.status or "ROLLBACK" in stack.status):
                failure = failures.classify(stacks.events(self.account(run.cluster.region), stack.id))
                good = [zone for zone in failure.zones if zone in found.zones] if failure else []
                if good:
                    zones[stack.group] = good
        if zones and (known is None or zones != known["zones"]):
            run.journal.append("zones", zones=zones)
        return zones

    def _same_account(self, run: Run) -> None:
        """An account that has nothing of the run looks like one that is clean. Raises RunbookError when it is another."""
        number = self.account(run.cluster.region).identity()["account"]
        digest, known = hashlib.sha256(number.encode()).hexdigest()[:16], run.journal.last("account")
        if known is None:
            run.journal.append("account", sha256=digest, shown=masking.short(number))
        elif known["sha256"] != digest:
            raise RunbookError(f"run {run.id} is in the account {known['shown']}, and the credentials are for "
                               f"{masking.short(number)}", where="AWS_PROFILE, or the credentials in the environment",
                               next="sign in to the run's account; nothing was changed")

    def _eksctl(self, run: Run) -> Eksctl:
        return Eksctl(run.program("eksctl"))


def _works_on_stacks(command: Command) -> bool:
    if Path(command.argv[0]).name == "eksctl":
        return command.argv[1] in ("create", "delete")
    return command.argv[1:3] == ("-m", "gpurunbook.targets.eks.settle") or command.argv[3:5] == ("cloudformation", "delete-stack")


def _cluster_of(command: Command, run: Run) -> str:
    """The cluster that a command of eksctl names, else the run's."""
    given = dict(word.split("=", 1) for word in command.argv if word.startswith("--") and "=" in word)
    return given.get("--cluster") or given.get("--name") or run.cluster.name


def _shown(path: Path, run: Run) -> str:
    return f"./{path.relative_to(run.root)}" if path.is_relative_to(run.root) else str(path)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
