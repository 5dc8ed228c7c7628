"""A kubeconfig that is swapped under a run: nothing is written in the other cluster, whenever it happens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gpurunbook.command import Command
from gpurunbook.errors import RunbookError
from gpurunbook.runbook import Run, open_run
from tests.e2e.conftest import Checkout, Cluster

KINDS = ("namespaces,deployments,daemonsets,pods,secrets,configmaps,services,serviceaccounts,clusterroles,"
         "customresourcedefinitions")
OTHER = "not the one this run began with"
LABEL = "gpurunbook-test/swapped"


@pytest.fixture(scope="module")
def mine(checkout: Checkout) -> Iterator[Cluster]:
    checkout("run", "--run-id", "mine", "--until", "provision")
    yield Cluster(checkout, "mine")
    checkout("teardown", "--run-id", "mine")


@pytest.fixture(autouse=True)
def restored(mine: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In the checkout, with its environment; the kubeconfig is put back at the end."""
    monkeypatch.chdir(mine.checkout.root)
    for name, value in mine.checkout.environment.items():
        monkeypatch.setenv(name, value)
    before = mine.kubeconfig.read_text()
    yield
    mine.kubeconfig.write_text(before)


def written(cluster: Cluster) -> tuple[dict[str, str], dict[str, object]]:
    """The resource version of every object but the nodes, whose status beats; and the nodes' labels and spec."""
    items = json.loads(cluster.kubectl("get", KINDS, "-A", "-o", "json").stdout)["items"]
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    return ({f"{i['kind']} {i['metadata'].get('namespace', '')}/{i['metadata']['name']}": i["metadata"]["resourceVersion"]
             for i in items}, {n["metadata"]["name"]: (n["metadata"]["labels"], n["spec"]) for n in nodes})


def swapped_whole(mine: Cluster, theirs: Cluster) -> str:
    """Another cluster's file, with our contexts' names."""
    return theirs.kubeconfig.read_text().replace(f"kwok-{theirs.run_id}", f"kwok-{mine.run_id}")


def swapped_server(mine: Cluster, theirs: Cluster) -> str:
    """Our file, with the other's server."""
    config, other = (yaml.safe_load(c.kubeconfig.read_text()) for c in (mine, theirs))
    config["clusters"][0]["cluster"]["server"] = other["clusters"][0]["cluster"]["server"]
    return yaml.safe_dump(config)


def unverified(mine: Cluster, theirs: Cluster) -> str:
    """The other's file, which trusts whoever answers."""
    config = yaml.safe_load(swapped_whole(mine, theirs))
    cluster = config["clusters"][0]["cluster"]
    cluster["insecure-skip-tls-verify"] = True
    cluster.pop("certificate-authority")
    return yaml.safe_dump(config)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("swap", [swapped_whole, swapped_server, unverified])
def test_between_two_stages(mine: Cluster, cluster: Cluster, swap: Callable[[Cluster, Cluster], str]) -> None:
    before = written(cluster)
    mine.kubeconfig.write_text(swap(mine, cluster))
    for stage in ("nodes", "taint", "gpu_operator", "model", "next_token"):
        with pytest.raises(RunbookError, match=f"{OTHER}|certificate"):
            open_run(stage, run_id="mine")
    assert written(cluster) == before


def label(run: Run, value: str) -> Command:
    return run.kubectl("label", "namespace", "default", f"{LABEL}={value}", "--overwrite", why="a write")


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@pytest.mark.parametrize("swap", [swapped_whole, swapped_server, unverified])
def test_in_the_middle_of_a_plan(mine: Cluster, cluster: Cluster, tmp_path: Path,
                                 swap: Callable[[Cluster, Cluster], str]) -> None:
    (tmp_path / "other").write_text(swap(mine, cluster))
    before, run = written(cluster), open_run("taint", run_id="mine")
    run.kubectl.get("nodes", why="")
    assert run.core.list_node(_request_timeout=10).items, "a client is open, and goes on in the old cluster"
    swapping = Command(("cp", str(tmp_path / "other"), str(run.kubeconfig)), why="somebody swaps the file", limit=10)
    with pytest.raises(RunbookError, match=f"{OTHER}|certificate"):
        run.apply(run.plan([label(run, swap.__name__), swapping, label(run, "after")], "x"))
    intents = [r["shown"] for r in run.journal.records() if r["kind"] == "intent" and LABEL in r["shown"]]
    assert intents[-1].endswith(f"{LABEL}={swap.__name__} --overwrite"), "the second write was not even intended"
    assert written(cluster) == before


def test_in_the_middle_of_tries(mine: Cluster, cluster: Cluster, tmp_path: Path) -> None:
    """The network fails, and before the next try somebody swaps the file: a kubectl of our own does both."""
    (tmp_path / "other").write_text(swapped_whole(mine, cluster))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f"#!/bin/sh\ncp {tmp_path / 'other'} {mine.kubeconfig}\necho 'Unable to connect: EOF' >&2\nexit 1\n")
    kubectl.chmod(0o755)
    before, run = written(cluster), open_run("taint", run_id="mine")
    run.kubectl = type(run.kubectl)(str(kubectl), run.kubeconfig, run.target.context(run))
    with pytest.raises(RunbookError, match=OTHER):
        run.apply(run.plan([run.kubectl.apply(run.manifest("model", "deployment.yaml"), why="a write")], "x"))
    assert written(cluster) == before


def test_each_kind_of_write_at_the_end_and_in_a_teardown(mine: Cluster, cluster: Cluster) -> None:
    before, run = written(cluster), open_run("teardown", run_id="mine")
    values, chart = run.manifest("gpu-operator", "ubuntu.yaml"), str(run.manifest("rehearsal", "gpu-operator"))
    writes = [run.kubectl.delete("namespace", "default"), run.kubectl.untaint_nodes("x", selector="a=b"),
              run.kubectl.cp_into(values, "pod", "/tmp/x", container="c"),
              run.kubectl.exec_with(values, "p", "sh", container="c", why=""),
              run.helm.uninstall("r", "default"), run.helm.rollback("r", "default"),
              run.helm.upgrade_install("r", chart, namespace="n", values=values)]
    mine.kubeconfig.write_text(swapped_whole(mine, cluster))
    count = len(list(run.journal.records()))
    for command in writes:
        with pytest.raises(RunbookError, match=OTHER):
            run.apply(run.plan([command], "x"))
    records = list(run.journal.records())[count:]
    looks = [r for r in records if r["kind"] == "before"]
    assert [r["kind"] for r in records if r not in looks] == ["plan"] * len(writes)
    assert all(look["seen"] == {} for look in looks), "nor is the other cluster in our journal"
    assert written(cluster) == before
