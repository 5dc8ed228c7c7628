"""One object of a manifest, held against what the cluster has of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpurunbook import yaml_file
from gpurunbook.command import Command, failure
from gpurunbook.deployment import RUN_LABEL, Document, Manifest
from gpurunbook.errors import RunbookError

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

NAMESPACE = "default"
READERS = {"deployment": "read_namespaced_deployment", "daemonset": "read_namespaced_daemon_set"}
HIDDEN = "may not be read"
"""What `puller` answers to somebody whom the cluster does not let read DaemonSets."""


def document(run: Run, file: str) -> Document:
    """A file of manifests/model/."""
    found: Document = yaml_file.load(run.manifest("model", file))
    return found


def puller(run: Run) -> Any:
    """The DaemonSet of prepull.yaml, if it is there; HIDDEN where nobody lets us look, which is no reason to stop."""
    return there(run, "daemonset", document(run, "prepull.yaml")["metadata"]["name"], hidden=HIDDEN)


def there(run: Run, kind: str, name: str, *, hidden: Any = None) -> Any:
    """The object of that kind (a key of READERS) and name, such as a V1Deployment; None when there is none.

    Args:
        hidden: what to answer when it may not be read (403); None: that is an error.

    Raises:
        RunbookError: it cannot be read.
    """
    from kubernetes.client import ApiException
    try:
        return getattr(run.client("AppsV1Api"), READERS[kind])(name, NAMESPACE, _request_timeout=30)
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status == 403 and hidden is not None:
            return hidden
        raise RunbookError(f"the {kind} {name} cannot be read: {error.reason}", where=f"namespace {NAMESPACE}",
                           next=f"kubectl get {kind} {name} -n {NAMESPACE}") from error


def mine(run: Run, found: Any) -> bool:
    """Whether the run made it: all is its own where the cluster is, else what carries its label; never what is HIDDEN."""
    return found is not HIDDEN and (run.target.ours or (found.metadata.labels or {}).get(RUN_LABEL) == run.id)


def differs(run: Run, asked: Manifest) -> bool:
    """Whether the cluster has it otherwise than the manifest says, by `kubectl diff`. Raises CommandFailed."""
    diff = run.ask(command(run, asked, "diff", "does the cluster already have it as the file says?", changes=False), check=False)
    if diff.code not in (0, 1):
        raise failure(diff)
    return diff.code == 1


def command(run: Run, asked: Manifest, verb: str, why: str, *, changes: bool) -> Command:
    """`diff` or `apply` of the file; by stdin while the file is not there, or must not hold all of the text."""
    written = asked.text == asked.readable and (changes or (asked.path.exists() and asked.path.read_text() == asked.text))
    if written:
        return run.kubectl.apply(asked.path, why=why) if changes else run.kubectl.diff(asked.path)
    return run.kubectl(verb, "-f", "-", why=why, changes=changes, stdin=asked.text.encode())
