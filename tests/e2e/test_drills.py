"""Each drill on a real rehearsal: the ladder names it and nothing else, its own commands mend it, and nothing told its name.

Drills are played two at a time, ahead of the tests that look at them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gpurunbook import processes
from gpurunbook.drills import catalogue
from gpurunbook.drills.drill import Drill
from gpurunbook.readiness.causes import CAUSES
from gpurunbook.readiness.rungs import RUNGS
from gpurunbook.targets.rehearsal.world import World
from tests.e2e.conftest import Checkout, Cluster

AT_ONCE = 2
SECONDS = 60.0
"""How long a mended cluster may take to show it: mostly it is at once, a pod that is made anew takes a few."""
OTHER_WAYS = ("release-pending", "out-of-memory", "wrong-kubeconfig", "api-throttled")
"""Drills whose second way to mend is another one, not the same in other words; those are played twice."""
PLAYS = [(drill, way) for drill in catalogue.ALL for way in range(2 if drill.cause in OTHER_WAYS else 1)]
IDS = [f"{drill.cause}-{way + 1}" if way else drill.cause for drill, way in PLAYS]
BETWEEN_STARTS = threading.Lock()
"""kwokctl looks for free ports and takes them later: two that start in the same moment take the same ones."""
STARTED = "the cloud controller's work"
"""What `drill start` says once the control plane is there."""
KINDS = "nodes,pods,events,deployments,daemonsets,poddisruptionbudgets,namespaces,leases,configmaps,flowschemas"


@dataclass
class Played:
    """What was seen of one drill, in order."""

    started: dict[str, Any] = field(default_factory=dict)
    told: str = ""
    ladder: dict[str, Any] = field(default_factory=dict)
    before: subprocess.CompletedProcess[str] | None = None
    mending: subprocess.CompletedProcess[str] | None = None
    after: subprocess.CompletedProcess[str] | None = None
    ended: subprocess.CompletedProcess[str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)


def play(checkout: Checkout, drill: Drill, way: int, run_id: str) -> Played:
    """Start it, look, mend it as its own text says, check, and tear it down."""
    played, began = Played(), time.monotonic()

    def lap(name: str) -> None:
        played.seconds[name] = round(time.monotonic() - began - sum(played.seconds.values()), 1)

    try:
        played.started = begin(checkout, drill, run_id)
        lap("start")
        played.told = everything_told(checkout, run_id)
        played.ladder = gpu(checkout, run_id)
        played.before = checkout("drill", "check", "--run-id", run_id, check=False)
        lap("look")
        revealed = json.loads(checkout("drill", "reveal", "--run-id", run_id, "--json").stdout)
        played.mending = shell(checkout, played.started["export"], revealed["mends"][way]["commands"])
        while True:
            played.after = checkout("drill", "check", "--run-id", run_id, check=False)
            if played.after.returncode == 0 or time.monotonic() - began - sum(played.seconds.values()) > SECONDS:
                break
            time.sleep(0.5)
        lap("mend")
    finally:
        played.ended = checkout("teardown", "--run-id", run_id, check=False)
        processes.end(processes.of_runs(checkout.folder(run_id)))
        lap("end")
    return played


def begin(checkout: Checkout, drill: Drill, run_id: str) -> dict[str, Any]:
    """`drill start`, one control plane at a time. Returns what it prints as JSON."""
    seed = catalogue.seed_for(drill.cause)
    with BETWEEN_STARTS:
        process = subprocess.Popen(checkout.argv("drill", "start", "--seed", str(seed), "--run-id", run_id, "--json"),
                                   cwd=checkout.root, env=checkout.environment, stdin=subprocess.DEVNULL, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if STARTED in line:
                break
    out, rest = process.communicate(timeout=240)
    assert process.returncode == 0, "".join(said) + rest
    found: dict[str, Any] = json.loads(out)
    return found | {"said": "".join(said) + rest}


def gpu(checkout: Checkout, run_id: str) -> dict[str, Any]:
    done = checkout("gpu", "--run-id", run_id, "--json", check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shell(checkout: Checkout, export: str, commands: list[str]) -> subprocess.CompletedProcess[str]:
    """A person's terminal: the `export` line, then the commands, until one fails."""
    here = f"export PATH={Path(sys.executable).parent}:$PATH"
    return subprocess.run(["bash", "-e", "-c", "\n".join([export, here, *commands])], cwd=checkout.root, text=True,
                          env=checkout.environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=240, check=False)


def everything_told(checkout: Checkout, run_id: str) -> str:
    """All that a learner can read without opening the recipe: the journal, and the cluster's objects."""
    # As the components sign in: two drills are about a learner who cannot.
    components = checkout.folder(run_id) / "rehearsal" / "clusters" / run_id / "kubeconfig.yaml"
    objects = Cluster(checkout, run_id).kubectl(f"--kubeconfig={components}", "get", KINDS, "-A", "-o", "json")
    journal = (checkout.folder(run_id) / "journal.jsonl").read_text()
    return journal + objects.stdout.decode()


@pytest.fixture(scope="module")
def plays(checkout: Checkout, request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Played]]]:
    """All that are asked for, under way."""
    asked = {item.callspec.params["name"] for item in request.session.items
             if isinstance(item, pytest.Function) and hasattr(item, "callspec") and "name" in item.callspec.params}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {name: pool.submit(play, checkout, drill, way, f"d{number}")
                 for number, (name, (drill, way)) in enumerate(zip(IDS, PLAYS, strict=True)) if name in asked}
        try:
            yield found
        finally:
            for future in found.values():
                future.cancel()


@pytest.mark.parametrize(("name", "drill"), [(name, drill) for name, (drill, _) in zip(IDS, PLAYS, strict=True)], ids=IDS)
def test_a_drill_is_found_by_name_and_mended(plays: dict[str, Future[Played]], name: str, drill: Drill,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    played = plays[name].result()
    with capsys.disabled():
        print(f"\n  {name:24} " + ", ".join(f"{what} {seconds:g} s" for what, seconds in played.seconds.items()), flush=True)
    # It is found, by its own name on its own rung, and nothing else is.
    rungs = {CAUSES[drill.cause].rung} | ({"smoke"} if drill.cause == "gpu-taken" else set())
    assert [one["cause"] for one in played.ladder["findings"]] == [drill.cause]
    assert {one["rung"] for one in played.ladder["findings"]} <= rungs
    assert played.ladder["findings"][0]["evidence"]
    assert played.ladder["findings"][0]["next"]
    # Nobody told the name.
    assert played.started["told"] == drill.told
    assert drill.cause not in played.told
    assert played.before is not None
    assert played.before.returncode == 1
    for said in (played.started["said"], played.before.stdout, json.dumps(played.started)):
        assert drill.cause not in said
    # Its own commands mend it.
    assert played.mending is not None
    assert played.mending.returncode == 0, played.mending.stdout + played.mending.stderr
    assert played.after is not None
    assert played.after.returncode == 0, played.after.stdout
    # It is a run like any other.
    assert played.ended is not None
    assert played.ended.returncode == 0, played.ended.stdout + played.ended.stderr


def test_a_drill_that_is_given_up_is_torn_down_like_any_run(checkout: Checkout) -> None:
    """The hardest one to end: nothing in the run's kubeconfig leads to the cluster any more."""
    started = begin(checkout, catalogue.BY_NAME["wrong-kubeconfig"], "given-up")
    assert '{"' not in started["said"]
    assert "waiting until the fault shows" in started["said"]
    row = json.loads(checkout("status", "--run-id", "given-up", "--json").stdout)[0]
    assert (row["state"], row["drill"]) == ("kept", True)
    checkout("teardown", "--run-id", "given-up")
    assert not processes.of_runs(checkout.folder("given-up"))


def test_a_healthy_rehearsal_shows_no_finding(checkout: Checkout) -> None:
    checkout("run", "--run-id", "healthy", "--until", "model")
    found = gpu(checkout, "healthy")
    checkout("teardown", "--run-id", "healthy")
    assert found["findings"] == []
    assert [step["state"] for node in found["nodes"] for step in node["steps"]] == ["done"] * len(RUNGS)


def test_a_fault_that_nobody_foresaw_is_unknown_with_its_evidence(checkout: Checkout) -> None:
    """A toolkit that ends with a line that means nothing to us: no guess, but where, and what was seen."""
    image, nonsense = "nvidia/k8s/container-toolkit:v9.9.9", "flux capacitor out of phase by 88 mph"
    world: dict[str, dict[str, Any]] = {
        image: {"workdir": "/", "command": ["sh", "-c", f"echo {nonsense}; exit 3"]},
        "nvidia/gpu-operator:v0": {"workdir": "/", "command": ["true"]}}  # the same pod's init container
    folder = checkout.folder("unknown")
    (folder / "rehearsal").mkdir(mode=0o700, parents=True)
    World(images=world).save(folder / "rehearsal" / "world.json")
    checkout("run", "--run-id", "unknown", "--until", "taint")
    cluster = Cluster(checkout, "unknown")
    manifests = checkout.root / "manifests"
    cluster.helm("upgrade", "--install", "gpu-operator", str(manifests / "rehearsal" / "gpu-operator"), "-n", "gpu-operator",
                 "--create-namespace", "-f", str(manifests / "gpu-operator" / "ubuntu.yaml"), "--set", "toolkit.version=v9.9.9",
                 "--set", "validator.version=v0")
    until = time.monotonic() + SECONDS
    while not (found := gpu(checkout, "unknown"))["findings"] and time.monotonic() < until:
        time.sleep(0.5)
    checkout("teardown", "--run-id", "unknown")
    assert [(one["cause"], one["rung"]) for one in found["findings"]] == [("unknown", "toolkit")]
    assert nonsense in found["findings"][0]["evidence"]


def test_every_drill_is_played() -> None:
    assert {drill.cause for drill, _ in PLAYS} == set(catalogue.BY_NAME)
