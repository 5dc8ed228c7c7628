"""kubectl, as pure builders: each method is one kubectl verb and returns a Command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpurunbook.command import Command


@dataclass(frozen=True)
class Fed(Command):
    """A command whose stdin is a file's bytes, and which people are shown with the `< FILE` that they would type."""

    source: str = ""

    @property
    def short(self) -> str:
        return f"{super().short} < {shlex.quote(self.source)}"

    @property
    def full(self) -> str:
        return f"{super().full} < {shlex.quote(self.source)}"


@dataclass(frozen=True)
class Kubectl:
    """kubectl against one cluster: the kubeconfig and context are on every call.

    Attributes:
        program: path of the program that runs; people are shown `kubectl`.
        kubeconfig: the run's own.
        context: the context in it.
    """

    program: str
    kubeconfig: Path
    context: str

    def __call__(self, *args: str, why: str, limit: float = 60, changes: bool = True, stdin: bytes | None = None,
                 data: bool = False, usual: tuple[float, float] | None = None) -> Command:
        """Any kubectl call; the verbs below are this with their arguments spelled out."""
        return Command(
            argv=(self.program, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}", *args),
            shown=("kubectl", *args), why=why, limit=limit, changes=changes, stdin=stdin, data=data,
            usual=usual)

    def get(self, *args: str, why: str) -> Command:
        return self("get", *args, why=why, changes=False)

    def apply(self, file: Path, *, why: str, limit: float = 60) -> Command:
        return self("apply", "-f", str(file), why=why, limit=limit)

    def create(self, file: Path, *, why: str, limit: float = 60) -> Command:
        return self("create", "-f", str(file), why=why, limit=limit)

    def diff(self, file: Path) -> Command:
        """Exit code 0: the cluster has it as it stands in the file; 1: it differs; more: an error."""
        return self("diff", "-f", str(file), why="does the cluster already have it as the file says?", changes=False)

    def delete(self, kind: str, name: str, *, namespace: str = "default", limit: float = 120) -> Command:
        return self("delete", kind, name, "-n", namespace, "--ignore-not-found", why=f"remove the {kind} {name}",
                    limit=limit)

    def untaint_nodes(self, taint: str, *, selector: str = "", names: Sequence[str] = ()) -> Command:
        """`kubectl taint nodes -l SELECTOR KEY-`, or with names; for kubectl a single node without the taint is an error."""
        picked = ("-l", selector) if selector else tuple(names)
        return self("taint", "nodes", *picked, f"{taint}-", why=f"remove the taint {taint}")

    def cp_into(self, file: Path, pod: str, target: str, *, container: str, namespace: str = "default") -> Command:
        """Copy a file into a pod (needs tar there). Never used the other way: five CVEs are about pod-to-host.

        The owner is not preserved: root without the capability CHOWN cannot give a file to the laptop's uid.
        """
        return self("cp", str(file), f"{namespace}/{pod}:{target}", "-c", container, "--no-preserve=true", limit=120,
                    why=f"copy {file.name} into the pod")

    def exec(self, pod: str, *command: str, container: str, why: str, namespace: str = "default", limit: float = 60,
             changes: bool = False, data: bool = False, usual: tuple[float, float] | None = None) -> Command:
        return self("exec", "-n", namespace, pod, "-c", container, "--", *command, why=why, limit=limit,
                    changes=changes, data=data, usual=usual)

    def exec_with(self, file: Path, pod: str, *command: str, container: str, why: str, namespace: str = "default",
                  limit: float = 120) -> Fed:
        """Run a command in a pod with a local file as its stdin: the way in for a file where `kubectl cp` finds no tar."""
        args = ("exec", "-i", "-n", namespace, pod, "-c", container, "--", *command)
        made = self(*args, why=why, limit=limit, stdin=file.read_bytes())
        return Fed(made.argv, why, limit, made.shown, stdin=made.stdin, source=str(file))

    def shell(self, pod: str, *, container: str, namespace: str = "default") -> Command:
        return self("exec", "-it", "-n", namespace, pod, "-c", container, "--", "bash", why="a shell in the model pod",
                    limit=24 * 3600)
