"""Whatever writes to a cluster is guarded by its identity: by what the command is, so that nobody can forget it."""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest

import gpurunbook
from gpurunbook.command import Command
from gpurunbook.programs.helm import Helm
from gpurunbook.programs.kubectl import Kubectl

PACKAGE = Path(gpurunbook.__file__).parent
FILE = Path(__file__)
KUBECTL, HELM = Kubectl("/x/kubectl", Path("/k"), "c"), Helm("/x/helm", Path("/k"), "c", Path("/h"))
WRITES = [
    KUBECTL.apply(FILE, why=""), KUBECTL.create(FILE, why=""), KUBECTL.delete("pod", "x"),
    KUBECTL.untaint_nodes("t", selector="a=b"), KUBECTL.cp_into(FILE, "p", "/x", container="c"),
    KUBECTL.exec("p", "mv", "a", "b", container="c", why="", changes=True), KUBECTL.shell("p", container="c"),
    KUBECTL.exec_with(FILE, "p", "sh", container="c", why=""), KUBECTL("patch", "node", "n", why=""),
    HELM.upgrade_install("r", "c", namespace="n", values=FILE), HELM.rollback("r", "n"), HELM.uninstall("r", "n"),
    Command(("helm", "install"), why="", limit=1)]
READS = [KUBECTL.get("nodes", why=""), KUBECTL.diff(FILE), KUBECTL.exec("p", "ls", container="c", why=""),
         HELM.list("n"), HELM.get_values("r", "n")]
BESIDE = {
    "programs/eksctl.py": "AWS's, by name and region: the account is checked (Eks.permit)",
    "programs/helm.py": "helm",
    "programs/kubectl.py": "kubectl",
    "targets/eks/ending.py": "rm of the run's own kubeconfig",
    "targets/eks/resume.py": "AWS's: the account is checked (Eks.permit)",
    "targets/eks/sweep.py": "AWS's: the account is checked (Eks.permit)",
    "targets/existing.py": "copies a context, and removes the copy",
    "targets/rehearsal/access.py": "a certificate and a context in the run's own files",
    "targets/rehearsal/cluster.py": "kwokctl, by the run's name in the run's own folder; processes of the run, by pid; its files",
    "drills/acts.py": "the process of a drill, on this machine",
    "targets/rehearsal/weights_package.py": "pip, into a temporary folder of this machine",
    "bounded.py": "what a kubeconfig signs in with",
}
"""Where commands are made, and what stands for the guard where the program is neither kubectl nor helm."""


@pytest.mark.parametrize("command", WRITES, ids=lambda c: " ".join(c.shown[:2]))
def test_a_write_is_guarded(command: Command) -> None:
    assert command.guarded


@pytest.mark.parametrize("command", READS, ids=lambda c: " ".join(c.shown[:2]))
def test_a_look_is_not(command: Command) -> None:
    assert not command.guarded


def test_nobody_can_say_that_a_command_is_not() -> None:
    assert "guarded" not in {field.name for field in fields(Command)}


def test_every_builder_of_kubectl_and_helm_that_changes_something_is_tried_above() -> None:
    """A new verb is put into WRITES or READS, or this fails."""
    verbs = {name for kind in (Kubectl, Helm) for name in vars(kind) if not name.startswith("_")} - {"environment"}
    named = {"apply", "create", "delete", "untaint_nodes", "cp_into", "exec", "shell", "exec_with", "upgrade_install", "rollback",
             "uninstall", "get", "diff", "list", "get_values", "program", "kubeconfig", "context", "home"}
    assert verbs - named == {"repo_add", "repo_update"}, "these two write Helm's own files in the run folder"


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_commands_are_made_only_where_it_is_known_what_guards_them() -> None:
    made = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") for call in calls(path)
            if ast.unparse(call.func) in ("Command", "command.Command")}
    assert made == BESIDE.keys()


def test_no_client_writes() -> None:
    """Programs write, clients read: no call of the `kubernetes` client but the pod host's own is a write."""
    verbs = ("create_", "patch_", "replace_", "delete_", "connect_")
    writes = [f"{path.relative_to(PACKAGE)}: {ast.unparse(call.func)}" for path in PACKAGE.rglob("*.py") for call in calls(path)
              if isinstance(call.func, ast.Attribute) and call.func.attr.startswith(verbs)
              and ("core" in ast.unparse(call.func) or "client(" in ast.unparse(call.func))]
    assert writes == []


def test_only_run_and_the_drills_start_what_a_plan_holds() -> None:
    """Both ask for the identity first; a third place would not."""
    starters = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") for call in calls(path)
                if ast.unparse(call.func) in ("run_command", "command.run") or
                (ast.unparse(call.func) == "run" and re.search(r"gpurunbook\.command import .*\brun$", path.read_text(), re.M))}
    assert starters == {"runbook.py", "drills/acts.py", "targets/existing.py", "bounded.py",
                        "targets/rehearsal/weights_package.py"}
