"""eksctl, as pure functions: commands to build, and its schema to check cluster.yaml against."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from platformdirs import user_cache_path

from gpurunbook.command import Command

if TYPE_CHECKING:
    from fastjsonschema import JsonSchemaValueException

SCHEMA = Path(__file__).with_name("eksctl_schema.json")
"""What `eksctl utils schema` prints (0.231), without its HTML descriptions."""


@dataclass(frozen=True)
class Eksctl:
    """Builds eksctl commands. `program` is the path that runs; people are shown `eksctl`."""

    program: str = "eksctl"

    def create_cluster(self, config_file: Path, kubeconfig: Path, *, shown_config: str = "./cluster.yaml",
                       shown_kubeconfig: str = "./kubeconfig.cluster.yaml") -> Command:
        """Create the control plane and every node group of a config file (12 to 20 minutes on AWS).

        NVIDIA's plug-in is left to the GPU operator: two device plug-ins on one node fight (eksctl#8858).
        """
        verb, rest = ("create", "cluster"), ("--install-nvidia-plugin=false",)
        return Command(argv=(self.program, *verb, f"--config-file={config_file}", f"--kubeconfig={kubeconfig}", *rest),
                       shown=("eksctl", *verb, f"--config-file={shown_config}", f"--kubeconfig={shown_kubeconfig}", *rest),
                       why="create the EKS control plane and both node groups", limit=90 * 60, usual=(12 * 60, 21 * 60))

    def create_nodegroup(self, config_file: Path, *groups: str, shown_config: str = "./cluster.yaml") -> Command:
        """Create some groups of a config file in a cluster that is there."""
        rest = (f"--include={','.join(groups)}", "--install-nvidia-plugin=false")
        return self._file(("create", "nodegroup"), config_file, shown_config, *rest, limit=60 * 60, usual=(3 * 60, 6 * 60),
                          why=f"create the node group{'s'[:len(groups) - 1]} {', '.join(groups)}")

    def create_addon(self, name: str, cluster: str, region: str) -> Command:
        """Install one of EKS's add-ons, as `create cluster` would have."""
        return self._named(("create", "addon"), f"--name={name}", f"--cluster={cluster}", f"--region={region}",
                           why=f"install the add-on {name}", limit=20 * 60, usual=(20, 120))

    def delete_nodegroup(self, name: str, cluster: str, region: str) -> Command:
        """Delete one group's stack. Its nodes are not drained: it failed, and they may never have joined."""
        return self._named(("delete", "nodegroup"), f"--cluster={cluster}", f"--name={name}", f"--region={region}",
                           "--drain=false", "--wait", why=f"delete the failed stack of node group {name}", limit=30 * 60,
                           usual=(2 * 60, 6 * 60))

    def delete_cluster(self, name: str, region: str) -> Command:
        """Delete the cluster and wait for it; a PodDisruptionBudget must not stop it (eksctl#5855)."""
        return self._named(("delete", "cluster"), f"--name={name}", f"--region={region}", "--wait",
                           "--disable-nodegroup-eviction", why=f"delete the cluster {name}, its node groups and stacks",
                           limit=60 * 60, usual=(10 * 60, 15 * 60))

    def try_account(self, name: str, region: str, version: str, kubeconfig: Path, tags: dict[str, str]) -> Command:
        """The tutorial's first step: a throw-away cluster with two nodes."""
        flat = ",".join(f"{key}={value}" for key, value in tags.items())
        return self._named(("create", "cluster"), f"--name={name}", f"--region={region}", f"--version={version}", "--nodes=2",
                           f"--tags={flat}", f"--kubeconfig={kubeconfig}",
                           why=f"try the account: create the throw-away cluster {name}", limit=90 * 60, usual=(12 * 60, 21 * 60))

    def write_kubeconfig(self, name: str, region: str, kubeconfig: Path) -> Command:
        """Write a cluster's kubeconfig, which `create cluster` does only after all its node groups."""
        return replace(self._named(("utils", "write-kubeconfig"), f"--cluster={name}", f"--region={region}",
                                   f"--kubeconfig={kubeconfig}", why="write the run's own kubeconfig", limit=120,
                                   usual=(2, 10)), changes=False)

    def _file(self, verb: tuple[str, str], config_file: Path, shown_config: str, *rest: str, why: str, limit: float,
              usual: tuple[float, float]) -> Command:
        return Command(argv=(self.program, *verb, f"--config-file={config_file}", *rest), why=why, limit=limit, usual=usual,
                       shown=("eksctl", *verb, f"--config-file={shown_config}", *rest))

    def _named(self, verb: tuple[str, str], *rest: str, why: str, limit: float, usual: tuple[float, float]) -> Command:
        return Command(argv=(self.program, *verb, *rest), why=why, limit=limit, usual=usual, shown=("eksctl", *verb, *rest))


@cache
def _validate() -> Callable[[Any], Any]:
    # Compiled in 0.2 s and needed once, so not at import; jsonschema takes 0.9 s to import beside JupyterLab.
    import fastjsonschema
    schema = json.loads(SCHEMA.read_text())
    for definition in schema["definitions"].values():
        if "properties" in definition:
            definition["type"] = "object"  # eksctl's schema leaves it unsaid, and null or text would pass
    check: Callable[[Any], Any] = fastjsonschema.compile(schema, use_default=False)
    return check


def schema_problem(document: dict[str, Any]) -> tuple[str, str] | None:
    """What eksctl's schema objects to first, as (key, problem); None when the document passes.

    What has passed is remembered by its hash in the user's cache: every notebook of a walk asks again.
    """
    from fastjsonschema import JsonSchemaValueException
    seen = SCHEMA.read_bytes() + repr(document).encode(errors="replace")
    passed = user_cache_path("gpurunbook") / "passed" / sha256(seen).hexdigest()
    if passed.exists():
        return None
    try:
        _validate()(document)
    except JsonSchemaValueException as error:
        return _explain(error)
    with suppress(OSError):  # a cache that cannot be written only costs time
        passed.parent.mkdir(parents=True, exist_ok=True)
        passed.touch()
    return None


def _explain(error: JsonSchemaValueException) -> tuple[str, str]:
    path = (error.name or "").removeprefix("data").lstrip(".")
    if error.rule == "additionalProperties":
        known = list(error.definition["properties"])
        unknown = next(key for key in error.value if key not in known)
        close = difflib.get_close_matches(str(unknown), known, 1)
        some = "known here: " + ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        return f"{path}.{unknown}".lstrip("."), f"unknown key; {f'did you mean {close[0]!r}?' if close else some}"
    if error.rule == "type":
        return path, f"expected {_words(error.rule_definition)}, found {_short(error.value)}"
    if error.rule == "enum":
        return path, f"expected one of {', '.join(map(str, error.rule_definition))}, found {_short(error.value)}"
    if error.rule == "required":
        missing = next(key for key in error.rule_definition if key not in error.value)
        close = difflib.get_close_matches(missing, map(str, error.value), 1, 0.8)
        return (f"{path}.{missing}".lstrip("."),
                "expected a value, the key is missing" + (f"; is {close[0]!r} meant to be it?" if close else ""))
    return path, error.message[:200]


def _words(types: str | list[str]) -> str:
    names = {"object": "a mapping", "array": "a list", "string": "text", "integer": "a whole number",
             "boolean": "true or false", "number": "a number"}
    return " or ".join(names.get(t, t) for t in ([types] if isinstance(types, str) else types))


def _short(value: Any) -> str:
    text = json.dumps(value, default=str, skipkeys=True)
    return text if len(text) <= 60 else text[:57] + "..."
