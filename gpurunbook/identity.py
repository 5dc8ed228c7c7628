"""Which cluster is this? Server, SHA-256 of its CA, and the UID of kube-system; a context's name proves nothing."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpurunbook import yaml_file
from gpurunbook.errors import RunbookError

ANSWER_SECONDS = 10


def read(kubeconfig: Path, context: str, core: Callable[[], Any] | None = None, known: str = "") -> dict[str, str]:
    """`server`, `ca_sha256` and `uid` of the cluster that a context of a kubeconfig names.

    Args:
        core: gives what reads namespaces, as CoreV1Api does. Not given: a client of the kubeconfig as it is now; one that is
            open already would answer for the kubeconfig that it was opened with.
        known: an earlier `ca_sha256`. The same CA may stand in a file or, in base64, in the kubeconfig itself: the hash is
            of the form that gives this one, where one does.

    Raises:
        RunbookError: there is no such cluster yet, or it does not answer (Unreachable, Refused).
    """
    try:
        config: dict[str, Any] = (yaml_file.load(kubeconfig) if kubeconfig.exists() else None) or {}
        name = next((c["context"]["cluster"] for c in config.get("contexts") or [] if c["name"] == context), None)
        cluster = next((c["cluster"] for c in config.get("clusters") or [] if c["name"] == name), None)
        if cluster is None:
            raise RunbookError(f"this run has no cluster yet: {kubeconfig} lacks the context {context}", where=str(kubeconfig),
                               next="run notebooks/02_provision.ipynb first, or: gpurunbook run --until provision")
        server = re.sub(r"(?<=//)[^/@]*@", "", cluster["server"])  # a name and password in it are no part of what it is
        hashes = [hashlib.sha256(form).hexdigest() for form in _forms(cluster, kubeconfig.parent)]
    except (LookupError, TypeError, AttributeError, ValueError, OSError) as error:
        # Not what the parser said: it may hold what stands in the file.
        raise RunbookError(f"{kubeconfig} is no kubeconfig ({type(error).__name__})", where=str(kubeconfig),
                           next="restore the run's kubeconfig, or start a new run; nothing was written") from None
    return {"server": server, "ca_sha256": known if known in hashes else hashes[0],
            "uid": _uid(core()) if core else _uid_now(kubeconfig, context)}


def _uid(core: Any) -> str:
    return str(core.read_namespace("kube-system", _request_timeout=ANSWER_SECONDS).metadata.uid)


def _uid_now(kubeconfig: Path, context: str) -> str:
    import kubernetes

    from gpurunbook import client
    with client.new(kubeconfig, context) as fresh:
        return _uid(kubernetes.client.CoreV1Api(fresh))


def _forms(cluster: dict[str, Any], folder: Path) -> tuple[bytes, ...]:
    """The CA as the kubeconfig in `folder` has it, and the other way round; nothing where a public authority signed."""
    if data := cluster.get("certificate-authority-data"):
        return data.encode(), base64.b64decode(data)
    file = cluster.get("certificate-authority")
    pem = (folder / file).read_bytes() if file else b""  # kubectl writes a path that begins at the kubeconfig
    return pem, base64.b64encode(pem)
