"""helm, as pure builders and parsers; Helm's own files live in the run folder, never in the user's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpurunbook.command import Command


@dataclass(frozen=True)
class Release:
    """One row of `helm list -o json`."""

    name: str
    status: str
    chart: str
    revision: int


@dataclass(frozen=True)
class Helm:
    """helm against one cluster.

    Attributes:
        program: path of the program that runs; people are shown `helm`.
        home: folder for Helm's repository list and chart cache.
    """

    program: str
    kubeconfig: Path
    context: str
    home: Path

    def environment(self) -> dict[str, str]:
        """The variables by which a person's helm uses the run's files too."""
        return {"HELM_CONFIG_HOME": str(self.home / "config"), "HELM_CACHE_HOME": str(self.home / "cache"),
                "HELM_DATA_HOME": str(self.home / "data")}

    def __call__(self, *args: str, why: str, limit: float = 60, changes: bool = True, data: bool = False,
                 usual: tuple[float, float] | None = None) -> Command:
        return Command(
            argv=(self.program, f"--kubeconfig={self.kubeconfig}", f"--kube-context={self.context}",
                  f"--repository-config={self.home / 'config' / 'repositories.yaml'}",
                  f"--repository-cache={self.home / 'cache' / 'repository'}", *args),
            shown=("helm", *args), why=why, limit=limit, changes=changes, data=data, usual=usual)

    def repo_add(self, name: str, url: str) -> Command:
        return self("repo", "add", name, url, "--force-update", why=f"know the chart repository {name}")

    def repo_update(self, name: str) -> Command:
        return self("repo", "update", name, why=f"read what {name} offers today")

    def upgrade_install(self, release: str, chart: str, *, namespace: str, values: Path, version: str = "",
                        limit: float = 300, usual: tuple[float, float] | None = None) -> Command:
        """Install or upgrade under a fixed name, so that a second run changes nothing.

        Without --wait: who watches the ladder sees a trouble at once, and not when helm's time is over.
        """
        pin = ("--version", version) if version else ()
        return self("upgrade", "--install", release, chart, "-n", namespace, "--create-namespace", "-f", str(values),
                    *pin, f"--timeout={limit:g}s", why=f"install the release {release}", limit=limit + 30, usual=usual)

    def list(self, namespace: str) -> Command:
        # Every state by name: Helm 3 hides some by default, and Helm 4 has no --all.
        return self("list", "-n", namespace, "--deployed", "--failed", "--pending", "--uninstalling", "-o", "json",
                    changes=False, data=True,
                    why="which releases are there, in which state?")

    def get_values(self, release: str, namespace: str) -> Command:
        return self("get", "values", release, "-n", namespace, "-o", "json", changes=False, data=True,
                    why="with which values was it installed?")

    def rollback(self, release: str, namespace: str) -> Command:
        """Back to the revision before; the way out of `pending-upgrade`."""
        return self("rollback", release, "-n", namespace, "--timeout=300s", limit=330,
                    why=f"free the release {release} from an interrupted upgrade")

    def uninstall(self, release: str, namespace: str, *, hooks: bool = True) -> Command:
        """Without hooks where it was never installed whole: a hook's pod may wait for an account that was not made."""
        return self("uninstall", release, "-n", namespace, "--ignore-not-found", *(() if hooks else ("--no-hooks",)), "--wait",
                    "--timeout=300s", why=f"remove the release {release}", limit=330)


def releases(output: str) -> list[Release]:
    """Parse `helm list -o json`. Raises ValueError or KeyError when it is not that."""
    rows: list[dict[str, Any]] = json.loads(output or "[]")
    return [Release(row["name"], row["status"], row["chart"], int(row["revision"])) for row in rows]
