"""The builders, as a table: arguments in, the exact argv and what people are shown out; and the parsers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gpurunbook import programs
from gpurunbook.command import Command
from gpurunbook.errors import ConfigError
from gpurunbook.programs import locate
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.programs.helm import Helm, Release, releases
from gpurunbook.programs.kubectl import Kubectl

KUBECTL = Kubectl("/bin/kubectl", Path("/r/kubeconfig"), "ctx")
HELM = Helm("/bin/helm", Path("/r/kubeconfig"), "ctx", Path("/r/helm"))
TO_CLUSTER = "--kubeconfig=/r/kubeconfig --context=ctx"
TO_HELM = ("--kubeconfig=/r/kubeconfig --kube-context=ctx --repository-config=/r/helm/config/repositories.yaml "
           "--repository-cache=/r/helm/cache/repository")

# command, what is shown after the program's name, whether it changes something, its limit in seconds
TABLE: list[tuple[Command, str, bool, float]] = [
    (KUBECTL.get("nodes", "-l", "a=b", why="w"), "get nodes -l a=b", False, 60),
    (KUBECTL.apply(Path("/m.yaml"), why="w"), "apply -f /m.yaml", True, 60),
    (KUBECTL.create(Path("/m.yaml"), why="w"), "create -f /m.yaml", True, 60),
    (KUBECTL.diff(Path("/m.yaml")), "diff -f /m.yaml", False, 60),
    (KUBECTL.delete("deployment", "d"), "delete deployment d -n default --ignore-not-found", True, 120),
    (KUBECTL.untaint_nodes("x/y", selector="a=b"), "taint nodes -l a=b x/y-", True, 60),
    (KUBECTL.untaint_nodes("x/y", names=["n1", "n2"]), "taint nodes n1 n2 x/y-", True, 60),
    (KUBECTL.cp_into(Path("/m.py"), "p", "/to/m.py", container="c"),
     "cp /m.py default/p:/to/m.py -c c --no-preserve=true", True, 120),
    (KUBECTL.exec("p", "ls", "-l", "a b", container="c", why="w"), "exec -n default p -c c -- ls -l 'a b'", False, 60),
    (KUBECTL.shell("p", container="c"), "exec -it -n default p -c c -- bash", True, 86400),
    (HELM.repo_add("n", "u"), "repo add n u --force-update", True, 60),
    (HELM.repo_update("n"), "repo update n", True, 60),
    (HELM.upgrade_install("r", "n/c", namespace="s", values=Path("/v.yaml"), version="1.2", limit=90),
     "upgrade --install r n/c -n s --create-namespace -f /v.yaml --version 1.2 --timeout=90s", True, 120),
    (HELM.upgrade_install("r", "/c", namespace="s", values=Path("/v.yaml")),
     "upgrade --install r /c -n s --create-namespace -f /v.yaml --timeout=300s", True, 330),
    (HELM.list("s"), "list -n s --deployed --failed --pending --uninstalling -o json", False, 60),
    (HELM.get_values("r", "s"), "get values r -n s -o json", False, 60),
    (HELM.uninstall("r", "s"), "uninstall r -n s --ignore-not-found --wait --timeout=300s", True, 330),
]


@pytest.mark.parametrize(("command", "shown", "changes", "limit"), TABLE, ids=lambda v: v if isinstance(v, str) else "")
def test_every_call_names_its_cluster_and_shows_what_a_person_types(
        command: Command, shown: str, changes: bool, limit: float) -> None:
    program = Path(command.argv[0]).name
    fixed = TO_CLUSTER if program == "kubectl" else TO_HELM
    assert command.short == f"{program} {shown}"
    assert command.full == f"/bin/{program} {fixed} {shown}"
    assert (command.changes, command.limit) == (changes, limit)
    assert command.why


def test_eksctl_makes_and_deletes_a_cluster() -> None:
    create = Eksctl("/bin/eksctl").create_cluster(Path("/c.yaml"), Path("/r/kubeconfig"))
    assert create.full == ("/bin/eksctl create cluster --config-file=/c.yaml --kubeconfig=/r/kubeconfig "
                           "--install-nvidia-plugin=false")
    assert create.short == ("eksctl create cluster --config-file=./cluster.yaml "
                            "--kubeconfig=./kubeconfig.cluster.yaml --install-nvidia-plugin=false")
    delete = Eksctl("/bin/eksctl").delete_cluster("c", "r")
    assert delete.full == "/bin/eksctl delete cluster --name=c --region=r --wait --disable-nodegroup-eviction"
    assert delete.short == "eksctl delete cluster --name=c --region=r --wait --disable-nodegroup-eviction"


def test_helms_own_files_are_in_the_run(tmp_path: Path) -> None:
    home = Helm("helm", tmp_path / "kubeconfig", "c", tmp_path / "helm")
    assert all(Path(value).is_relative_to(tmp_path) for value in home.environment().values())
    assert set(home.environment()) == {"HELM_CONFIG_HOME", "HELM_CACHE_HOME", "HELM_DATA_HOME"}


def test_a_listing_of_releases_is_read() -> None:
    row = {"name": "gpu-operator", "namespace": "s", "revision": "2", "updated": "2026-11-22 12:00:00 +0000 UTC",
           "status": "pending-upgrade", "chart": "gpu-operator-v26.3.0", "app_version": "v26.3.0"}
    assert releases(json.dumps([row])) == [Release("gpu-operator", "pending-upgrade", "gpu-operator-v26.3.0", 2)]
    assert releases("[]") == releases("") == []


@pytest.mark.parametrize("output", ["Error: x", "[{}]", '[{"name": "x"}]', "{"])
def test_what_is_no_listing_is_an_error(output: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        releases(output)


# Finding programs

@pytest.fixture
def helm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Put a `helm` that says a version on the PATH and, or, into the cache."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:{os.defpath}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def put(where: str, says: str, mode: int = 0o755) -> Path:
        folder = tmp_path / ("path" if where == "PATH" else f"cache/gpurunbook/tools/{where}/bin")
        folder.mkdir(parents=True)
        (folder / "helm").write_text(f"#!/bin/sh\n{says}\n")
        (folder / "helm").chmod(mode)
        return folder / "helm"

    return put


def test_the_path_is_asked_first(helm) -> None:  # type: ignore[no-untyped-def]
    helm("cached", "echo v4.2.4")
    mine = helm("PATH", "echo v3.19.0+gabc")
    found = programs.find("helm")
    assert (found.path, found.version, found.how, found.fits) == (str(mine), "3.19.0", "PATH", True)


@pytest.mark.parametrize(("says", "why"), [
    ("echo v3.17.9", "is 3.17.9; needs 3.18 <= version < 5"), ("echo v5.0.0", "is 5.0.0"),
    ("echo hello", "told no version (exit 0)"), ("echo v4.2.4; exit 1", "told no version (exit 1)")])
def test_one_that_does_not_fit_is_passed_over_and_said(helm, says: str, why: str) -> None:  # type: ignore[no-untyped-def]
    mine = helm("PATH", says)
    found = programs.find("helm")
    assert (found.fits, found.path) == (False, "")
    assert str(mine) in found.how
    assert why in found.how
    built = helm("cached", "echo v4.2.4")
    assert (programs.find("helm").path, programs.find("helm").how) == (str(built), "cache")


def test_one_that_hangs_is_ended(helm, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    helm("PATH", "sleep 60")
    assert locate.on_path(programs.table()["helm"], limit_s=0.2).note.endswith("did not tell its version within 0.2 s")


def test_an_absent_program_is_an_answer_and_an_unknown_one_an_error(helm) -> None:  # type: ignore[no-untyped-def]
    assert programs.find("kwokctl").how == "not on the PATH"
    assert programs.find("kwokctl").get
    with pytest.raises(ConfigError, match="unknown program 'kubctl'"):
        programs.find("kubctl")
