"""Who asks the rehearsal's API server: its administrator, or in some stages a user who may do no more than they need.

    python -m gpurunbook.targets.rehearsal.access --kubeconfig=FILE --pki=FOLDER

makes that user: a client certificate signed by the cluster's CA, and a second context in the kubeconfig. The current one
stays the administrator's. What the user may do stands in manifests/rbac/runbook-model.yaml.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpurunbook import yaml_file
from gpurunbook.command import Command
from gpurunbook.errors import RunbookError
from gpurunbook.files import to_yaml, write
from gpurunbook.plan import Plan

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

MODULE = "gpurunbook.targets.rehearsal.access"
MANIFEST = ("rbac", "runbook-model.yaml")
NAMESPACE = "default"
GROUP = "gpurunbook-model"
"""The user's group, to which the manifest binds its roles; the user is called so too."""
POD_SECURITY = ("pod-security.kubernetes.io/enforce", "baseline")
"""Without it whoever may create a Deployment may create a privileged pod, and own its node."""
LOOK_SECONDS = 10
READERS = {"ClusterRole": "read_cluster_role", "ClusterRoleBinding": "read_cluster_role_binding",
           "Role": "read_namespaced_role", "RoleBinding": "read_namespaced_role_binding"}


def context(admin: str) -> str:
    """The user's context, beside the administrator's."""
    return f"{admin}-model"


def plan(run: Run, pki: Path) -> Plan:
    """What is missing of the role and its user.

    Args:
        pki: the folder with the cluster's ca.crt and ca.key; the user's certificate and key go there too.
    """
    lacking = missing(run)
    if not lacking:
        return run.plan((), f"those of {GROUP}, who has the role in manifests/{'/'.join(MANIFEST)} and no other")
    label, make = "=".join(POD_SECURITY), ("-m", MODULE, f"--kubeconfig={run.kubeconfig}", f"--pki={pki}")
    return run.plan([
        run.kubectl.apply(run.manifest(*MANIFEST), why="the role that is enough for 03 and 06 to 08"),
        run.kubectl("label", "namespace", NAMESPACE, label, "--overwrite",
                    why="no privileged pods there: who may create a Deployment must not own its node"),
        Command((sys.executable, *make), shown=("python", *make), limit=20,
                why="make a user who has that role and no other: a second context in the run's kubeconfig"),
    ], f"03 and 06 to 08 need no administrator: a role and a user for them; missing: {', '.join(lacking)}")


def missing(run: Run) -> list[str]:
    """What the cluster lacks of the manifest and the label, and the kubeconfig of the user; all, where nothing answers."""
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError
    documents, (label, value) = yaml_file.load_all(run.manifest(*MANIFEST)), POD_SECURITY
    if not run.kubeconfig.exists():
        return ["the cluster"]
    try:
        labels = run.core.read_namespace(NAMESPACE, _request_timeout=LOOK_SECONDS).metadata.labels or {}
        found = [f"{d['kind']} {d['metadata']['name']}" for d in documents if not _there(run, d)]
    except (ApiException, HTTPError) as error:
        return [f"an answer of the API server ({type(error).__name__})"]
    return [*found, *([f"{label}={value}"] if labels.get(label) != value else []),
            *([f"the user {GROUP}"] if not _has(run.kubeconfig, GROUP) else [])]


def make_user(kubeconfig: Path, pki: Path) -> None:
    """Sign a certificate and add its user and context. What is there of them is replaced; nothing else is changed.

    Raises:
        RunbookError: there is no cluster to be a user of.
    """
    from gpurunbook.targets.rehearsal.pki import sign_client
    try:
        config: dict[str, Any] = yaml_file.load(kubeconfig)
        admin = config["current-context"]
        cluster = next(c["context"]["cluster"] for c in config["contexts"] if c["name"] == admin)
        certificate, key = sign_client(pki, GROUP, GROUP)
        # Inside the kubeconfig, which is replaced whole: a kill between two files would leave a pair that does not match.
        pair = {f"client-{what}-data": base64.b64encode(file.read_bytes()).decode()
                for what, file in (("certificate", certificate), ("key", key))}
    except (OSError, ValueError, LookupError, TypeError, StopIteration) as error:
        raise RunbookError(f"no user can be made: {type(error).__name__}: {error}", where=str(kubeconfig),
                           next="run notebooks/02_provision.ipynb again") from error
    for kind, name, value in (("users", GROUP, pair),
                              ("contexts", context(admin), {"cluster": cluster, "user": GROUP})):
        config[kind] = [item for item in config[kind] if item["name"] != name] + [{"name": name, kind[:-1]: value}]
    write(kubeconfig, to_yaml([config]))


def _has(kubeconfig: Path, user: str) -> bool:
    config = yaml_file.load(kubeconfig) or {}
    return any(c["context"]["user"] == user for c in config.get("contexts") or ())


def _there(run: Run, document: dict[str, Any]) -> bool:
    """Whether the cluster has a role or a binding as a document says."""
    from kubernetes.client import ApiException
    client, metadata = run.client("RbacAuthorizationV1Api"), document["metadata"]
    where = (metadata["name"], metadata["namespace"]) if "namespace" in metadata else (metadata["name"],)
    try:
        found = getattr(client, READERS[document["kind"]])(*where, _request_timeout=LOOK_SECONDS)
    except ApiException as error:
        if error.status != 404:
            raise
        return False
    has = client.api_client.sanitize_for_serialization(found)
    return all(has.get(key) == document.get(key) for key in ("rules", "roleRef", "subjects"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__)
    for name in ("kubeconfig", "pki"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    chosen = parser.parse_args(arguments)
    try:
        make_user(chosen.kubeconfig, chosen.pki)
    except RunbookError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
