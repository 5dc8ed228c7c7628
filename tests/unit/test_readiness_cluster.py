"""Reading and following a cluster, against a small server of HTTP that answers as an API server does."""

from __future__ import annotations

import json
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes
import pytest

from gpurunbook.readiness.cluster import Cluster
from gpurunbook.readiness.diagnose import ladder
from gpurunbook.readiness.kinds import kinds
from gpurunbook.readiness.reading import PAGE, Reader, Refused
from gpurunbook.readiness.snapshot import Snapshot
from gpurunbook.targets.rehearsal import pki
from tests.readiness import NAMES, NODE, NOW, healthy, pod, waits

Object = dict[str, Any]
PATHS = {kind.name: kind.path for kind in kinds(NAMES)} | {"pods": "/api/v1/pods"}
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
Answer = tuple[int, Object, dict[str, str]]


class Api:
    """Objects by path. `answers` overrides a path: called with the query, None means as usual. `changes` feeds the watches."""

    def __init__(self, found: Snapshot) -> None:
        self.items = {path: [self.version(item) for item in getattr(found, kind)] for kind, path in PATHS.items()}
        self.answers: dict[str, Callable[[dict[str, str]], Answer | None]] = {}
        self.changes: dict[str, queue.Queue[Object | None]] = {path: queue.Queue() for path in PATHS.values()}
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.logs: dict[str, str] = {}

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
            self.send_response(code)
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


def until(question: Callable[[], bool], cluster: Cluster, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not question():
        assert time.monotonic() < deadline
        cluster.wait(0.2)


def causes(found: Snapshot) -> list[str]:
    return [f.cause for f in ladder(found, NAMES, NOW).findings]


def test_a_healthy_cluster_is_read_whole_by_pages_and_its_secrets_by_metadata_only() -> None:
    api = Api(healthy())
    api.items["/api/v1/nodes"] += [Api.version({"metadata": {"name": f"n{i}", "uid": f"u{i}"}}) for i in range(5)]
    with serving(api) as found:
        seen = Cluster(found, NAMES).read()
    assert len(seen.nodes) == 7
    assert causes(seen) == []
    assert all(query["limit"] == str(PAGE) for _, query, _ in api.asked if "watch" not in query)
    [accept] = {accept for path, _, accept in api.asked if path == PATHS["releases"]}
    assert accept == "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


def test_only_pods_that_matter_are_asked_for() -> None:
    api = Api(healthy())
    api.items["/api/v1/pods"].append(Api.version(pod("elsewhere", on="ip-10-0-0-2.ec2.internal", space="other")))
    with serving(api) as found:
        seen = Cluster(found, NAMES).read()
    assert "elsewhere" not in [p["metadata"]["name"] for p in seen.pods]
    assert len(seen.pods) == 6
    assert not [query for path, query, _ in api.asked
                if path == "/api/v1/pods" and not query.keys() & {"fieldSelector", "labelSelector"}]


def test_a_kind_that_the_server_does_not_know_is_absent_and_looked_for_again() -> None:
    api = Api(healthy())
    unknown = [True]
    api.answers[PATHS["policies"]] = lambda _: (404, {"message": "not found"}, {}) if unknown[0] else None
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        seen = cluster.snapshot()
        assert (seen.policies, seen.denied) == ((), {})
        unknown[0] = False
        until(lambda: len(cluster.snapshot().policies) == 1, cluster)


def test_what_is_forbidden_is_said() -> None:
    api = Api(healthy())
    api.answers[PATHS["releases"]] = lambda _: (403, {"message": 'secrets is forbidden: User "eve" cannot list'}, {})
    with serving(api) as found:
        seen = Cluster(found, NAMES).read()
    assert 'User "eve" cannot list' in seen.denied["releases"]
    [step] = [s for s in ladder(seen, NAMES, NOW).nodes[0].steps if s.rung == "release"]
    assert step.state == "unknown"


def test_retry_after_is_obeyed_and_then_it_is_throttled_by_a_flow_schema_with_a_name() -> None:
    api = Api(healthy())
    left = [2]

    def twice(_: dict[str, str]) -> Answer | None:
        left[0] -= 1
        return (429, {"message": "slow down"}, {"Retry-After": "0.1"}) if left[0] >= 0 else None

    api.answers["/api/v1/nodes"] = twice
    with serving(api) as found:
        assert causes(Cluster(found, NAMES).read()) == []
    assert len([path for path, *_ in api.asked if path == "/api/v1/nodes"]) == 3
    busy = (429, {"message": "slow down"}, {"Retry-After": "60", "X-Kubernetes-PF-FlowSchema-UID": "uid-2"})
    api.answers["/api/v1/nodes"] = lambda _: busy
    names = ["exempt", "catch-all", "global-default"]
    schemas = [{"metadata": {"name": name, "uid": f"uid-{i}"}} for i, name in enumerate(names)]
    api.answers[FLOW] = lambda _: (200, {"items": schemas}, {})
    began = time.monotonic()
    with serving(api) as found:
        seen = Cluster(found, NAMES).read()
    assert time.monotonic() - began < 5, "a wait that is longer than we have is not begun"
    assert "flow schema global-default" in seen.throttled
    assert causes(seen) == ["api-throttled"]


def test_no_answer_is_a_wrong_kubeconfig() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        seen = Cluster(reader(f"http://127.0.0.1:{unused.getsockname()[1]}"), NAMES).read()
    assert "refused" in seen.lost
    assert causes(seen) == ["wrong-kubeconfig"]


def test_another_authority_is_a_wrong_kubeconfig(tmp_path: Any) -> None:
    pki.make(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "kubelet.crt", tmp_path / "kubelet.key")
    with serving(Api(healthy()), tls) as found:
        seen = Cluster(found, NAMES).read()
    assert "certificate" in seen.lost.lower()
    assert causes(seen) == ["wrong-kubeconfig"]


def test_refused_credentials_and_something_that_is_no_api_server() -> None:
    api = Api(healthy())
    api.answers["/api/v1/nodes"] = lambda _: (401, {"message": "Unauthorized"}, {})
    with serving(api) as found:
        assert Cluster(found, NAMES).read().lost == "401 Unauthorized"
        api.answers["/x"] = lambda _: (200, "<html>", {})  # type: ignore[return-value,dict-item]
        with pytest.raises(Refused, match="no JSON") as told:
            found.get("/x")
    assert told.value.why == "lost"


def test_watches_bring_changes_and_deletions() -> None:
    api = Api(healthy())
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        broken = Api.version(healthy().nodes[0], 11)
        broken["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
        api.changes["/api/v1/nodes"].put({"type": "MODIFIED", "object": broken})
        until(lambda: causes(cluster.snapshot()) == ["gpu-not-allocatable"], cluster)
        old = Api.version(healthy().nodes[0], 3)
        api.changes["/api/v1/nodes"].put({"type": "MODIFIED", "object": old})
        api.changes["/api/v1/pods"].put({"type": "DELETED", "object": Api.version(pod("dolly-1", space="default"), 12)})
        until(lambda: "dolly-1" not in [p["metadata"]["name"] for p in cluster.snapshot().pods], cluster)
        assert causes(cluster.snapshot()) == ["gpu-not-allocatable"], "an older version does not win"


def test_pods_of_nobodys_concern_are_not_kept_from_a_watch() -> None:
    api = Api(healthy())
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        for name, on in (("far", "ip-10-0-0-2.ec2.internal"), ("near", NODE)):
            api.changes["/api/v1/pods"].put({"type": "ADDED", "object": Api.version(pod(name, space="other", on=on), 12)})
        until(lambda: "near" in [p["metadata"]["name"] for p in cluster.snapshot().pods], cluster)
        assert "far" not in [p["metadata"]["name"] for p in cluster.snapshot().pods]


def test_a_version_that_is_too_old_is_listed_again_and_a_watch_that_ends_goes_on() -> None:
    api = Api(healthy())
    nodes = api.items["/api/v1/nodes"]
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        nodes.append(Api.version({"metadata": {"name": "late", "uid": "late"}}))
        api.changes["/api/v1/nodes"].put({"type": "ERROR", "object": {"code": 410, "message": "too old resource version"}})
        until(lambda: len(cluster.snapshot().nodes) == 3, cluster)
        api.changes["/api/v1/nodes"].put({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "77"}}})
        api.changes["/api/v1/nodes"].put(None)
        until(lambda: ("/api/v1/nodes", "77") in [(p, q.get("resourceVersion")) for p, q, _ in api.asked], cluster)


def test_a_pod_of_a_new_gpu_node_is_known_although_it_came_first() -> None:
    api = Api(healthy())
    api.items["/api/v1/pods"].append(Api.version(pod("early", space="other", on="ip-10-0-0-7")))
    joined = healthy().nodes[0]
    joined["metadata"] |= {"name": "ip-10-0-0-7", "uid": "new", "resourceVersion": "20"}
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        assert "early" not in [p["metadata"]["name"] for p in cluster.snapshot().pods]
        api.changes["/api/v1/nodes"].put({"type": "ADDED", "object": joined})
        until(lambda: "early" in [p["metadata"]["name"] for p in cluster.snapshot().pods], cluster)


def test_the_last_line_of_a_crashed_container_is_fetched_once() -> None:
    found = healthy()
    driver = next(p for p in found.pods if p["metadata"]["name"] == "driver-1")
    waits(driver, "CrashLoopBackOff", "", 4)
    api = Api(found)
    api.logs["driver-1"] = "building\nCould not resolve Linux kernel version\n\n"
    with serving(api) as read:
        cluster = Cluster(read, NAMES)
        cluster.read()
        seen = cluster.snapshot()
    assert seen.logs == {"pod-driver-1": "Could not resolve Linux kernel version"}
    [finding] = ladder(seen, NAMES, NOW).findings
    assert "Could not resolve Linux kernel version" in finding.evidence
    [query] = [query for path, query, _ in api.asked if path.endswith("/log")]
    assert (query["previous"], query["tailLines"]) == ("true", "5")
