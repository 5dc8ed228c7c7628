"""The smoke pod: which nodes get one, what it looks like, and that its program computes, and says so when it cannot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpurunbook.command import Command, Result
from gpurunbook.deployment import RUN_LABEL
from gpurunbook.readiness.probe import with_tar
from gpurunbook.readiness.smoke import manifest, pod_name, wanted
from gpurunbook.readiness.snapshot import Probe, Snapshot
from gpurunbook.readiness.view import GENERATION, SMOKE
from gpurunbook.readiness.workload import CUDA_ERROR, told
from tests.readiness import NAMES, NODE, NOW, get, healthy, node, smoke, without

FILE = Path(__file__).parents[2] / "manifests" / "gpu-operator" / "smoke.yaml"
TEMPLATE: list[dict[str, Any]] = list(yaml.safe_load_all(FILE.read_text()))


def no_model() -> Snapshot:
    return without(healthy(), "dolly-1")


def program(tmp_path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "smoke.py"
    path.write_text(TEMPLATE[0]["data"]["smoke.py"].replace("/dev/termination-log", str(tmp_path / "said")))
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GPURUNBOOK_")}
    return subprocess.run([sys.executable, "-W", "error", str(path)], env=kept | env, capture_output=True, text=True, timeout=60)


def test_a_rehearsal_computes_and_says_that_it_is_simulated(tmp_path: Path) -> None:
    ran = program(tmp_path, GPURUNBOOK_REHEARSAL="1")
    said = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert said == {"device": "simulated: computed on this machine's CPU", "ok": True, "seconds": said["seconds"]}
    assert (tmp_path / "said").read_text() == ran.stdout.strip(), "the kubelet takes it from there"
    assert "simulated" in told(ran.stdout)


def test_a_rehearsed_error_has_the_drivers_words(tmp_path: Path) -> None:
    ran = program(tmp_path, GPURUNBOOK_REHEARSAL="1", GPURUNBOOK_CUDA_ERROR="999")
    assert (ran.returncode, ran.stdout) == (1, "cuInit: 999 CUDA_ERROR_UNKNOWN\n")
    assert CUDA_ERROR.search(ran.stdout)


DRIVER = """
#include <string.h>
#include <stdlib.h>
typedef unsigned long long ptr;
int cuInit(unsigned flags) { return getenv("NO_DEVICE") ? 100 : 0; }
int cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal; }
int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "a driver of a test", size); return device; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { *context = &cuInit; return flags + device; }
int cuModuleLoadData(void **module, const char *image) {
  *module = &cuInit; return strstr(image, ".entry vector_add(") ? 0 : 218; }
int cuModuleGetFunction(void **kernel, void *module, const char *name) {
  *kernel = &cuModuleGetFunction; return strcmp(name, "vector_add") || module != &cuInit; }
int cuMemAlloc_v2(ptr *where, size_t size) { *where = (ptr)calloc(1, size); return *where ? 0 : 2; }
int cuMemcpyHtoD_v2(ptr to, const void *from, size_t size) { memcpy((void *)to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, ptr from, size_t size) { memcpy(to, (void *)from, size); return 0; }
int cuCtxSynchronize(void) { return 0; }
int cuGetErrorName(int code, const char **name) { *name = "CUDA_ERROR_NO_DEVICE"; return 0; }
int cuLaunchKernel(void *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **params, void **extra) {
  if (kernel != &cuModuleGetFunction || gy != 1 || gz != 1 || by != 1 || bz != 1 || shared || stream || extra) return 1;
  float *a = *(float **)params[0], *b = *(float **)params[1], *c = *(float **)params[2];
  unsigned n = *(unsigned *)params[3];
  for (unsigned block = 0; block < gx; block++)
    for (unsigned i = block * bx; i < (block + 1) * bx && i < n; i++) c[i] = a[i] + b[i] + (getenv("WRONG") ? 1 : 0);
  return 0; }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CUDA driver of our own that runs the kernel on the CPU: it holds the program to the driver's signatures."""
    folder = tmp_path_factory.mktemp("cuda")
    (folder / "cuda.c").write_text(DRIVER)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", folder / "libcuda.so.1", folder / "cuda.c"], check=True, timeout=60)
    return folder


def test_the_driver_is_called_with_the_arguments_that_it_has(tmp_path: Path, library: Path) -> None:
    ran = program(tmp_path, LD_LIBRARY_PATH=str(library))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert json.loads(ran.stdout)["device"] == "a driver of a test"


def test_an_error_of_the_driver_and_a_wrong_sum_fail(tmp_path: Path, library: Path) -> None:
    for env, said in (({"NO_DEVICE": "1"}, "cuInit: 100 CUDA_ERROR_NO_DEVICE"), ({"WRONG": "1"}, "of 1048576 sums wrongly")):
        ran = program(tmp_path, LD_LIBRARY_PATH=str(library), **env)
        assert ran.returncode == 1
        assert said in ran.stdout
        assert CUDA_ERROR.search(ran.stdout)


def test_without_the_drivers_library_it_says_what_that_means(tmp_path: Path) -> None:
    ran = program(tmp_path, LD_LIBRARY_PATH="")
    assert ran.returncode == 1
    assert "the container toolkit has not put the driver into this container" in ran.stdout
    assert CUDA_ERROR.search(ran.stdout)


def test_the_pod_asks_for_a_gpu_and_for_little_else() -> None:
    spec = TEMPLATE[1]["spec"]
    [container] = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert {"name": "NVIDIA_DRIVER_CAPABILITIES", "value": "compute,utility"} in container["env"]
    assert (spec["restartPolicy"], spec["automountServiceAccountToken"]) == ("Never", False)
    assert spec["activeDeadlineSeconds"] > 0
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert [t["key"] for t in spec["tolerations"]] == ["nvidia.com/gpu"]


def test_each_node_that_offers_a_gpu_gets_one_under_a_name_of_its_own() -> None:
    found = without(no_model(), "gpu-smoke-1")
    found = replace(found, nodes=(*found.nodes, node("ip-10-0-0-9")))
    plan = wanted(found, NAMES)
    assert [(one.node, one.make) for one in plan] == [(NODE, True), ("ip-10-0-0-9", True)]
    program, *pods = manifest(TEMPLATE, plan, "r1")
    assert program["kind"] == "ConfigMap"
    assert len({item["metadata"]["name"] for item in pods}) == 2
    assert {item["metadata"]["labels"][RUN_LABEL] for item in (program, *pods)} == {"r1"}
    assert pods[0]["spec"]["nodeSelector"] == {"kubernetes.io/hostname": NODE}
    assert pods[0]["metadata"]["name"] == pod_name(NODE, "r1")
    assert pods[0]["metadata"]["labels"][GENERATION] == plan[0].generation
    assert len(pod_name("x" * 253, "r" * 63)) <= 63
    assert "nodeSelector" not in TEMPLATE[1]["spec"], "the template stays as it is"


def test_a_success_is_kept_until_the_stack_is_made_anew() -> None:
    assert [one.make for one in wanted(no_model(), NAMES)] == [False]
    for name in ("driver-1", "toolkit-1", "plugin-1"):
        anew = no_model()
        get(anew, name)["metadata"]["uid"] = "anew"
        [one] = wanted(anew, NAMES)
        assert (one.make, one.stale) == (True, ("gpu-smoke-1",)), name
    booted = no_model()
    get(booted, NODE)["status"]["nodeInfo"]["bootID"] = "boot-2"
    assert wanted(booted, NAMES)[0].make


@pytest.mark.parametrize(("phase", "make", "stale"), [("Failed", True, ("gpu-smoke-1",)), ("Pending", False, ()),
                                                      ("Running", False, ()), ("Succeeded", False, ())])
def test_a_failure_is_run_again_and_one_that_runs_is_left_alone(phase: str, make: bool, stale: tuple[str, ...]) -> None:
    found = without(no_model(), "gpu-smoke-1")
    [one] = wanted(replace(found, pods=(*found.pods, smoke(found, phase, "x"))), NAMES)
    assert (one.make, one.stale) == (make, stale)


def test_where_the_model_holds_the_gpu_none_is_run() -> None:
    [one] = wanted(without(healthy(), "gpu-smoke-1"), NAMES)
    assert not one.make
    assert "dolly-1 holds the GPU" in one.reason


def test_a_node_without_an_allocatable_gpu_gets_none() -> None:
    found = without(no_model(), "gpu-smoke-1")
    get(found, NODE)["status"]["allocatable"] = {"nvidia.com/gpu": "0"}
    assert wanted(found, NAMES) == []
    assert not [p for p in found.pods if p["metadata"]["labels"].get("app") == SMOKE]


@pytest.mark.parametrize(("code", "out", "err", "tar"), [
    (0, "tar (GNU tar) 1.35\n", "", True), (1, "", 'exec: "tar": executable file not found in $PATH', False),
    (126, "", "OCI runtime exec failed: tar: no such file or directory", False), (1, "", "unexpected EOF", None),
    (0, "", "", None)])
def test_what_tar_says(code: int, out: str, err: str, tar: bool | None) -> None:
    asked = Result(Command(("kubectl",), "", 1), code, out.encode(), err, 0.1)
    assert with_tar(Probe("u", NOW, 0, True), asked).tar is tar


def test_runs_that_share_a_cluster_leave_each_others_smoke_pods_alone() -> None:
    theirs = no_model()
    get(theirs, "gpu-smoke-1")["metadata"]["labels"][RUN_LABEL] = "another"
    [one] = wanted(theirs, NAMES)
    assert (one.make, one.stale) == (True, ())
    elsewhere = no_model()
    get(elsewhere, "gpu-smoke-1")["metadata"]["namespace"] = "team-b"
    assert wanted(elsewhere, NAMES)[0].stale == ()
    mine, other = (manifest(TEMPLATE, wanted(theirs, NAMES), run) for run in ("r1", "r2"))
    assert {i["metadata"]["name"] for i in mine}.isdisjoint(i["metadata"]["name"] for i in other)
    program, pod = mine
    assert pod["spec"]["volumes"][0]["configMap"]["name"] == program["metadata"]["name"]
    assert pod["metadata"]["name"].startswith(SMOKE)


@pytest.mark.parametrize("resource", ["nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb"])
def test_none_is_made_that_could_never_be_scheduled(resource: str) -> None:
    found = without(no_model(), "gpu-smoke-1")
    get(found, NODE)["status"]["allocatable"] = {resource: "2"}
    [one] = wanted(found, NAMES)
    assert not one.make
    assert "not supported" in one.reason


@pytest.mark.parametrize("line", [
    '{"device": "T4", "seconds": 1' + "0" * 400 + "}", '{"device": "T4", "seconds": "x"}', "[]", "", "1"])
def test_a_strange_last_line_is_no_error(line: str) -> None:
    assert told(line)
