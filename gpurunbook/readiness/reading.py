"""Raw reads of the API server: paged lists, watches and logs, each bounded in time, no model objects."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlencode

from gpurunbook.readiness.snapshot import Object

if TYPE_CHECKING:
    import kubernetes.client

PAGE = 500
ANSWER_SECONDS = 10.0
THROTTLE_SECONDS = 4.0
"""How long, in all, a request that is told to come back later comes back."""
WATCH_SECONDS = 240
CLOCKS = timedelta(seconds=2)
"""What clocks may differ by unseen: the header Date counts whole seconds, and an answer takes its time."""
NOBODY = '"system:anonymous"'
"""The user that an API server takes us for when a credentials plug-in gave nothing."""
FLOW_HEADER = "X-Kubernetes-PF-FlowSchema-UID"
Why = Literal["missing", "denied", "signed-out", "throttled", "lost", "gone", "failed"]
"""missing: the server has no such kind; denied: no right; signed-out: it does not know who asks; throttled: 429 to the end;
lost: no answer, or a stranger's; gone: the resource version is too old; failed: any other answer."""


class Refused(Exception):
    """The API server did not give what was asked for."""

    def __init__(self, why: Why, said: str) -> None:
        super().__init__(said)
        self.why, self.said = why, said


class Reader:
    """Reads through the connections of a `kubernetes` client; safe in threads."""

    def __init__(self, api_client: kubernetes.client.ApiClient) -> None:
        self._client, self._pool = api_client, api_client.rest_client.pool_manager
        self._host: str = api_client.configuration.host
        self.ahead = timedelta()
        """How far the server's clock is ahead of ours, by the header Date of its last answer; nothing below its resolution."""

    def list(self, path: str, accept: str = "application/json", **query: str) -> Iterator[tuple[str, Sequence[Object]]]:
        """Pages of a list, as (resource version of the list, items). Raises Refused."""
        while True:
            page = self._json(path, accept, {**query, "limit": str(PAGE)}, ANSWER_SECONDS)
            metadata = page.get("metadata") or {}
            yield str(metadata.get("resourceVersion", "")), page.get("items") or []
            token = metadata.get("continue") or ""
            if not token:
                return
            query = {key: value for key, value in query.items() if key != "resourceVersion"} | {"continue": token}

    def get(self, path: str, accept: str = "application/json", limit: float = ANSWER_SECONDS, **query: str) -> Object:
        """One answer as JSON, within so many seconds. Raises Refused."""
        return self._json(path, accept, query, limit)

    def _json(self, path: str, accept: str, query: Mapping[str, str], limit: float) -> Object:
        response = self._ask(path, accept, query, limit)
        try:
            found = json.loads(self._read(response))
        except ValueError as error:
            raise Refused("lost", f"{self._host} answers {path} with something that is no JSON") from error
        return found if isinstance(found, dict) else {}

    def text(self, path: str, **query: str) -> str:
        """One answer as text, such as a log. Raises Refused."""
        return self._read(self._ask(path, "*/*", query, 5.0)).decode("utf-8", "replace")

    def watch(self, path: str, accept: str = "application/json", **query: str) -> Any:
        """An open watch: iterate over its lines; `shutdown()` ends it from another thread. Raises Refused."""
        query |= {"watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
        return self._ask(path, accept, query, WATCH_SECONDS + 15.0)

    def _read(self, response: Any) -> bytes:
        from urllib3.exceptions import HTTPError
        try:
            data: bytes = response.read()
        except HTTPError as error:
            raise Refused("lost", _said(error)) from error
        finally:
            response.release_conn()
        return data

    def _ask(self, path: str, accept: str, query: Mapping[str, str], limit: float) -> Any:
        deadline = time.monotonic() + THROTTLE_SECONDS
        while True:
            response = self._once(path, accept, query, limit)
            self.ahead = _ahead(response.headers.get("Date"), self.ahead)
            if response.status == 200:
                return response
            body = self._read(response)[:4000].decode("utf-8", "replace")
            pause = _seconds(response.headers.get("Retry-After"))
            if response.status != 429 or time.monotonic() + pause > deadline:
                raise self._refused(path, response, body)
            time.sleep(pause)

    def _once(self, path: str, accept: str, query: Mapping[str, str], limit: float) -> Any:
        from urllib3.exceptions import HTTPError, ProtocolError
        from urllib3.util import Timeout
        headers = {"Accept": accept}
        self._client.update_params_for_auth(headers, [], ["BearerToken"], path, "GET", None)
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        for last in (False, True):
            try:
                return self._pool.request("GET", url, headers=headers, preload_content=False, retries=False,
                                          timeout=Timeout(connect=5.0, read=limit))
            except ProtocolError as error:  # a kept connection that the server has closed meanwhile: only that is asked again
                if last:
                    raise Refused("lost", _said(error)) from error
            except HTTPError as error:
                raise Refused("lost", f"{self._host}: {_said(error)}") from error
        raise AssertionError("unreachable")

    def _refused(self, path: str, response: Any, body: str) -> Refused:
        try:
            message = str(json.loads(body).get("message", ""))
        except (ValueError, AttributeError):
            message = body.strip().splitlines()[0] if body.strip() else ""
        said = f"{response.status} {message or response.reason or ''}".strip()
        if response.status == 429:
            uid = response.headers.get(FLOW_HEADER, "")
            return Refused("throttled", f"{path}: {said}; flow schema {self._flow(uid)}; "
                                        f"Retry-After {response.headers.get('Retry-After', 'not given')}")
        whys: dict[int, Why] = {401: "signed-out", 403: "signed-out" if NOBODY in said else "denied", 404: "missing", 410: "gone"}
        return Refused(whys.get(response.status, "failed"), said)

    def _flow(self, uid: str) -> str:
        """The flow schema's name; its UID where the server does not tell that either."""
        if not uid:
            return "not named"
        try:
            response = self._once("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", "application/json", {}, 3.0)
            items = json.loads(self._read(response)).get("items") or [] if response.status == 200 else []
        except (Refused, ValueError):
            return uid
        return next((i["metadata"]["name"] for i in items if i["metadata"]["uid"] == uid), uid)


def _seconds(header: str | None) -> float:
    try:
        return max(0.05, float(header or 1))
    except ValueError:
        return 1.0


def _ahead(date: str | None, before: timedelta) -> timedelta:
    try:
        found = parsedate_to_datetime(date or "") - datetime.now(UTC)
    except (ValueError, TypeError):
        return before
    return found if abs(found) > CLOCKS else timedelta()


def _said(error: Exception) -> str:
    """The innermost reason, without object addresses: "certificate verify failed", "Connection refused"."""
    reason: Any = error
    while inner := getattr(reason, "reason", None):
        if isinstance(inner, str):
            return inner
        reason = inner
    cause = reason.__cause__ or (reason.args[-1] if reason.args and isinstance(reason.args[-1], Exception) else None)
    text = str(cause or reason)
    return text.rpartition(">: ")[2] or text
