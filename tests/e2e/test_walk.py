"""The whole walk, for real, twice: nine notebooks, ten tokens, and nothing left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil
import pytest

from gpurunbook import processes, stages
from gpurunbook.targets.rehearsal import weights
from tests.e2e.conftest import SENTINEL, Checkout, Cluster
from tests.truth import next_tokens

PROMPT = "Long long ago, in a"
CHANGING = ("provision", "taint", "gpu_operator", "model", "next_token")


@pytest.fixture(scope="module")
def walked(checkout: Checkout) -> Iterator[Cluster]:
    """A full walk, kept, then walked a second time and kept."""
    for _ in range(2):
        checkout("run", "--run-id", "walk", "--keep", "-p", "repetitions=10", "-p", "uninitialized_taint=true")
    yield Cluster(checkout, "walk")
    checkout("teardown", "--run-id", "walk")
    assert not processes.of_runs(checkout.folder("walk"))


def test_the_first_walk_changes_the_cluster_and_the_second_nothing(walked: Cluster) -> None:
    plans: dict[str, list[int]] = {}  # stage -> number of commands in all plans of each walk
    for record in walked.checkout.records("walk"):
        if record["kind"] == "notebook" and record["state"] == "started":
            plans.setdefault(record["stage"], []).append(0)
        elif record["kind"] == "plan":
            plans[record["stage"]][-1] += len(record["commands"])
    assert all(plans[stage][0] > 0 for stage in CHANGING), plans
    assert all(second == 0 for _, second in plans.values()), plans


def test_every_notebook_is_executed_and_kept(walked: Cluster) -> None:
    for stage in stages.NAMES[:-1]:
        book = nbformat.read(walked.folder / "notebooks" / stages.notebook(stage), as_version=4)
        code = [c for c in book.cells if c.cell_type == "code"]
        assert all(c.execution_count for c in code), stage
        assert not [o for c in code for o in c.outputs if o.output_type == "error"], stage


def test_the_pods_tokens_are_the_truth(walked: Cluster) -> None:
    found = json.loads((walked.folder / "artifacts" / "next_tokens.json").read_text())
    truth = next_tokens(weights.prepare(), PROMPT, 10)
    assert found["prompt"] == PROMPT
    assert [t["id"] for t in found["top"]] == [token for token, _, _ in truth]
    assert [t["p"] for t in found["top"]] == pytest.approx([p for _, _, p in truth], abs=1e-3)


def test_pictures_and_report_are_there(walked: Cluster) -> None:
    for name in ("top10.png", "spread.png", "latency.png", "rungs.png"):
        assert (walked.folder / "artifacts" / name).read_bytes().startswith(b"\x89PNG")
    page = (walked.folder / "report.html").read_text()
    assert "<script" not in page
    assert "EC2, its quotas" in page
    assert 'id="time"' in page
    assert "image pull on " in page
    asked = json.loads((walked.folder / "artifacts" / "ladder.json").read_text())["commands"]
    # The second walk's 05 looks at a model that the first one deployed.
    assert asked.keys() == {"release", "smoke", "scheduled"}, "each from its command on"
    assert "the model is not deployed" not in page
    for stage in stages.NAMES[:-1]:
        assert f'id="stage-{stage}"' in page


def test_plan_has_nothing_to_do_and_writes_nothing(walked: Cluster) -> None:
    def files() -> dict[Path, int]:
        # kubectl's and helm's own caches may grow.
        return {f: f.stat().st_mtime_ns for f in walked.folder.rglob("*")
                if f.is_file() and not {"cache", "helm", "rehearsal"} & set(f.relative_to(walked.folder).parts)}

    before = files()
    rows = json.loads(walked.checkout("plan", "--run-id", "walk", "--json").stdout)
    assert [row["stage"] for row in rows] == list(stages.NAMES)
    assert not [row for row in rows if row["commands"]]
    assert files() == before


def test_status_says_that_it_was_kept(walked: Cluster) -> None:
    (row,) = json.loads(walked.checkout("status", "--run-id", "walk", "--json").stdout)
    assert row["state"] == "kept"
    assert row["processes"] >= 6
    assert not row["in_flight"]


def test_every_socket_is_on_loopback(walked: Cluster) -> None:
    ours = {p.pid for p in processes.of_runs(walked.folder)}
    sockets = [c for pid in ours for c in psutil.Process(pid).net_connections("inet")]
    listening = [c for c in sockets if c.status == psutil.CONN_LISTEN]
    assert len(listening) >= 4
    assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::1"}


def test_the_users_own_files_are_untouched(walked: Cluster) -> None:
    home = walked.checkout.home
    for name in (".kube", ".config/helm", ".cache/helm", ".kwok"):
        files = [f for f in (home / name).rglob("*") if f.is_file()]
        assert len(files) == 1, files
        assert files[0].read_text() == SENTINEL


def test_what_the_run_wrote_is_private(walked: Cluster) -> None:
    for name in ("journal.jsonl", "kubeconfig", "report.html", "notebooks/01_preflight.ipynb", "artifacts/top10.png"):
        assert (walked.folder / name).stat().st_mode & 0o077 == 0, name
    assert walked.folder.stat().st_mode & 0o077 == 0


def test_a_swapped_kubeconfig_is_refused_before_a_write(walked: Cluster, cluster: Cluster) -> None:
    mine = walked.kubeconfig.read_text()
    other = cluster.kubeconfig.read_text().replace("kwok-shared", "kwok-walk")
    try:
        walked.kubeconfig.write_text(other)
        refused = walked.checkout("run", "--run-id", "walk", "--from", "gpu_operator", "--until", "gpu_operator",
                                  check=False)
    finally:
        walked.kubeconfig.write_text(mine)
    assert refused.returncode == 1
    assert "not the one this run began with" in refused.stderr
    assert b"gpu-operator" not in cluster.helm("list", "-A").stdout


def test_shell_is_a_terminal_in_the_pod(walked: Cluster) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(walked.checkout.argv("shell", "--run-id", "walk"), cwd=walked.checkout.root,
                               env=walked.checkout.environment, stdin=slave, stdout=slave,
                               stderr=subprocess.DEVNULL)
    os.close(slave)
    os.write(master, b"tty; echo in-$((40+2))-the-pod; exit 7\n")
    said = b""
    while b"in-42-the-pod" not in said:
        said += os.read(master, 4096)
    assert b"/dev/" in said
    assert process.wait(timeout=20) == 7
    os.close(master)


def test_two_runs_live_side_by_side(walked: Cluster, cluster: Cluster) -> None:
    uids = {c.kubectl("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}").stdout for c in (walked, cluster)}
    assert len(uids) == 2


def test_the_posts_own_file_runs_to_the_end(checkout: Checkout) -> None:
    done = checkout("run", "--run-id", "post", "--cluster-file", "tests/data/cluster.post.yaml", "-p", "repetitions=2", "--json")
    assert "Kubernetes 1.27 is out of support" in done.stderr
    assert "ami-0ff21ec7370b1f3fb" in done.stderr
    assert len(json.loads(done.stdout)["top"]) == 10
    ended = [r for r in checkout.records("post") if r["kind"] == "notebook" and r["state"] == "ended"]
    assert len(ended) == 9
    assert sum(r["seconds"] for r in ended) <= 60
    assert not processes.of_runs(checkout.folder("post"))
    assert not (checkout.folder("post") / "kubeconfig").exists()


@pytest.mark.parametrize("moment", ["create cluster", "upgrade --install", "deployment.yaml", "python /home/bentoml"])
def test_kill_9_then_clean_leaves_nothing(checkout: Checkout, moment: str) -> None:
    run_id = f"kill-{moment.split()[0].partition('.')[0]}"
    process = subprocess.Popen(checkout.argv("run", "--run-id", run_id, "--keep"), cwd=checkout.root, env=checkout.environment,
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _until(lambda: any(r["kind"] == "intent" and moment in r["shown"] for r in checkout.records(run_id)), 120, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    # The kernel of the killed command line ends by itself; until then its run is alive.
    psutil.wait_procs([c for c in children if "ipykernel" in " ".join(_cmdline(c))], timeout=30)
    checkout("clean", "--run-id", run_id)  # without it, what the developer of this machine left elsewhere would go as well
    assert not processes.of_runs(checkout.folder(run_id))
    folder = str(checkout.folder(run_id))
    assert not [f for f in Path("/tmp").glob(f"gpurunbook-{os.getuid()}-*/run") if f.read_text().strip() == folder]
    assert not [line for line in Path("/proc/mounts").read_text().splitlines() if folder in line]
    checkout("run", "--run-id", run_id, "--until", "model")
    checkout("teardown", "--run-id", run_id)
    assert not processes.of_runs(checkout.folder(run_id))


def test_ctrl_c_ends_what_was_running_and_the_same_run_goes_on(checkout: Checkout) -> None:
    process = subprocess.Popen(checkout.argv("run", "--run-id", "ctrl-c", "--until", "model"), cwd=checkout.root,
                               env=checkout.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    _until(lambda: any(r["kind"] == "pid" for r in checkout.records("ctrl-c") if _is_helm_upgrade(checkout, r)), 120, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Go on with: gpurunbook run --run-id ctrl-c" in said
    assert not [p for p in processes.of_runs(checkout.folder("ctrl-c")) if p.name in ("helm", "kubectl")]
    assert json.loads(checkout("status", "--run-id", "ctrl-c", "--json").stdout)[0]["in_flight"] == []
    checkout("run", "--run-id", "ctrl-c", "--until", "model")
    checkout("teardown", "--run-id", "ctrl-c")


def _is_helm_upgrade(checkout: Checkout, record: dict[str, object]) -> bool:
    intents = {r["id"]: r["shown"] for r in checkout.records("ctrl-c") if r["kind"] == "intent"}
    return "upgrade --install" in intents.get(record.get("id"), "")


def test_a_second_walk_of_a_run_is_refused_by_pid(checkout: Checkout) -> None:
    process = subprocess.Popen(checkout.argv("run", "--run-id", "alone", "--until", "nodes"), cwd=checkout.root,
                               env=checkout.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    _until(lambda: any(r["kind"] == "notebook" for r in checkout.records("alone")), 60, process)
    done = checkout("run", "--run-id", "alone", check=False)
    assert done.returncode == 1
    assert f"is being worked on by `gpurunbook run`, process {process.pid}" in done.stderr
    assert process.wait(timeout=120) == 0
    checkout("teardown", "--run-id", "alone")
    checkout("run", "--run-id", "alone", "--until", "taint")  # a finished run begins again, with another cluster
    checkout("teardown", "--run-id", "alone")


def test_a_stage_too_early_says_which_one_is_missing(checkout: Checkout) -> None:
    done = checkout("run", "--run-id", "early", "--from", "taint", "--until", "taint", check=False)
    assert done.returncode == 1
    assert "02_provision" in done.stderr
    assert not processes.of_runs(checkout.folder("early"))


def test_a_port_taken_by_another_is_said(checkout: Checkout) -> None:
    # The pod host's port is chosen free; somebody may still take it before it is used.
    checkout("run", "--run-id", "ports", "--until", "provision")
    checkout("clean", "--run-id", "ports")
    port = next(r["port"] for r in checkout.records("ports") if r["kind"] == "pod_host")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = checkout("run", "--run-id", "ports", "--from", "provision", "--until", "provision", check=False)
    assert done.returncode == 1
    assert str(port) in done.stderr
    checkout("clean", "--run-id", "ports")


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _until(true: object, limit: float, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + limit
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, "the moment did not come"
        assert process.poll() is None or process.returncode == -signal.SIGKILL, f"ended with {process.returncode}"
        time.sleep(0.02)
