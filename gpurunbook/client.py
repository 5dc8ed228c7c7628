"""The `kubernetes` client, for reading: every request has an end, a network that fails is tried again, an error says what to do.

The library alone waits for ever, sleeps for as long as a Retry-After says, and tries again at once. Imported only where there
is a cluster to ask, since it takes a second.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes
from kubernetes.client import ApiException
from kubernetes.config import kube_config
from kubernetes.config.exec_provider import ExecProvider
from urllib3.exceptions import HTTPError, NewConnectionError, ReadTimeoutError

from gpurunbook import again
from gpurunbook.errors import RunbookError

SECONDS = 30.0
"""What a request may take that names no limit of its own."""
SIGN_IN_SECONDS = 60.0
"""What the program may take that a kubeconfig signs in with."""
COME_BACK = {429, 502, 503, 504}
LOOPBACK = {"127.0.0.1", "::1", "localhost"}
NEXT = {401: "sign in again, then run the same again", 429: "it is overloaded: run the same again in a minute; gpurunbook gpu",
        403: "ask for the right, until this says yes: kubectl auth can-i --list"}


class Unreachable(RunbookError, HTTPError):
    """The API server gave no answer, or nobody whom the kubeconfig trusts did. An HTTPError too, for who expects one."""


class Refused(RunbookError, ApiException):  # type: ignore[misc]
    """The API server answered with an error. An ApiException too, with its `status`, `reason` and `body`."""


class Client(kubernetes.client.ApiClient):  # type: ignore[misc]
    """ApiClient, bounded. Raises Unreachable and Refused. As a context, it closes its connections at the end."""

    def __exit__(self, *exc: object) -> None:
        self.rest_client.pool_manager.clear()
        super().__exit__(*exc)

    def call_api(self, method: str, url: str, header_params: Any = None, body: Any = None, post_params: Any = None,
                 _request_timeout: Any = None) -> Any:
        """One request; one that reads is made up to again.TRIES times, within again.PATIENCE, and never before Retry-After."""
        began, failed = time.monotonic(), 0
        while True:
            error, asked, status = None, 0.0, 0
            try:
                limit = _request_timeout or SECONDS
                tried = time.monotonic()
                answer = super().call_api(method, url, header_params, body, post_params, limit)
                answer.data = _whole(answer.response, tried + (sum(limit) if isinstance(limit, tuple) else limit))
                status = answer.status
                asked = seconds(answer.headers.get("Retry-After"))
            except (HTTPError, ApiException) as problem:  # ApiException: how the library wraps a failure of TLS
                error = problem
            if 200 <= status < 300:
                return answer
            failed += 1
            wait = again.pause(failed, asked)
            lasting = method != "GET" or (_lasting(error, url) if error else status not in COME_BACK)
            if lasting or failed == again.TRIES or time.monotonic() + wait > began + again.PATIENCE:
                raise (unreachable(error, url, failed) if error else refused(answer, method, url, failed)) from error
            time.sleep(wait)


def _whole(response: Any, deadline: float) -> bytes:
    """The body. urllib3 bounds each wait, and not their sum: a server that sends a byte a second would be read for ever."""
    data = bytearray()
    while chunk := response.read1(1 << 20):
        data += chunk
        if time.monotonic() > deadline:
            response.close()
            raise ReadTimeoutError(response._pool, response.url, "the answer came too slowly to be waited for")
    response.release_conn()
    return bytes(data)


class _Bounded(ExecProvider):  # type: ignore[misc]
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.args: list[str] = [sys.executable, "-P", "-m", "gpurunbook.bounded", f"{SIGN_IN_SECONDS:g}", *self.args]


kube_config.ExecProvider = _Bounded  # it has no parameter for this, and waits without end


def new(kubeconfig: Path, context: str, **options: Any) -> Client:
    """A client for a context of a kubeconfig; `options` as load_kube_config has them. Raises ConfigException as that does."""
    configuration = kubernetes.client.Configuration()
    kubernetes.config.load_kube_config(str(kubeconfig), context=context, client_configuration=configuration, **options)
    configuration.retries = False  # urllib3's own would come first, without a pause
    return Client(configuration)


def seconds(header: str | None) -> float:
    """A Retry-After in seconds; an API server sends no dates."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0


def _lasting(error: Exception, url: str) -> bool:
    """A certificate does not mend itself; and a process on this machine that is gone is not back within seconds."""
    gone = isinstance(error, NewConnectionError) and urlsplit(url).hostname in LOOPBACK
    return gone or "CERTIFICATE" in said(error).upper()


def said(error: Exception) -> str:
    """What the innermost exception says, without object addresses."""
    text = str(getattr(error, "reason", None) or error).strip()
    return " ".join(text.rpartition(">: ")[2].split())


def unreachable(error: Exception, url: str, tries: int) -> Unreachable:
    """The error for a request that got no answer."""
    server, why = f"{urlsplit(url).scheme}://{urlsplit(url).netloc}", said(error)
    times = f" ({tries} tries)" if tries > 1 else ""
    if "certificate" in why.lower():
        return Unreachable(f"the certificate of the API server at {server} is not good: {why}", where=server,
                           next="ask whoever runs the cluster for a new certificate or kubeconfig; and look at this clock: date")
    return Unreachable(f"the API server at {server} does not answer{times}: {why}", where=server,
                       next="gpurunbook status; when it answers again, run the same again: nothing was changed by this question")


def refused(answer: Any, method: str, url: str, tries: int) -> Refused:
    """The error for an answer that is none."""
    body = (answer.data or b"").decode("utf-8", "replace")
    try:
        told = str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        told = answer.reason or ""
    times = f", {tries} times" if tries > 1 else ""
    error = Refused(f"the API server answers {answer.status}{times}: {told[:400]}", where=f"{method} {url}",
                    next=NEXT.get(answer.status, "gpurunbook status; then run the same again"))
    error.status, error.reason, error.headers, error.body, error.data = answer.status, answer.reason, answer.headers, body, None
    return error
