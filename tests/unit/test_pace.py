"""How long things take in a rehearsal, what a world's file says, and what KWOK and the nodes are told of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError
from gpurunbook.runbook import Run
from gpurunbook.targets import Wishes
from gpurunbook.targets.rehearsal import cloud, kwok, nodes, pace, world
from gpurunbook.targets.rehearsal.cluster import Rehearsal
from gpurunbook.targets.rehearsal.world import World

ROOT = Path(__file__).parents[2]
STAGES = ROOT / "manifests" / "rehearsal" / "stages.yaml"


@pytest.mark.parametrize(("text", "value"), [("instant", 0), ("real", 1), ("0.05", 0.05), ("2", 2), ("0", 0)])
def test_a_pace_is_a_word_or_a_number(text: str, value: float) -> None:
    assert pace.number(text) == value


@pytest.mark.parametrize("text", ["", "fast", "-1", "nan", "inf", "11", "1e9", "0,5", "٣", "1_0"])
def test_another_pace_is_a_wrong_option(text: str) -> None:
    with pytest.raises(ConfigError, match="pace is"):
        pace.number(text)


def test_times_are_usual_ones_and_a_runs_own() -> None:
    real = World(pace=1, seed=1)
    for what, (low, high) in pace.USUAL.items():
        found = [pace.seconds(what, real, str(number)) for number in range(50)]
        assert low <= min(found) <= max(found) <= high
        assert len(set(found)) > 10, "each node has its own"
        assert found == [pace.seconds(what, World(pace=1, seed=1), str(number)) for number in range(50)]
        assert pace.seconds(what, real) != pace.seconds(what, World(pace=1, seed=2))
        assert pace.seconds(what, World(pace=0.1, seed=1)) == pytest.approx(pace.seconds(what, real) / 10, abs=0.001)
        assert pace.seconds(what, World()) == 0


def test_the_whole_stack_takes_what_nvidias_maintainer_says() -> None:
    """3 to 5 minutes (facts/performance.md, part 1): the waves, one after the other."""
    waves = ("driver manager", "driver", "driver validation", "toolkit", "validation", "validator", "toolkit validation",
             "device plug-in")
    low, high = (sum(pace.USUAL[what][end] for what in waves) for end in (0, 1))
    assert low >= 120
    assert high <= 300


def test_durations_are_as_kwok_compares_them() -> None:
    assert [pace.duration(x) for x in (0, 92.3, 0.001, 1200.0)] == ["0s", "92.3s", "0.001s", "1200s"]


def test_a_world_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "rehearsal" / "world.json"
    assert world.load(path) == World()
    there = World(pace=0.5, seed=3, images={"a": {"workdir": "/"}}, unhealthy=True, since="2026-11-22T12:00:00Z")
    there.save(path)
    assert world.load(path) == there
    assert path.stat().st_mode & 0o777 == 0o600
    for text in ('{"colour": 1}', "[", "[1]"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="cannot be read"):
            world.load(path)


def test_a_paced_rehearsal_waits_longer(tmp_path: Path) -> None:
    target, run = Rehearsal(), Run(ROOT, tmp_path, Rehearsal(), load_cluster(ROOT / "cluster.yaml"), "provision")
    assert target.wait_limit(run) == 60
    assert target.describe(tmp_path, run.cluster) is run.cluster
    assert target.wait_limit(run) == 60
    World(pace=1).save(tmp_path / "rehearsal" / "world.json")
    assert target.wait_limit(run) == 1860


def test_the_pace_of_a_made_rehearsal_stays(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(folder=tmp_path, id="r-1")

    def paced(wish: str, *, made: bool) -> float:
        return Rehearsal()._world(run, Wishes(pace=wish), made=made).pace

    assert [paced(wish, made=False) for wish in ("", "instant", "0.1")] == [0, 0, 0.1]
    World(pace=0.5).save(tmp_path / "rehearsal" / "world.json")
    assert [paced(wish, made=True) for wish in ("", "instant", "0.5")] == [0.5] * 3
    assert paced("0.1", made=False) == 0.1, "an interrupted start may begin again otherwise"
    with pytest.raises(ConfigError, match=r"pace is 0\.5: once made, it cannot become 1") as refused:
        paced("real", made=True)
    assert "gpurunbook teardown --run-id r-1" in refused.value.next
    Rehearsal().agree(load_cluster(ROOT / "cluster.yaml"), Wishes(pace=""))


def test_kwok_leaves_our_images_alone_and_takes_its_time_with_the_others() -> None:
    instant, paced = (kwok.stages(STAGES, ["b", "a"], World(pace=speed, seed=1)) for speed in (0, 1))
    assert kwok.STARTS_OTHERWISE not in json.dumps([instant, paced])
    assert f'// \\"{pace.duration(pace.seconds("pod", World(pace=1, seed=1)))}\\"' in json.dumps(paced)
    for stage in paced:
        images = [e for e in stage["spec"]["selector"]["matchExpressions"] if "image" in e["key"]]
        assert images == ([{"key": ".spec.containers.[].image", "operator": "NotIn", "values": ["a", "b"]}]
                          if stage["spec"]["resourceRef"]["kind"] == "Pod" else [])


def test_the_nodes_of_a_world() -> None:
    cluster = load_cluster(ROOT / "cluster.yaml")
    gpu, *cpus = nodes.manifest(cluster, 1, world=World(disk_gib=20, unplaced=True, pace=1, seed=5))["items"]
    assert gpu["status"]["capacity"]["ephemeral-storage"] == f"{20 * 2**20}Ki"
    assert "providerID" not in gpu["spec"]
    assert not [key for key in gpu["metadata"]["labels"] if key.startswith("topology.kubernetes.io/")]
    takes = [float(n["metadata"]["annotations"][pace.TAKES].removesuffix("s")) for n in (gpu, *cpus)]
    assert all(5 <= seconds <= 30 for seconds in takes)
    assert len(set(takes)) == 3
    plain = nodes.manifest(cluster, 1)["items"]
    for one, other in zip(cpus, plain[1:], strict=True):
        assert one["spec"] == other["spec"]
        assert one["status"] == other["status"]
    assert all(pace.TAKES not in n["metadata"]["annotations"] for n in plain)


def test_the_cloud_controllers_lease_is_held_by_one_and_renewed() -> None:
    began, later = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 9, tzinfo=UTC)
    first, second = (cloud.lease(World(seed=9), began, now) for now in (began, later))
    assert first["metadata"] == {"name": "cloud-controller-manager", "namespace": "kube-system"}
    assert first["spec"]["holderIdentity"] == second["spec"]["holderIdentity"]
    assert (first["spec"]["renewTime"], second["spec"]["renewTime"]) == ("2026-01-01T00:00:00.000000Z",
                                                                        "2026-01-01T00:00:09.000000Z")
    assert cloud.RENEW * 2 < cloud.DURATION == second["spec"]["leaseDurationSeconds"]
