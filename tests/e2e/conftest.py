"""Real rehearsal clusters for the tests: started by the product's own command line, in a checkout with a long path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpurunbook import processes, programs
from gpurunbook.journal import Journal, Record
from gpurunbook.programs.helm import Helm

REPOSITORY = Path(__file__).parents[2]
SENTINEL = "this is the user's own, and not to be touched\n"


@dataclass
class Checkout:
    """A copy of what a user works with: notebooks, manifests, cluster.yaml; and a home of its own."""

    root: Path
    home: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __call__(self, *args: str, check: bool = True, timeout: float = 240, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run `gpurunbook ARGS` here."""
        done = subprocess.run(self.argv(*args), cwd=self.root, env=self.environment | extra, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=timeout, check=False)
        if check:
            assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def argv(self, *args: str) -> list[str]:
        return [sys.executable, "-m", "gpurunbook", *args]

    def folder(self, run_id: str) -> Path:
        return self.root / "runs" / run_id

    def records(self, run_id: str) -> list[Record]:
        return list(Journal(self.folder(run_id)).records())


@dataclass
class Cluster:
    """A provisioned rehearsal cluster, its programs bound to the run's kubeconfig."""

    checkout: Checkout
    run_id: str

    @property
    def folder(self) -> Path:
        return self.checkout.folder(self.run_id)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    def kubectl(self, *args: str, input: str | bytes | None = None, check: bool = True,
                timeout: float = 60) -> subprocess.CompletedProcess[bytes]:
        return self._call("kubectl", (f"--kubeconfig={self.kubeconfig}", *args), input, check, timeout)

    def helm(self, *args: str, check: bool = True, timeout: float = 120) -> subprocess.CompletedProcess[bytes]:
        return self._call("helm", (f"--kubeconfig={self.kubeconfig}", *args), None, check, timeout)

    @property
    def environment(self) -> dict[str, str]:
        """What the run's `export` line sets, for a person's own calls."""
        helm = Helm("", self.kubeconfig, "", self.folder / "helm").environment()
        return self.checkout.environment | helm | {"KUBECACHEDIR": str(self.folder / "cache")}

    def _call(self, program: str, args: tuple[str, ...], input: str | bytes | None, check: bool,
              timeout: float) -> subprocess.CompletedProcess[bytes]:
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run([programs.find(program).path, *args], input=data, capture_output=True, check=False,
                              env=self.environment, timeout=timeout)
        if check:
            assert done.returncode == 0, f"{program} {args}: {done.returncode}\n{done.stderr.decode()}"
        return done


def make_checkout(folder: Path) -> Checkout:
    # Notebooks and manifests are found from the working folder, so a copy is a checkout.
    root = folder / ("a-long-path-" * 12)[:150 - len(str(folder)) % 50] / "gpurunbook"
    root.mkdir(parents=True)
    for name in ("notebooks", "manifests", "tests/data"):
        shutil.copytree(REPOSITORY / name, root / name)
    shutil.copy(REPOSITORY / "cluster.yaml", root)
    assert len(str(root)) >= 150
    home = folder / "home"
    for name in (".kube/config", ".config/helm/repositories.yaml", ".cache/helm/sentinel", ".kwok/sentinel"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(SENTINEL)
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "XDG_CACHE_HOME": cache, "LANG": "C.UTF-8",
                   "GPURUNBOOK_CANARY": "a-secret-of-the-host"}
    return Checkout(root, home, environment)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout under a path of 150 characters; nothing of its runs may be alive at the end."""
    made = make_checkout(tmp_path_factory.mktemp("checkout"))
    yield made
    left = [p for p in processes.of_runs() if p.run and p.run.is_relative_to(made.root)]
    processes.end(left)
    assert not left, f"still alive after the tests: {left}"


@pytest.fixture(scope="session")
def cluster(checkout: Checkout) -> Iterator[Cluster]:
    """A cluster with its nodes free of the taint and no operator installed."""
    checkout("run", "--run-id", "shared", "--until", "taint")
    yield Cluster(checkout, "shared")
    done = checkout("teardown", "--run-id", "shared", check=False)
    assert done.returncode == 0, done.stderr
