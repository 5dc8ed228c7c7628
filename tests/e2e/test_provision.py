"""Starting and failing to start: what a person is told, and that a second try goes on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from gpurunbook import processes, programs
from tests.e2e.conftest import Checkout, Cluster, make_checkout


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Checkout]:
    """A checkout of one test's own, whose manifests it may change."""
    made = make_checkout(tmp_path)
    yield made
    for folder in (made.root / "runs").glob("*"):
        processes.end(processes.of_runs(folder))


def test_a_component_that_cannot_start_is_named_with_its_own_words(own: Checkout) -> None:
    stages = own.root / "manifests" / "rehearsal" / "stages.yaml"
    stages.write_text(stages.read_text().replace("operator: NotIn", "operator: Nonsense", 1))
    done = own("run", "--run-id", "broken", "--until", "provision", check=False)
    assert done.returncode == 1
    assert "kwok-controller ended while it started" in done.stderr
    assert "kwok-controller.log" in done.stderr
    own("clean", "--run-id", "broken")
    assert not processes.of_runs(own.folder("broken"))


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "kwok-controller", "gpurunbook.targets.rehearsal"])
def test_a_killed_part_is_started_again_and_pods_run(checkout: Checkout, name: str) -> None:
    run_id = "parts"
    checkout("run", "--run-id", run_id, "--until", "taint", "-p", "uninitialized_taint=false")
    (victim,) = [p for p in processes.of_runs(checkout.folder(run_id)) if p.name == name]
    psutil.Process(victim.pid).kill()
    psutil.wait_procs([psutil.Process(victim.pid)] if victim.alive else [], timeout=5)
    checkout("run", "--run-id", run_id, "--from", "provision", "--until", "nodes")
    cluster = Cluster(checkout, run_id)
    for image in ("gpurunbook/python:3", "busybox"):
        pod = f"after-{name.split('.')[0]}-{image.split('/')[0]}"
        cluster.kubectl("run", pod, f"--image={image}", "--restart=Never")
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=60s", timeout=70)
    if name.startswith("gpurunbook"):
        checkout("teardown", "--run-id", run_id)
        assert not processes.of_runs(checkout.folder(run_id))


def test_a_pace_that_is_none_is_refused_before_anything_is_made(checkout: Checkout) -> None:
    done = checkout("run", "--run-id", "hasty", "--until", "provision", "-p", "pace=fast", check=False)
    assert done.returncode == 2
    assert "pace is 'fast'" in done.stderr
    assert "instant, real" in done.stderr
    assert not checkout.folder("hasty").exists()


def test_nodes_without_the_taint_leave_nothing_to_remove(checkout: Checkout) -> None:
    checkout("run", "--run-id", "untainted", "--until", "taint", "-p", "uninitialized_taint=false")
    plan = next(r for r in checkout.records("untainted") if r["kind"] == "plan" and r["stage"] == "taint")
    assert plan["commands"] == []
    done = checkout("run", "--run-id", "untainted", "--until", "provision", "-p", "pace=0.1", check=False)
    assert done.returncode == 2
    assert "this rehearsal's pace is 0: once made, it cannot become 0.1" in done.stderr
    checkout("teardown", "--run-id", "untainted")


def test_a_chart_repository_is_added_and_used(own: Checkout, tmp_path: Path) -> None:
    """The online path: the pinned chart from a repository; here one of our own, on loopback."""
    helm, served = programs.find("helm").path, tmp_path / "served"
    served.mkdir()
    cluster = Cluster(own, "online")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        for args in (("package", str(own.root / "manifests" / "rehearsal" / "gpu-operator"), "-d", str(served)),
                     ("repo", "index", str(served), "--url", url)):
            psutil.Popen([helm, *args], env=cluster.environment).wait(timeout=30)
        pin = own.root / "manifests" / "gpu-operator" / "chart.yaml"
        pin.write_text(yaml.safe_dump(yaml.safe_load(pin.read_text()) | {"url": url}))
        plans: list[list[Any]] = []
        for _ in range(2):
            own("run", "--run-id", "online", "--until", "gpu_operator")
            shown = [r["shown"] for r in own.records("online") if r["kind"] == "plan" and r["stage"] == "gpu_operator"]
            plans.append(shown[sum(map(len, plans)):])
        first, again = plans
        assert [line.split()[1] for line in first[0]] == ["repo", "repo", "upgrade"]
        assert "nvidia/gpu-operator" in first[0][2]
        assert again
        assert not any(again), "neither the chart nor the smoke pod once more"
        own("teardown", "--run-id", "online")
    finally:
        server.shutdown()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing: a test's output is read by people."""
