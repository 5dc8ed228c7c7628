"""An open run, as the cells of a notebook see it: ask, apply, wait, verify.

    run = open_run("taint", run_id=run_id, target=target, cluster_file=cluster_file)
    nodes = taint.observe(run)          # facts, read from the cluster
    plan = taint.plan(run, nodes)       # commands, as data
    run.apply(plan)                     # journalled, then run
    run.verify(taint.verify(run))       # checks; the stage is done when none fails
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import again, cells, changed, identity, interrupted, live, locks, programs, show, stages, targets
from gpurunbook.command import Command, Result, environment, failure
from gpurunbook.command import run as run_command
from gpurunbook.config import ClusterConfig, load_cluster, locate
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.files import private, write
from gpurunbook.journal import Journal, ReadOnlyJournal, new_id
from gpurunbook.masking import Secret
from gpurunbook.plan import Check, Checks, Plan
from gpurunbook.processes import RUN_VARIABLE, Process
from gpurunbook.programs.helm import Helm
from gpurunbook.programs.kubectl import Kubectl
from gpurunbook.runs import find_root, newest, resolve
from gpurunbook.stages import order

if TYPE_CHECKING:
    import kubernetes.client

WITHOUT_CLUSTER = ("preflight", "provision", "teardown")


class Run:
    """One run of the runbook, open in one stage.

    Attributes:
        folder: runs/ID; journal, kubeconfig, logs, artifacts are in it.
        root: the folder with notebooks/ and manifests/.
        cluster: what cluster.yaml says.
        target: the kind of cluster.
        stage: the stage that is open.
    """

    def __init__(self, root: Path, folder: Path, target: targets.Target, cluster: ClusterConfig, stage: str,
                 journal: Journal | None = None) -> None:
        self.root, self.folder, self.target, self.cluster, self.stage = root, folder, target, cluster, stage
        self.journal = journal or Journal(folder)

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def artifacts(self) -> Path:
        return private(self.folder / "artifacts")

    def manifest(self, *parts: str) -> Path:
        return self.root.joinpath("manifests", *parts)

    # The programs and the client, bound to the run's own kubeconfig

    def program(self, name: str) -> str:
        """Path of a program that fits; found once for a run. Raises RunbookError when there is none."""
        known = self.journal.last("program", name=name)
        return str(known["path"]) if known and Path(known["path"]).exists() else self.find(name).fitting()

    def find(self, name: str) -> programs.Found:
        """Look for a program afresh; one that fits is what the run uses from here on."""
        found = programs.find(name)
        if found.fits:
            self.journal.append("program", name=name, path=found.path, version=found.version, found=found.how)
        return found

    @cached_property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.program("kubectl"), self.kubeconfig, self.target.context(self))

    @cached_property
    def helm(self) -> Helm:
        return Helm(self.program("helm"), self.kubeconfig, self.target.context(self), self.folder / "helm")

    @cached_property
    def core(self) -> kubernetes.client.CoreV1Api:
        """The `kubernetes` client. Raises RunbookError when there is no cluster yet."""
        return self.client("CoreV1Api")

    def client(self, group: str) -> Any:
        """A client for an API group, such as "AppsV1Api" or "CustomObjectsApi"."""
        import kubernetes
        return getattr(kubernetes.client, group)(self._api_client)

    @cached_property
    def _api_client(self) -> kubernetes.client.ApiClient:
        if not self.kubeconfig.exists():
            raise RunbookError(f"run {self.id} has no cluster yet", where=str(self.kubeconfig),
                               next="run notebooks/02_provision.ipynb first, or: gpurunbook run --until provision")
        from gpurunbook import client
        return client.new(self.kubeconfig, self.target.context(self))

    @property
    def environment(self) -> dict[str, str | Secret]:
        """The environment of the programs that this run starts."""
        own = {RUN_VARIABLE: str(self.folder), "KUBECACHEDIR": str(self.folder / "cache"),
               "KUBECONFIG": str(self.kubeconfig), **self.target.environment(self)}
        return environment(own, self.target.passes_on)

    @cached_property
    def header(self) -> str:
        """The line under which the short commands can be pasted into a shell."""
        variables = {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.folder / "cache"),
                     **self.helm.environment(), **self.target.environment(self)}
        folders = dict.fromkeys(str(Path(self.program(name)).parent) for name in ("kubectl", "helm"))
        quoted = " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
        return f"export {quoted} PATH={shlex.quote(':'.join(folders))}:$PATH"

    # What cells call

    def plan(self, commands: Sequence[Command], reason: str, *, elsewhere: Sequence[Command] = (),
             files: Mapping[Path, str] | None = None, notes: Sequence[Any] = ()) -> Plan:
        """A plan whose short commands can be pasted under the run's `export` line."""
        return Plan(tuple(commands), reason, self.header if commands else "", tuple(elsewhere), files or {}, tuple(notes))

    def ask(self, command: Command, check: bool = True) -> Result:
        """Run one command that only reads. Raises CommandFailed unless `check` is False."""
        return self._run(command, check)

    def apply(self, plan: Plan) -> list[Result]:
        """Run a plan's commands in order, each with its intent in the journal before and its result after.

        Raises:
            RunbookError: the cluster is not the one this run began with; nothing was written.
            CommandFailed: a command failed; those before it are done, and a second run goes on from there.
        """
        self.journal.append("plan", stage=self.stage, **plan.to_json())
        if not plan:
            show.show(show.Box("nothing to do", (plan.reason,), "pass"))
        with locks.held(self.folder, f"the notebook of stage {self.stage}"):
            interrupted.wait_for_others(self.journal)
            if left := [intent for intent in interrupted.close(self.journal) if intent["changes"]]:
                raise RunbookError(f"another runner was killed in the middle of: {left[0]['shown']}; this plan was made before "
                                   "that was known", where=str(self.journal.path), next="run this notebook again from its start")
            for path, text in plan.files.items():
                write(path, text)
            with changed.watched(self, plan):
                return [self._run(command, True) for command in plan]

    def _run(self, command: Command, check: bool) -> Result:
        try:
            result = again.until_through(self._once, command, lambda line: show.show(show.Box(line, (), "warn")))
        except RunbookError as error:  # before it was begun: the cluster does not answer, or is another
            if not command.otherwise:
                raise
            self.journal.append("left out", stage=self.stage, shown=command.short, error=str(error))
            result = Result(command, 1, b"", str(error), 0.0, ended_by="what was asked before it")
        if not result.ended_by and (result.code == 0 or not check):
            return result
        if not command.otherwise:
            raise self.target.explain(self, result) or failure(result)
        how = f"ended by {result.ended_by}" if result.ended_by else f"exit code {result.code}"
        told = (command.otherwise, *result.tail.splitlines())
        show.show(show.Box(f"failed ({how}), and gone on: {command.short}", told, "warn"))
        return result

    def _once(self, command: Command) -> Result:
        """One try, with its intent and its result in the journal."""
        if command.guarded:
            self.check_identity()
        elif command.changes:
            self.target.permit(self, command)
        if command.changes:
            locks.still(self.folder)
        intent, began = new_id(), time.monotonic()
        shown = live.Live(command.why, command.usual, self._meter, live.interrupting(command))
        log = private(self.folder / "logs") / f"{self.stage}.log" if self.journal.writes else None
        self.journal.append("intent", id=intent, stage=self.stage, argv=command.argv, shown=command.short,
                            why=command.why, changes=command.changes, by=Process.of(os.getpid()).key, usual=command.usual)
        try:
            with shown, self.target.following(self, command, shown):
                result = run_command(
                    command, env=self.environment | {interrupted.VARIABLE: intent}, log=log, watch=shown, check=False,
                    cwd=self.root, started=lambda pid: self.journal.append("pid", id=intent, process=Process.of(pid).key))
                self.journal.append("result", id=intent, code=result.code, seconds=result.seconds, tail=result.tail)
        except BaseException as error:  # Ctrl-C too: the program has been ended
            cells.shorten(error, command.why, str(log or self.journal.path))
            ended = getattr(error, "result", None)
            if any(one["id"] == intent for one in self.journal.in_flight()):
                self.journal.append("result", id=intent, code=ended.code if ended else None, seconds=time.monotonic() - began,
                                    error=getattr(error, "what", type(error).__name__))
            if ended and command.otherwise:
                return ended  # type: ignore[no-any-return]
            raise
        if command.changes and result.code == 0:
            said = result.stdout.strip().splitlines()[-6:]
            show.show(show.Terminal(command.short, "\n".join(said), result.seconds))
        return result

    def _meter(self) -> str:
        return self.target.meter(self)

    def admit(self) -> None:
        """Raises RunbookError when the run's time or its budget is over."""
        self.target.admit(self)

    def wait(self, what: str, probe: Callable[[], str], *, limit: float, next: str,
             usual: tuple[float, float] | None = None) -> float:
        """Look until `probe` returns "" (there) and not the present blocker. Returns the seconds it took.

        Raises:
            RunbookError: still blocked after `limit` seconds; the last blocker is in the message.
        """
        began, blocker = time.monotonic(), ""
        try:
            with live.Live(what, usual, self._meter, live.LOOKS) as shown:
                while True:
                    seen, elapsed = probe(), time.monotonic() - began
                    if seen != blocker:
                        self.journal.append("wait", stage=self.stage, what=what, blocker=seen, seconds=round(elapsed, 3),
                                            usual=usual)
                    if not seen:
                        return elapsed
                    shown.blocker = blocker = seen
                    if elapsed > limit:
                        raise RunbookError(f"{what}: not within {limit:g} s; last seen: {blocker}",
                                           where=f"{self.journal.path}", next=next)
                    time.sleep(self.target.poll)
        except KeyboardInterrupt as error:
            cells.shorten(error, f"waiting for: {what}; last seen: {blocker}", str(self.journal.path))
            raise

    def verify(self, checks: list[Check] | Checks) -> Checks:
        """Show and journal the checks; without a failure the stage is done.

        Raises:
            RunbookError: naming the first failed check and what mends it.
        """
        checks = Checks(checks)
        self.journal.append("checks", stage=self.stage, checks=checks.to_json())
        show.show(checks)
        if checks.failed:
            first = checks.failed[0]
            raise RunbookError(f"{first.name}: {first.evidence}", where=str(self.journal.path),
                               next=first.fix or "read the table above")
        self.journal.append("stage", stage=self.stage, state="done")
        return checks

    def check_identity(self) -> None:
        """Refuse to write to a cluster that is not the one this run began with: see `identity`."""
        known, seen = self.journal.last("identity"), self.identity()
        if known is None or known.get("void"):
            self.journal.append("identity", **seen)
        elif differs := [key for key, value in seen.items() if known.get(key, value) != value]:
            raise RunbookError(f"the cluster behind {self.kubeconfig} is not the one this run began with "
                               f"({', '.join(differs)})", where=str(self.kubeconfig),
                               next="restore the run's kubeconfig, or start a new run; nothing was written")

    def identity(self) -> dict[str, str]:
        """What tells this cluster from any other. Raises RunbookError when there is none, it does not answer, or not as ours."""
        known = (self.journal.last("identity") or {}).get("ca_sha256", "")
        seen = identity.read(self.kubeconfig, self.target.context(self), known=known)
        return seen | self.target.identity(self, seen)

    def _repr_html_(self) -> str:
        return self.banner._repr_html_()

    def __repr__(self) -> str:
        return repr(self.banner)

    @property
    def banner(self) -> show.Box:
        """Where we are: run, stage, target, and what a rehearsal cannot show."""
        return show.banner(f"{self.target.name.upper()} · run {self.id} · stage {self.stage} · cluster {self.cluster.name}",
                           self.cluster.warnings, self.target.name, self.target.cannot_show)


def open_run(stage: str, *, run_id: str = "", target: str = "rehearsal", cluster_file: str = "cluster.yaml",
             quiet: bool = False) -> Run:
    """Open a run in a stage: the first line of every notebook.

    Args:
        stage: a notebook's name without its number.
        run_id: an id; empty goes on with the newest unfinished run of this target and file, or starts one.
        quiet: only to look: nothing is written into the run folder.

    Raises:
        ConfigError: unknown stage or target, or a broken cluster.yaml.
        RunbookError: the stage needs a cluster, and this run has none that answers, or an earlier stage is missing.
    """
    cells.begin()
    if stage not in stages.NAMES:
        raise ConfigError(f"unknown stage {stage!r}", where="notebooks/", next=f"one of: {', '.join(stages.NAMES)}")
    root = find_root()
    cells.check_parameters(root, stage)
    path = locate(root, cluster_file)
    kind = targets.get(target)
    if stage == "teardown":
        over = newest(root, target, path, finished=True)  # a second teardown looks at the first one's run
        folder = resolve(root, target, path, run_id or (over.id if over else ""), start=False)
        cluster = load_cluster(folder / "cluster.yaml", whole=False)  # as it was when the run began
    else:
        cluster = load_cluster(path)
        folder = resolve(root, target, path, run_id, start=stage in WITHOUT_CLUSTER)
    run = Run(root, folder, kind, kind.describe(folder, cluster), stage, ReadOnlyJournal(folder) if quiet else None)
    kind.hide_secrets(run.cluster)
    if not quiet:
        with locks.held(folder, f"the notebook of stage {stage}"):
            order.refuse(run)  # before anything is journalled: a stage that was refused was not begun
        run.journal.append("stage", stage=stage, state="started", process=Process.of(os.getpid()).key)
        cells.journal_errors(run.journal, stage)
        left = [record for record in interrupted.close(run.journal) if record["changes"]]
        if left:
            show.show(show.Box("in flight when the run was interrupted; the cluster is observed afresh",
                               tuple(f"{r['stage']}: {r['shown']}" for r in left), "warn"))
    if stage not in WITHOUT_CLUSTER:
        run.admit()
        run.check_identity()
    return run
