"""What came out of the model's pod through `kubectl exec`, whether it is to be believed, and what became of the pod.

An exit code proves little: when the stream between kubectl and the container breaks, some versions still end with 0. So a
program that runs in the pod is given a text of its own for each call, and prints it last: the sentinel.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from gpurunbook import show
from gpurunbook.command import Command, Result, failure
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.programs.kubectl import Kubectl

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

OPTION = "--sentinel="
SETTLE = 5.0
"""Seconds until a kubelet has told the API server that a container ended: it looks once a second, and writes then."""
FROM_THE_PROGRAM = "command terminated with exit code"
"""What kubectl says when the exit code is the program's; without it kubectl itself failed."""
KILLED = 137
LOOK = (
    'import hashlib, json, os, pathlib, shutil, sys; f = pathlib.Path(sys.argv[1]); d = f.parent; there = d.is_dir(); '
    'mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}; '
    'mount = next(p for p in map(str, (d, *d.parents)) if p in mounts); print(json.dumps({'
    '"digest": hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "", "tar": bool(shutil.which("tar")), '
    '"folder": there, "writable": os.access(d, os.W_OK), "user": os.getuid(), "owner": d.stat().st_uid if there else -1, '
    '"read_only": mount if there and os.statvfs(d).f_flag & os.ST_RDONLY else ""})); print(sys.argv[2].partition("=")[2])')
"""Asked in one call, since each takes 0.15 s."""
CHECKED = 'hashlib.sha256(data).hexdigest() == sha or sys.exit("it arrived damaged"); '
RENAME = ('import hashlib, os, sys; path, sha = sys.argv[1:]; data = open(path + ".new", "rb").read(); '
          f'{CHECKED}os.replace(path + ".new", path)')
PUT = ('import hashlib, os, sys; path, sha = sys.argv[1:]; data = sys.stdin.buffer.read(); '
       f'{CHECKED}open(path + ".new", "wb").write(data); os.replace(path + ".new", path)')
READ = 'import sys; sys.stdout.buffer.write(open(sys.argv[1], "rb").read())'
"""All in Python, which an image has to have if main.py is to run in it; sh, sha256sum, mv and cat it may well lack."""
MAIN = "main.py"
"""The one program that tells its own errors: they are believed at once."""


@dataclass(frozen=True)
class Place:
    """What is known of a file's place in the pod.

    Attributes:
        digest: SHA-256 of the file, "" when there is none.
        tar: `kubectl cp` would work.
        folder: the file's folder is there; writable: the container's user may write to it.
        user, owner: the uids of the container's user, and of the folder (-1: there is none).
        read_only: the read-only mount that the folder lies in, "/" for the root file system; "" when it is none.
    """

    digest: str
    tar: bool
    folder: bool
    writable: bool
    user: int
    owner: int
    read_only: str


@dataclass(frozen=True)
class Life:
    """One look at a pod and at one container of it.

    Attributes:
        alive: the container runs, and nobody has asked for the pod to be deleted.
        ended: how the container ended last, "" when it never did.
        failed: why the whole pod failed, such as an eviction.
        memory: the container's limit, "" without one.
    """

    uid: str
    restarts: int
    alive: bool
    ended: str = ""
    failed: str = ""
    deleting: bool = False
    memory: str = ""


# Whether what came back is whole

def sentinel() -> str:
    """A text that no earlier call has printed."""
    return f"end-{secrets.token_hex(8)}"


def look(kubectl: Kubectl, pod: str, container: str, path: str) -> Command:
    """One call that asks for all of `Place`."""
    return kubectl.exec(pod, "python", "-c", LOOK, path, f"{OPTION}{sentinel()}", container=container,
                        why="what is in the pod, and what can it do?")


def place(result: Result) -> Place:
    """The answer to `look`.

    Raises:
        CommandFailed: exec failed, or the image has no Python.
        RunbookError: it did not come back whole.
    """
    if result.code != 0:
        missing = "executable file not found" in result.stderr
        raise CommandFailed(f"the pod cannot be asked what is in it: {result.tail}", result=result, where=result.command.full,
                            next="take an image with Python: main.py cannot run without it" if missing else
                            "run this cell again; `gpurunbook gpu` tells more")
    lines = said(result)
    try:
        return TypeAdapter(Place).validate_json(lines[-1], strict=True)
    except (IndexError, ValueError) as error:
        raise RunbookError(f"what the pod says of itself cannot be read: {type(error).__name__}", where=result.command.full,
                           next=f"run it by hand: {result.command.short}") from error


def said(result: Result) -> list[str]:
    """The lines that a program printed before its sentinel.

    Raises:
        CommandFailed: exit code not 0.
        RunbookError: exit code 0, and the sentinel is not its last line.
    """
    if result.code != 0:
        raise failure(result)
    lines = result.stdout.splitlines()
    if not lines or lines[-1] != _asked(result.command):
        raise RunbookError("the stream broke before the program's end: its exit code is not believed",
                           where=str(result.log or result.command.full),
                           next="run this cell again; `gpurunbook gpu` tells more")
    return lines[:-1]


def _asked(command: Command) -> str:
    """The sentinel that a command asks for; what no line can be when it asks for none."""
    return next((arg.removeprefix(OPTION) for arg in command.argv if arg.startswith(OPTION)), "") or "\n"


def unwritable(place: Place, pod: str, folder: str) -> RunbookError:
    """The error for a place where nothing can be written, with what would mend it."""
    look, mount = f"kubectl get pod {pod} -o yaml", f"mount an emptyDir at {folder}"
    if not place.folder:
        return RunbookError(f"the pod has no folder {folder}", where=look, next=f"take an image that has it, or {mount}")
    if place.read_only == "/":
        return RunbookError(f"{folder} is read-only in the pod: its root file system is", where=look,
                            next=f"take readOnlyRootFilesystem out of manifests/model/deployment.yaml, or {mount}; then run 06")
    if place.read_only:
        return RunbookError(f"{folder} is read-only in the pod: it lies in the mount {place.read_only}", where=look,
                            next=f"take readOnly off that volumeMount, or {mount}; then run 06")
    return RunbookError(f"{folder} belongs to uid {place.owner}, and the container runs as uid {place.user}, which may not "
                        "write there", where=look, next=f"set runAsUser: {place.owner} in manifests/model/deployment.yaml, or "
                        f"{mount}; then run 06")


# What became of the pod

def life(run: Run, pod: str, container: str, namespace: str = "default") -> Life | None:
    """The pod as it is now; None when there is none of that name. Raises RunbookError when it cannot be asked."""
    from kubernetes.client import ApiException
    try:
        return _life(run.core.read_namespaced_pod(pod, namespace, _request_timeout=30), container)
    except ApiException as error:
        if error.status == 404:
            return None
        raise RunbookError(f"the pod {pod} cannot be read: {error.reason}", where=f"namespace {namespace}",
                           next=f"kubectl get pod {pod} -n {namespace}") from error


def _life(item: Any, container: str) -> Life:
    status = next((s for s in item.status.container_statuses or [] if s.name == container), None)
    state, last = (status.state, status.last_state) if status else (None, None)
    ends = [one.terminated for one in (state, last) if one and one.terminated]
    limits = [c.resources.limits or {} for c in item.spec.containers if c.name == container and c.resources]
    deleting = item.metadata.deletion_timestamp is not None
    return Life(
        uid=item.metadata.uid, restarts=status.restart_count if status else 0, deleting=deleting,
        alive=bool(state and state.running) and not deleting,
        ended=f"{ends[0].reason}, exit code {ends[0].exit_code}" if ends else "",
        failed=": ".join(filter(None, (item.status.reason, item.status.message))) if item.status.phase == "Failed" else "",
        memory=str(limits[0].get("memory", "")) if limits else "")


def became(before: Life, now: Life | None) -> str:
    """What happened to the pod between two looks, "" when nothing did."""
    if now is None:
        return "was deleted"
    if now.uid != before.uid:
        return "was replaced by another of the same name"
    if now.failed:
        return f"failed: {now.failed}"
    if now.deleting:
        return "is being deleted"
    if now.restarts != before.restarts or not now.alive:
        return f"was restarted: {now.ended or 'its container is not running'}"
    return ""


def explain(result: Result, name: str, before: Life, now: Callable[[], Life | None], *, when: str, what: str = MAIN,
            settle: float = SETTLE, poll: float = 0.2) -> RunbookError | None:
    """Why an exec went wrong, as far as its pod tells; None when the pod is as it was, and says nothing.

    Args:
        before: the pod when it was last known to be well.
        now: looks at it afresh; for up to `settle` seconds, unless MAIN has told an error of its own.
        when: what we were at, such as "while main.py ran".
        what: the program that was run.
    """
    own = what == MAIN and FROM_THE_PROGRAM in result.stderr and result.code != KILLED
    deadline = time.monotonic() + (0 if own else settle)
    while not (happened := became(before, after := now())) and time.monotonic() < deadline:
        time.sleep(poll)
    if happened:
        return gone(name, happened, before, after, when)
    if result.code == KILLED:
        return RunbookError(f"{what} was killed (exit code {KILLED}), and the pod {name} does not say by whom; {_limit(before)}",
                            where=_describe(name), next=f"kubectl exec -n default {name} -- cat /sys/fs/cgroup/memory.events "
                                                        "(oom_kill above 0: memory it was)")
    return None


def gone(name: str, happened: str, before: Life, after: Life | None, when: str) -> RunbookError:
    """The error for what `became` says of a pod."""
    if after and "OOMKilled" in after.ended:
        return RunbookError(f"out of memory: the pod {name} {happened}, {when}; {_limit(before)}", where=_describe(name),
                            next="raise resources.limits.memory in manifests/model/deployment.yaml and run notebook 06, or ask "
                                 "for less: -p precisions=int8")
    again = "this notebook again from its start" if after and after.uid == before.uid and not after.failed else \
        "notebooks/06_model.ipynb, then this one from its start"
    return RunbookError(f"the pod {name} {happened}, {when}; what was copied into it is gone", where=_describe(name),
                        next=f"run {again}")


def _limit(life: Life) -> str:
    return f"its memory limit is {life.memory}" if life.memory else "it has no memory limit: the node had no more"


def _describe(name: str) -> str:
    return f"kubectl describe pod {name} -n default"


def table(place: Place, digest: str) -> show.Table:
    """What can be done in the pod; `digest` is the SHA-256 that main.py should have there."""
    there = "absent" if not place.digest else "ours" if place.digest == digest else "another"
    folder = "writable" if place.writable else "read-only" if place.read_only else "not writable" if place.folder else "absent"
    said = f"{there}, SHA-256 {place.digest[:12]}" if place.digest else there
    return show.Table(("asked in the pod", "found"),
                      [("main.py", said), ("tar", "there" if place.tar else "absent"), ("its folder", folder)],
                      states=["pass" if good else bad for good, bad in (
                          (there == "ours", "warn"), (place.tar, "warn"), (place.writable, "fail"))])
