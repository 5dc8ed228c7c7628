"""Reading and following a cluster, against a small server of HTTP that answers as an API server does."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from gpurunbook.readiness.cluster import Cluster
from gpurunbook.readiness.diagnose import ladder
from gpurunbook.readiness.reading import PAGE, Refused
from gpurunbook.readiness.snapshot import Snapshot
from gpurunbook.targets.rehearsal import pki
from tests.readiness import NAMES, NODE, NOW, healthy, pod, waits
from tests.readiness_api import FLOW, PATHS, Answer, Api, reader, serving


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


def test_our_own_lists_do_not_throttle_each_other_where_there_is_one_seat() -> None:
    api = Api(healthy())
    seat = threading.Lock()

    def one_at_a_time(query: dict[str, str]) -> Answer | None:
        if not seat.acquire(blocking=False):
            return 429, {"message": "slow down"}, {"Retry-After": "32"}
        time.sleep(0.05)
        seat.release()
        return None

    for path in (PATHS["nodes"], PATHS["pods"], f"/api/v1/namespaces/{NAMES.namespace}/pods"):
        api.answers[path] = one_at_a_time
    with serving(api) as found:
        assert causes(Cluster(found, NAMES).read()) == []


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


def test_something_that_is_no_api_server_is_a_wrong_kubeconfig() -> None:
    api = Api(healthy())
    api.answers["/x"] = lambda _: (200, "<html>", {})  # type: ignore[return-value,dict-item]
    with serving(api) as found, pytest.raises(Refused, match="no JSON") as told:
        found.get("/x")
    assert told.value.why == "lost"


@pytest.mark.parametrize(("code", "said"), [
    (401, "Unauthorized"), (403, 'nodes is forbidden: User "system:anonymous" cannot list')])
def test_an_expired_sign_in_is_no_wrong_kubeconfig(code: int, said: str) -> None:
    api = Api(healthy())
    api.answers["/api/v1/nodes"] = lambda _: (code, {"message": said}, {})
    with serving(api) as found:
        seen = Cluster(found, NAMES).read()
    assert causes(seen) == ["signed-out"]
    assert said in seen.lost


def test_a_server_that_is_silent_is_asked_and_found_dead_or_alive() -> None:
    api, dead = Api(healthy()), [False]

    def version(_: dict[str, str]) -> Answer | None:
        if dead[0]:
            time.sleep(0.8)  # as a process that is stopped: it takes the connection and says nothing
        return 200, {"gitVersion": "v1.36.3"}, {}

    api.answers["/version"] = version
    with serving(api) as found, Cluster(found, NAMES, silence=0.4).following() as cluster:
        time.sleep(0.7)
        assert "/version" in [path for path, *_ in api.asked]
        assert causes(cluster.snapshot()) == []
        dead[0] = True
        until(lambda: causes(cluster.snapshot()) == ["wrong-kubeconfig"], cluster)
        dead[0] = False
        until(lambda: causes(cluster.snapshot()) == [], cluster)


def test_an_error_that_nobody_expected_is_not_swallowed() -> None:
    api = Api(healthy())
    api.answers[PATHS["budgets"]] = lambda query: None if "watch" in query else (200, {"items": [{"spec": {}}]}, {})
    with serving(api) as found, pytest.raises(KeyError):
        Cluster(found, NAMES).read()
    api = Api(healthy())
    with serving(api) as found, Cluster(found, NAMES).following() as cluster:
        api.changes[PATHS["budgets"]].put({"type": "ADDED", "object": ["no", "object"]})  # type: ignore[dict-item]
        with pytest.raises(AttributeError):
            until(lambda: cluster.snapshot() is None, cluster)


@pytest.mark.parametrize("ahead", [70, -70])
def test_the_time_is_the_servers(ahead: float) -> None:
    api = Api(healthy())
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead), usegmt=True)
    nodes = api.items["/api/v1/nodes"]
    api.answers["/api/v1/nodes"] = lambda _: (200, {"metadata": {"resourceVersion": "1"}, "items": nodes}, {"Date": date})
    api.dates = False
    with serving(api) as found:
        cluster = Cluster(found, NAMES)
        assert abs((cluster.now - datetime.now(UTC)).total_seconds()) < 1
        cluster.read()
        assert abs((cluster.now - datetime.now(UTC)).total_seconds() - ahead) < 3


def test_a_clock_that_is_right_is_left_alone() -> None:
    with serving(Api(healthy())) as found:
        Cluster(found, NAMES).read()
        assert found.ahead == timedelta()


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
