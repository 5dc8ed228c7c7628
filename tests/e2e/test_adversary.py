"""An adversary in a pod gets nowhere, takes no more than its share, and its neighbour answers meanwhile.

The bombs go off only inside a jail whose limits were read first (`rlimits` and `statvfs` as the pod sees them).
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gpurunbook.targets.rehearsal import limits
from tests.e2e import adversary
from tests.e2e.test_pod_host import Space, until

pytestmark = pytest.mark.e2e
NAME = "adversary"
SCRIPT = Path(adversary.__file__).read_text()
SLOWEST = 15.0  # seconds that an answer of the neighbour may take: 0.1 on an idle machine


class Yard(Space):
    """The adversary's namespace."""

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.cluster.kubectl("-n", NAME, *args, input=input, check=check)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(errors="replace"),
                                           done.stderr.decode(errors="replace"))

    def argv(self, *args: str) -> list[str]:
        return [self.program, "--kubeconfig", str(self.cluster.kubeconfig), "-n", NAME, *args]

    def python(self, pod: str, script: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.kubectl("exec", "-i", pod, "--", "python", "-", *args, input=script, check=check)

    def folder(self, pod: str) -> Path:
        uid = self.get(pod)["metadata"]["uid"]
        return next(path for path in self.cluster.folder.rglob(f"pods/{uid}"))


@pytest.fixture(scope="module")
def yard(cluster: Any) -> Iterator[Yard]:
    cluster.kubectl("create", "namespace", NAME)
    made = Yard(cluster)
    for name in ("evil", "neighbour"):
        made.apply(name)
    for name in ("evil", "neighbour"):
        made.ready(name)
    made.sh("neighbour", "echo secret > /tmp/mine")
    yield made
    cluster.kubectl("delete", "namespace", NAME, "--wait=true", "--timeout=60s")


@pytest.fixture
def neighbour(yard: Yard) -> Iterator[None]:
    """The neighbour is asked all the while, must answer each time, and its times are printed."""
    times: list[float] = []
    wrong: list[str] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            began = time.monotonic()
            done = yard.kubectl("exec", "neighbour", "--", "cat", "/tmp/mine", check=False)
            times.append(time.monotonic() - began)
            if done.stdout != "secret\n":
                wrong.append(done.stderr)
            over.wait(0.2)

    asking = threading.Thread(target=ask)
    asking.start()
    yield
    over.set()
    asking.join()
    print(f"the neighbour answered {len(times)} times: median {statistics.median(times):.2f} s, slowest {max(times):.2f} s")
    assert not wrong
    assert max(times) < SLOWEST


@pytest.fixture
def facts(yard: Yard, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What there is to find on the host, some of it put there."""
    home, mark = Path.home() / f"gpurunbook-adversary-{os.getpid()}", "a-secret-of-the-host"
    planted = [home, tmp_path / "planted"]
    for path in planted:
        path.write_text("secret")
        path.chmod(0o600)
    config = yaml.safe_load(yard.cluster.kubeconfig.read_text())
    server = int(config["clusters"][0]["cluster"]["server"].rpartition(":")[2])
    folder = yard.cluster.folder
    victim = subprocess.Popen(["sleep", "300"], env={"GPURUNBOOK_CANARY": mark})
    with socket.socket(socket.AF_UNIX) as abstract, socket.socket(socket.AF_UNIX) as plain:
        abstract.bind(f"\0gpurunbook-{os.getpid()}")
        plain.bind(str(tmp_path / "socket"))
        for one in (abstract, plain):
            one.listen(50)
        yield {"files": [*map(str, planted), str(yard.cluster.kubeconfig), str(folder / "journal.jsonl"), __file__,
                         *map(str, sorted(folder.rglob("*.key"))[:3])],
               "folders": [str(folder), str(folder.parent), str(yard.folder("neighbour")),
                           os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))],
               "pids": [victim.pid], "environ": mark, "ports": [server, yard.port()],
               "sockets": [str(tmp_path / "socket")], "abstract": f"gpurunbook-{os.getpid()}"}
    victim.kill()
    victim.wait()
    home.unlink()


def test_no_attempt_gets_in(yard: Yard, facts: dict[str, Any]) -> None:
    got = json.loads(yard.python("evil", SCRIPT, json.dumps(facts)).stdout)
    print(f"{len(got)} attempts, {sum(got.values())} got in")
    assert len(got) > 50
    assert [name for name, inside in got.items() if inside] == []


def test_without_a_jail_the_same_attempts_get_in(facts: dict[str, Any]) -> None:
    facts["only"] = adversary.GUARDED
    done = subprocess.run([sys.executable, adversary.__file__, json.dumps(facts)], capture_output=True, text=True,
                          timeout=30, check=True)
    got = json.loads(done.stdout)
    assert len(got) > 20
    kept_out = [name for name, inside in got.items() if not inside]
    # A machine may have no vsock, and forbid io_uring to all.
    assert set(kept_out) <= {"vsock", "call io_uring_setup"}


def test_a_nul_in_a_variable_is_no_option_of_bubblewrap(yard: Yard) -> None:
    yard.apply("nul", env=[{"name": "A", "value": "x\0--ro-bind\0/etc\0/mnt"}])
    waiting = until(lambda: yard.main("nul").get("state", {}).get("waiting", {}).get("message"), "it is refused")
    assert "NUL" in waiting


def test_no_path_of_the_spec_leads_out(yard: Yard) -> None:
    yard.apply("up", spec={"volumes": [{"name": "data", "emptyDir": {}}]},
               volumeMounts=[{"name": "data", "mountPath": f"/data/../../oldroot/tmp/out-{os.getpid()}"}])
    waiting = until(lambda: yard.main("up").get("state", {}).get("waiting", {}).get("message"), "it is refused")
    assert "no plain absolute path" in waiting
    assert not Path(f"/tmp/out-{os.getpid()}").exists()


# kubectl cp


def hostile_tar(*members: tuple[str, str]) -> bytes:
    """A good file, and after it members of these names and, for a link, where it leads."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, link in (("files/good", ""), *members):
            member = tarfile.TarInfo(name)
            if link:
                member.type, member.linkname = tarfile.SYMTYPE, link
                archive.addfile(member)
            else:
                member.size = 4
                archive.addfile(member, io.BytesIO(b"evil"))
    return out.getvalue()


def test_copying_out_of_a_pod_writes_nowhere_else(yard: Yard, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    # The pod's own tar: one that sends what it likes, first in its PATH.
    yard.apply("liar", spec={"volumes": [{"name": "bin", "emptyDir": {}}]},
               volumeMounts=[{"name": "bin", "mountPath": "/opt/bin"}], env=[{"name": "PATH", "value": "/opt/bin:/usr/bin:/bin"}])
    yard.ready("liar")
    yard.sh("liar", "printf '#!/bin/sh\\ncat /opt/bin/archive\\n' > /opt/bin/tar; chmod +x /opt/bin/tar")
    for number, members in enumerate(([("files/../../above", "")], [(str(outside / "absolute"), "")],
                                      [("files/way", str(outside)), ("files/way/through", "")],
                                      [("files/up", "../../outside"), ("files/up/through", "")])):
        inside = tmp_path / str(number) / "files"
        inside.parent.mkdir()
        yard.cluster.kubectl("-n", NAME, "exec", "-i", "liar", "--", "sh", "-c", "cat > /opt/bin/archive",
                             input=hostile_tar(*members))
        yard.kubectl("cp", "liar:files", str(inside), check=False)
        assert (inside / "good").read_bytes() == b"evil", "the archive was read"
        assert list(outside.iterdir()) == []
        assert not (tmp_path / str(number) / "above").exists()
        assert not (tmp_path / "above").exists()
        assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_copying_into_a_pod_follows_its_links_no_further_than_the_pod(yard: Yard, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    (tmp_path / "file").write_text("mine")
    yard.sh("evil", f"ln -sfn {target} /home/app/way; mkdir -p /tmp/x; ln -sfn /tmp/x /home/app/near")
    yard.kubectl("cp", str(tmp_path / "file"), "evil:/home/app/way/file", check=False)
    assert list(target.iterdir()) == []
    yard.kubectl("cp", str(tmp_path / "file"), "evil:/home/app/near/file")
    assert yard.sh("evil", "cat /tmp/x/file") == "mine"


# Bombs


def test_a_fork_bomb_ends_at_the_limit(yard: Yard, neighbour: None) -> None:
    script = ("import os, time, resource\nassert resource.getrlimit(resource.RLIMIT_NPROC)[1] <= 512\ncount = 0\n"
              "end = time.time() + 4\ntry:\n"
              "    while True:\n"
              "        if os.fork() == 0:\n"
              "            while time.time() < end: pass\n"
              "            os._exit(0)\n"
              "        count += 1\n"
              "except OSError as error:\n    print(count, error.errno)\ntime.sleep(max(0, end - time.time()))")
    count, error = map(int, yard.python("evil", script).stdout.split())
    print(f"{count} processes")
    assert 100 < count <= limits.PROCESSES
    assert error == 11  # EAGAIN
    assert yard.sh("evil", "echo fine") == "fine\n"


def test_a_disk_is_full_at_its_limit(yard: Yard, neighbour: None) -> None:
    script = """
import errno, os, shutil
block = bytes(1 << 20)
for top in ("/tmp", "/home/app", "/dev/shm"):
    assert os.statvfs(top).f_blocks * os.statvfs(top).f_frsize <= 1 << 29, top
    wrote = files = 0
    try:
        with open(top + "/big", "wb") as big:
            while True:
                wrote += os.write(big.fileno(), block)
    except OSError as error:
        assert error.errno == errno.ENOSPC
    os.unlink(top + "/big")
    try:
        while True:
            os.close(os.open(f"{top}/{files}", os.O_CREAT | os.O_WRONLY))
            files += 1
    except OSError as error:
        assert error.errno == errno.ENOSPC
    for number in range(files):
        os.unlink(f"{top}/{number}")
    print(wrote >> 20, files)
"""
    free = os.statvfs(yard.cluster.folder)
    wrote = [tuple(map(int, line.split())) for line in yard.python("evil", script).stdout.splitlines()]
    print("MiB and files:", wrote)
    assert len(wrote) == 3
    assert all(300 < mib <= 512 for mib, _ in wrote[:2])
    assert wrote[2][0] == 64
    assert all(1000 < files <= 50_000 for _, files in wrote)
    left = os.statvfs(yard.cluster.folder)
    assert (free.f_bfree - left.f_bfree) * free.f_frsize < 400 << 20, "others write to this disk too"


def test_ten_thousand_folders_deep_is_gone_with_the_pod(yard: Yard) -> None:
    yard.ready(yard.apply("deep"))
    yard.python("deep", "import os\nos.chdir('/tmp')\nfor _ in range(10_000):\n    os.mkdir('d')\n    os.chdir('d')")
    folder = yard.folder("deep")
    yard.kubectl("delete", "pod", "deep")
    until(lambda: not folder.exists(), "its files go")


@pytest.mark.parametrize("allocate", ["b'x' * 2**20", "shared()"])
def test_memory_ends_at_the_limit(yard: Yard, neighbour: None, allocate: str) -> None:
    name = "hungry-shared" if "shared" in allocate else "hungry"
    script = ("import mmap, time\ndef shared():\n    one = mmap.mmap(-1, 2**20)\n    one.write(b'x' * 2**20)\n    return one\n"
              f"x = [{allocate} for _ in range(2000)]\nprint('got it all', flush=True)\ntime.sleep(60)")
    yard.apply(name, command=["python", "-c", script], resources={"limits": {"memory": "200Mi"}}, spec={"restartPolicy": "Never"})
    until(lambda: yard.get(name)["status"]["phase"] == "Failed", "it is ended")
    assert yard.main(name)["state"]["terminated"]["reason"] == "OOMKilled"


def test_open_files_end_at_the_limit(yard: Yard) -> None:
    script = ("import os\nheld = []\ntry:\n    while True:\n        held.append(os.open('/dev/null', os.O_RDONLY))\n"
              "except OSError as error:\n    print(len(held), error.errno)")
    count, error = map(int, yard.python("evil", script).stdout.split())
    assert 500 < count <= limits.FILES
    assert error == 24  # EMFILE


def test_the_kernel_ends_pods_first(yard: Yard) -> None:
    assert yard.sh("evil", "cat /proc/self/oom_score_adj") == "1000\n"


def test_endless_output_keeps_to_its_share_of_the_disk(yard: Yard, neighbour: None) -> None:
    yard.ready(yard.apply("loud", "exec yes 0123456789012345678901234567890123456789"))
    folder = yard.folder("loud") / "main"
    until(lambda: (folder / "0.log.1").exists(), "the log is rotated")
    time.sleep(2)
    sizes = [path.stat().st_size for path in folder.glob("*.log*")]
    assert sum(sizes) < 40 << 20
    assert yard.kubectl("logs", "loud", "--tail=1").stdout.startswith("0123456789")
    yard.kubectl("delete", "pod", "loud", "--grace-period=1")


def test_a_gigabyte_of_output_does_not_grow_the_host(yard: Yard, neighbour: None) -> None:
    def resident() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{yard.host_pid()}/status").read_text())[0])

    before, most, got = resident(), 0, 0
    with subprocess.Popen(yard.argv("exec", "evil", "--", "head", "-c", "1000000000", "/dev/zero"),
                          stdout=subprocess.PIPE) as kubectl:
        assert kubectl.stdout is not None
        while block := kubectl.stdout.read(1 << 24):
            got += len(block)
            most = max(most, resident())
    print(f"the pod host grew by {(most - before) >> 10} MiB")
    assert got == 1_000_000_000
    assert most - before < 64_000  # KiB
