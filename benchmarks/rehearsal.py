"""How fast a rehearsal is, as ratios measured side by side in one run: `make bench`.

    control plane   ours (every node Ready, pod host up) / `kwokctl create cluster --wait` with the same binaries and its
                    own defaults; ours waits for the API server itself, without kwokctl's pauses, and etcd does not sync
    notebooks       what the nine notebooks add to their commands / nine notebooks with only the same imports
    import          `import gpurunbook`, best of five
    demo            the whole walk, stage by stage

Results go to benchmarks/results/rehearsal.json, with versions. Exit code 1 when a figure is over its limit.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import nbformat

from gpurunbook import programs, stages
from gpurunbook.journal import Journal

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "rehearsal.json"
PAIRS = 5
ADDED = {"gpu_operator": ("plots",), "next_token": ("plots",), "latency": ("plots",)}
"""Imports that a notebook's cells make later than at the top."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="gpurunbook-bench-") as name:
        folder = Path(name)
        found = {"control_plane": control_plane(folder), "import_seconds": import_seconds(), **walk(folder)}
    found |= {"when": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count(), "machine": platform.machine(),
              "python": platform.python_version(), "versions": {n: version(n) for n in ("papermill", "ipykernel", "kubernetes")},
              "programs": {n: programs.find(n).version for n in ("kube-apiserver", "etcd", "kwokctl", "helm")}}
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    # Measured by hand: a bench must not fetch, build and test for minutes.
    found |= {name: before[name] for name in ("cold_make_demo", "make_test") if name in before}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    plane, books, over = found["control_plane"], found["notebooks"], []
    for name, value, limit, how in [
        ("control plane", plane["ratio"], 1.3, f"{plane['ours_s']:.2f} s / kwokctl {plane['kwokctl_s']:.2f} s"),
        ("notebooks", books["ratio"], 1.2, f"{books['overhead_s']:.1f} s / empty {books['empty_s']:.1f} s"),
        ("import", found["import_seconds"], 0.3, "seconds"), ("demo", found["demo"]["total_s"], 60, "seconds")]:
        print(f"{name:14} {value:6.2f}, at most {limit:g}{'  OVER' if value > limit else ''}  ({how})")
        over += [name] if value > limit else []
    for stage, seconds in found["demo"]["stages"].items():
        print(f"    {stage:14} {seconds:5.1f} s")
    print(f"kept in {RESULTS.relative_to(ROOT)}")
    sys.exit(bool(over))


def control_plane(folder: Path) -> dict[str, float]:
    """Medians of PAIRS runs in turn, in seconds, and the median of the ratios pair by pair."""
    checkout = make_checkout(folder / "plane")
    ours, bare = [], []
    for i in range(PAIRS):
        ours.append(_ours(checkout, f"bench-{i}"))
        bare.append(_kwokctl(folder / f"kwok-{i}"))
    return {"ours_s": statistics.median(ours), "kwokctl_s": statistics.median(bare),
            "ratio": statistics.median(a / b for a, b in zip(ours, bare, strict=True))}


def _ours(checkout: Path, run_id: str) -> float:
    """Seconds from the first command of provision to every node Ready, in a process that has its imports."""
    code = ("import time; from gpurunbook import open_run; from gpurunbook.stages import provision; import kubernetes\n"
            f"run = open_run('provision', run_id={run_id!r})\n"
            "plan = provision.plan(run, provision.observe(run))\n"
            "began = time.monotonic(); run.apply(plan); provision.wait(run)\n"
            "print('SECONDS', time.monotonic() - began)")
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True)
    _cli(checkout, "teardown", "--run-id", run_id)
    return float(done.stdout.rsplit("SECONDS", 1)[1])


def _kwokctl(work: Path) -> float:
    """Seconds of plain `kwokctl create cluster --wait` with its own defaults, bound to loopback."""
    binaries = {"etcd": "etcd", "kube-apiserver": "kube-apiserver", "kube-controller-manager": "kube-controller-manager",
                "kube-scheduler": "kube-scheduler", "kwok-controller": "kwok", "kubectl": "kubectl"}
    work.mkdir()
    config = work / "kwok.yaml"
    options = "".join(f"  {_option(k)}: {programs.find(v).path}\n" for k, v in binaries.items())
    config.write_text("apiVersion: config.kwok.x-k8s.io/v1alpha1\nkind: KwokctlConfiguration\noptions:\n"
                      f"  runtime: binary\n  bindAddress: 127.0.0.1\n{options}")
    env = os.environ | {"KWOK_WORKDIR": str(work), "HOME": str(work)}
    call = [programs.find("kwokctl").path]
    began = time.monotonic()
    subprocess.run([*call, "create", "cluster", "--name=bare", f"--config={config}", f"--kubeconfig={work / 'kubeconfig'}",
                    "--wait=60s"], env=env, check=True, capture_output=True)
    seconds = time.monotonic() - began
    subprocess.run([*call, "delete", "cluster", "--name=bare", f"--kubeconfig={work / 'kubeconfig'}"], env=env, check=True,
                   capture_output=True)
    return seconds


def _option(component: str) -> str:
    first, *rest = component.split("-")
    return first + "".join(part.title() for part in rest) + "Binary"


def import_seconds() -> float:
    """Best of five of `import gpurunbook`, less an empty interpreter."""
    def best(code: str) -> float:
        times = []
        for _ in range(5):
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.monotonic() - began)
        return min(times)

    return best("import gpurunbook") - best("pass")


def walk(folder: Path) -> dict[str, dict[str, object]]:
    """The demo, and before and after it nine notebooks that only import what the walk's notebooks import."""
    checkout = make_checkout(folder / "demo")
    before = _empty_notebooks(folder / "before", checkout)
    began = time.monotonic()
    _cli(checkout, "run", "--run-id", "demo")
    total = time.monotonic() - began
    records = list(Journal(checkout / "runs" / "demo").records())
    seconds = {r["stage"]: r["seconds"] for r in records if r["kind"] == "notebook" and r["state"] == "ended"}
    in_commands = sum(r["seconds"] for r in records if r["kind"] == "result" and r["seconds"])
    in_waits = sum(r["seconds"] for r in records if r["kind"] == "wait" and not r["blocker"])
    empty = (before + _empty_notebooks(folder / "after", checkout)) / 2
    overhead = sum(seconds.values()) - in_commands - in_waits
    return {"demo": {"total_s": total, "stages": seconds},
            "notebooks": {"overhead_s": overhead, "empty_s": empty, "ratio": overhead / empty}}


def _empty_notebooks(folder: Path, checkout: Path) -> float:
    folder.mkdir()
    for stage in stages.NAMES:
        imports = ["from gpurunbook import open_run", f"from gpurunbook.stages import {stage}",
                   *(["from kubernetes.client import CoreV1Api"] if stage != "preflight" else []),
                   *(f"from gpurunbook import {name}" for name in ADDED.get(stage, ())),
                   *(["import matplotlib.figure"] if stage in ADDED else [])]
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("\n".join(imports))])
        nbformat.write(book, folder / f"{stage}.ipynb")
    code = ("import papermill, sys, time; began = time.monotonic()\n"
            "for name in sys.argv[2:]:\n"
            "    papermill.execute_notebook(f'{sys.argv[1]}/{name}.ipynb', f'{sys.argv[1]}/{name}.out.ipynb', "
            "kernel_name='python3', progress_bar=False, shutdown_kernel='immediate')\n"
            "print('SECONDS', time.monotonic() - began)")
    done = subprocess.run([sys.executable, "-c", code, str(folder), *stages.NAMES], cwd=checkout, check=True,
                          capture_output=True, text=True)
    return float(done.stdout.rsplit("SECONDS", 1)[1])


def make_checkout(folder: Path) -> Path:
    folder.mkdir()
    for name in ("notebooks", "manifests"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copy(ROOT / "cluster.yaml", folder)
    return folder


def _cli(checkout: Path, *args: str) -> None:
    subprocess.run([sys.executable, "-m", "gpurunbook", *args], cwd=checkout, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()
