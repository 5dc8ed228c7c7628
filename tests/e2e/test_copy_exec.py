"""main.py copied into pods and run there, while something is wrong with them: no tar, nothing writable, streams that break,
pods that go. On a rehearsal in which the first pod of each name has broken streams, and one image lacks tar."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import yaml

from gpurunbook.config import load_cluster
from gpurunbook.errors import CommandFailed, RunbookError
from gpurunbook.runbook import Run
from gpurunbook.stages import in_pod, model, next_token
from gpurunbook.targets.rehearsal.cluster import Rehearsal
from gpurunbook.targets.rehearsal.world import World
from tests.e2e.conftest import Checkout, Cluster

pytestmark = pytest.mark.e2e
DOLLY, WITHOUT_TAR, BARE = "irbull/dolly:0.2", "irbull/dolly:0.2-slim", "irbull/dolly:0.2-bare"
READY = "--timeout=30s"
SECONDS = 30.0


class Place:
    """The rehearsal, and a run opened on it in stage 07; one pod of the model's at a time."""

    def __init__(self, cluster: Cluster) -> None:
        root = cluster.checkout.root
        self.cluster = cluster
        self.run = Run(root, cluster.folder, Rehearsal(), load_cluster(root / "cluster.yaml"), "next_token")

    @contextmanager
    def pod(self, *, broken: bool = False, image: str = DOLLY, script: str = "", memory: str = "", spec: Any = None,
            **container: Any) -> Iterator[str]:
        """A ready pod under the model's label; its streams are whole unless `broken` asks for one that is the first."""
        name = f"pod-{time.monotonic_ns()}"
        inside = {"name": "dolly", "image": image, **container}
        if script:
            inside["command"] = ["sh", "-c", script]
        if memory:
            inside["resources"] = {"limits": {"memory": memory}, "requests": {"memory": "1Mi"}}
        made = json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "dolly-v2"}}, "spec": {
            "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 0, "containers": [inside], **(spec or {})}})
        if not broken:
            self.cluster.kubectl("apply", "-f", "-", input=made)
            self.cluster.kubectl("wait", f"pod/{name}", "--for=condition=PodScheduled", READY)
            self.cluster.kubectl("delete", "pod", name)
        self.cluster.kubectl("apply", "-f", "-", input=made)
        self.cluster.kubectl("wait", f"pod/{name}", "--for=condition=Ready", READY)
        yield name
        self.cluster.kubectl("delete", "pod", name, "--ignore-not-found")

    def copied(self) -> next_token.Facts:
        facts = next_token.observe(self.run)
        return next_token.copy(self.run, facts, next_token.plan(self.run, facts))

    def command(self, facts: next_token.Facts) -> Any:
        return next_token.command(self.run, facts, prompt="Long long ago, in a", top=3, precisions="reference")


@pytest.fixture(scope="module")
def place(checkout: Checkout) -> Iterator[Place]:
    folder = checkout.folder("copy-exec") / "rehearsal"
    folder.mkdir(mode=0o700, parents=True)
    known = yaml.safe_load((checkout.root / "manifests" / "rehearsal" / "images.yaml").read_text())[DOLLY]
    World(cut_streams=True, images={WITHOUT_TAR: {"lacks": ["tar"]}, BARE: {
        **known, "gigabytes": 0, "lacks": ["sha256sum", "mv", "cp", "cat", "test", "ls"]}}).save(folder / "world.json")
    checkout("run", "--run-id", "copy-exec", "--until", "taint")
    yield Place(Cluster(checkout, "copy-exec"))
    checkout("teardown", "--run-id", "copy-exec")


def until(question: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + SECONDS
    while not question():
        assert time.monotonic() < end, f"{what}: not within {SECONDS} s"
        time.sleep(0.1)


def copy(place: Place, name: str) -> tuple[list[str], str]:
    """Copy main.py; the kubectl verbs that it took, and the plan's reason."""
    facts = next_token.observe(place.run)
    assert facts.pod.name == name
    plan = next_token.plan(place.run, facts)
    assert not next_token.plan(place.run, next_token.copy(place.run, facts, plan))
    listing = "import os, sys; print(*os.listdir(sys.argv[1]))"
    assert place.cluster.kubectl("exec", name, "--", "python", "-c", listing, next_token.FOLDER).stdout.split() == [b"main.py"]
    return [c.shown[1] for c in plan], plan.reason


def test_it_is_copied_by_tar_and_renamed(place: Place) -> None:
    with place.pod() as name:
        assert copy(place, name)[0] == ["cp", "exec"]


def test_without_tar_it_is_copied_and_runs_and_its_logits_come_back(place: Place) -> None:
    with place.pod(image=WITHOUT_TAR) as name:
        verbs, reason = copy(place, name)
        assert verbs == ["exec"]
        assert "no tar" in reason
        facts = next_token.observe(place.run)
        found = next_token.measure(place.run, facts, place.command(facts))
        assert found["arms"][0]["top"][0]["text"] == " land"
        path = next_token.fetch(place.run, facts, found)["reference"]
        assert path.stat().st_size == 4 * found["vocab_size"]


def test_where_there_is_little_besides_tar_and_python_it_is_copied_and_fetched(place: Place) -> None:
    with place.pod(image=BARE) as name:
        assert copy(place, name)[0] == ["cp", "exec"]
        assert place.cluster.kubectl("exec", name, "--", "mv", "a", "b", check=False).returncode != 0
        data = b"12345678"
        place.cluster.kubectl("exec", "-i", name, "--", "python", "-c", "import sys; open(sys.argv[1], 'wb').write(b'12345678')",
                              f"{next_token.FOLDER}/logits.int8.f32")
        arm = {"precision": "int8", "logits_sha256": hashlib.sha256(data).hexdigest()}
        found = next_token.fetch(place.run, next_token.observe(place.run), {"vocab_size": 2, "arms": [arm]})
        assert found["int8"].read_bytes() == data


def test_a_container_restarted_between_the_copy_and_the_rename_is_told(place: Place) -> None:
    with place.pod(script="while [ ! -e /tmp/die ]; do sleep 0.1; done; exit 3") as name:
        facts = next_token.observe(place.run)
        cp, rename = next_token.plan(place.run, facts)
        place.run.ask(cp)
        place.cluster.kubectl("exec", name, "--", "touch", "/tmp/die")
        until(lambda: (life := in_pod.life(place.run, name, "dolly")) and life.restarts == 1 and life.alive, "restarted")
        with pytest.raises(RunbookError, match=r"was restarted: Error, exit code 3, while main\.py was copied") as raised:
            next_token.copy(place.run, facts, place.run.plan([rename], "the second half"))
        assert "this notebook again" in raised.value.next


def test_a_read_only_folder_is_refused_before_anything_is_copied(place: Place) -> None:
    place.cluster.kubectl("create", "configmap", "of-files", "--from-literal=readme=x")
    spec = {"volumes": [{"name": "files", "configMap": {"name": "of-files"}}]}
    with place.pod(spec=spec, volumeMounts=[{"name": "files", "mountPath": next_token.FOLDER}]):
        with pytest.raises(RunbookError, match="lies in the mount /home/bentoml/bento") as raised:
            next_token.plan(place.run, next_token.observe(place.run))
        assert next_token.FOLDER in raised.value.what
        assert "emptyDir" in raised.value.next


def test_a_stream_that_breaks_with_exit_code_0_is_not_believed(place: Place) -> None:
    with place.pod(broken=True) as name:
        bare = place.cluster.kubectl("exec", name, "--", "echo", "all of it")
        assert bare.returncode == 0
        assert bare.stdout != b"all of it\n"
        with pytest.raises(RunbookError, match="the stream broke"):
            next_token.observe(place.run)
        life = in_pod.life(place.run, name, "dolly")
        assert life is not None
        writable = in_pod.Place("", True, True, True, 0, 0, "")
        facts = next_token.Facts(model.ready_pod(place.run), "dolly", "", writable, life)
        with pytest.raises(RunbookError, match="its exit code is not believed") as raised:
            next_token.measure(place.run, facts, place.command(facts))
        assert "gpurunbook gpu" in raised.value.next
        arm = {"precision": "reference", "logits_sha256": "0" * 64}
        with pytest.raises(RunbookError, match=r"twice: .* of 16 bytes arrived"):
            next_token.fetch(place.run, facts, {"vocab_size": 4, "arms": [arm]})


def test_a_pod_that_is_deleted_while_main_py_runs_is_told(place: Place) -> None:
    with place.pod() as name:
        facts, raised = place.copied(), []

        def measure() -> None:
            try:
                next_token.measure(place.run, facts, place.command(facts))
            except RunbookError as error:
                raised.append(error)

        log = place.run.folder / "logs" / "next_token.log"
        before = log.stat().st_size  # other tests' runs stand in it too
        thread = threading.Thread(target=measure)
        thread.start()
        until(lambda: b"main.py: importing torch" in log.read_bytes()[before:], "main.py runs")
        place.cluster.kubectl("delete", "pod", name)
        thread.join(SECONDS)
        (error,) = raised
        assert f"the pod {name} was deleted, while main.py ran" in error.what
        assert "06_model" in error.next


def test_a_container_restarted_after_the_copy_is_told(place: Place) -> None:
    with place.pod(script="while [ ! -e /tmp/die ]; do sleep 0.1; done; exit 3") as name:
        facts = place.copied()
        place.cluster.kubectl("exec", name, "--", "touch", "/tmp/die")
        until(lambda: (life := in_pod.life(place.run, name, "dolly")) and life.restarts == 1 and life.alive, "restarted")
        with pytest.raises(RunbookError, match=r"was restarted: Error, exit code 3, before main\.py said a word") as raised:
            next_token.measure(place.run, facts, place.command(facts))
        assert "this notebook again" in raised.value.next


def test_out_of_memory_is_said_by_name(place: Place) -> None:
    with place.pod(memory="100Mi") as name:
        facts = place.copied()
        with pytest.raises(RunbookError, match="out of memory") as raised:
            next_token.measure(place.run, facts, place.command(facts))
        assert f"the pod {name} was restarted: OOMKilled, exit code 137" in raised.value.what
        assert "its memory limit is 100Mi" in raised.value.what
        assert "resources.limits.memory" in raised.value.next


def test_main_pys_own_error_is_its_own(place: Place) -> None:
    with place.pod():
        facts = place.copied()
        command = next_token.command(place.run, facts, prompt="x", top=0)
        with pytest.raises(CommandFailed, match="--top cannot be so"):
            next_token.measure(place.run, facts, command)
