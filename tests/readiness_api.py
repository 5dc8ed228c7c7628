"""A small server of HTTP that answers as an API server does, for tests of the ladder's reading."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes

from gpurunbook.readiness.kinds import kinds
from gpurunbook.readiness.reading import PAGE, Reader
from gpurunbook.readiness.snapshot import Snapshot
from tests.readiness import NAMES

Object = dict[str, Any]
PATHS = {kind.name: kind.path for kind in kinds(NAMES)} | {"pods": "/api/v1/pods"}
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
Answer = tuple[int, Object, dict[str, str]]


class Api:
    """Objects by path. `answers` overrides a path: called with the query, None means as usual. `changes` feeds the watches.

    `dates`: answers have a header Date.
    """

    def __init__(self, found: Snapshot) -> None:
        self.items = {path: [self.version(item) for item in getattr(found, kind)] for kind, path in PATHS.items()}
        self.answers: dict[str, Callable[[dict[str, str]], Answer | None]] = {}
        self.changes: dict[str, queue.Queue[Object | None]] = {path: queue.Queue() for path in PATHS.values()}
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.logs: dict[str, str] = {}
        self.dates = True

    @staticmethod
    def version(item: Object, number: int = 5) -> Object:
        item["metadata"]["resourceVersion"] = str(number)
        return item

    def listed(self, path: str, query: dict[str, str]) -> list[Object]:
        whole = "/api/v1/pods" if path.endswith("/pods") else path
        found = self.items.get(whole, [])
        if whole != path:
            space = path.split("/")[4]
            found = [i for i in found if i["metadata"]["namespace"] == space]
        if on := query.get("fieldSelector", "").partition("spec.nodeName=")[2]:
            found = [i for i in found if i["spec"].get("nodeName") == on]
        if whole == "/api/v1/pods" and "labelSelector" in query:
            key, _, value = query["labelSelector"].partition("=")
            found = [i for i in found if i["metadata"]["labels"].get(key) == value]
        return found


def handler(api: Api) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            api.asked.append((parts.path, query, self.headers.get("Accept", "")))
            given = api.answers.get(parts.path, lambda _: None)(query)
            if given:
                self._send(*given)
            elif "watch" in query:
                self._watch(parts.path)
            elif parts.path.endswith("/log"):
                self._send(200, api.logs.get(parts.path.split("/")[-2], ""), {})
            else:
                items = api.listed(parts.path, query)
                start, size = int(query.get("continue", "0")), 2 if parts.path == "/api/v1/nodes" else PAGE
                after = {"continue": str(start + size)} if start + size < len(items) else {}
                self._send(200, {"metadata": {"resourceVersion": "10", **after}, "items": items[start:start + size]}, {})

        def _send(self, code: int, body: Object | str, headers: dict[str, str]) -> None:
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            (self.send_response if api.dates else self.send_response_only)(code)
            for key, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(data)

        def _watch(self, path: str) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while (change := api.changes[path].get()) is not None:
                line = json.dumps(change).encode() + b"\n"
                self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                if change["type"] == "ERROR":
                    break
            self.wfile.write(b"0\r\n\r\n")

    return Handler


@contextmanager
def serving(api: Api, tls: ssl.SSLContext | None = None) -> Iterator[Reader]:
    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up, as one that ends a watch does, is no error."""

    with Server(("127.0.0.1", 0), handler(api)) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield reader(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
        finally:
            for changes in api.changes.values():
                changes.put(None)
            server.shutdown()
            thread.join()


def reader(host: str) -> Reader:
    configuration = kubernetes.client.Configuration()
    configuration.host = host
    return Reader(kubernetes.client.ApiClient(configuration))
