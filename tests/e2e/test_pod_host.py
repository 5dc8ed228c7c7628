"""Pods that compute, on a real control plane: kubectl and the `kubernetes` client against the pod host."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.e2e
SPACE = "pod-host"
PYTHON = "gpurunbook/python:3"
DOLLY = "irbull/dolly:0.2"
SECONDS = 30.0  # for anything that takes a second on an idle machine


def until(question: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    """The first true answer."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := question():
            return answer
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")


class Space:
    """A namespace of the session's cluster."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.program = cluster.kubectl("version", "--client").args[0]

    def kubectl(self, *args: str, input: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = self.cluster.kubectl("-n", SPACE, *args, input=input, check=check)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def argv(self, *args: str) -> list[str]:
        return [self.program, "--kubeconfig", str(self.cluster.kubeconfig), "-n", SPACE, *args]

    def sh(self, pod: str, script: str) -> str:
        return self.kubectl("exec", pod, "--", "sh", "-c", script).stdout

    def apply(self, name: str, script: str | None = None, *, image: str = PYTHON, spec: dict[str, Any] | None = None,
              **container: Any) -> str:
        if script is not None:
            container["command"] = ["sh", "-c", script]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "tolerations": [{"operator": "Exists"}], "terminationGracePeriodSeconds": 2,
            "containers": [{"name": "main", "image": image, **container}], **(spec or {})}}
        self.kubectl("apply", "-f", "-", input=json.dumps(pod))
        return name

    def get(self, pod: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "pod", pod, "-o", "json").stdout)
        return found

    def main(self, pod: str) -> dict[str, Any]:
        statuses = self.get(pod)["status"].get("containerStatuses", [{}])
        status: dict[str, Any] = statuses[0]
        return status

    def ready(self, pod: str) -> str:
        self.kubectl("wait", f"pod/{pod}", "--for=condition=Ready", f"--timeout={SECONDS:.0f}s")
        return pod

    def events(self, pod: str) -> list[dict[str, Any]]:
        """About a pod, oldest first."""
        found = json.loads(self.kubectl("get", "events", "-o", "json", f"--field-selector=involvedObject.name={pod}").stdout)
        items: list[dict[str, Any]] = [e for e in found["items"] if e["source"].get("component") == "kubelet"]
        return sorted(items, key=lambda e: (e["firstTimestamp"], e["metadata"]["name"]))

    def restart_host(self, world: str | None = None) -> str:
        """End the pod host and start it again as it was, in another world. Returns the world before."""
        pid = self.host_pid()
        argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        environment = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry)
        path = Path(next(word for word in argv if word.startswith("--world=")).removeprefix("--world="))
        before = path.read_text()
        os.kill(pid, signal.SIGTERM)
        until(lambda: ended(pid), "the pod host ends", 5)
        path.write_text(world or before)
        subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20, check=True)
        return before

    def port(self) -> int:
        nodes = json.loads(self.kubectl("get", "nodes", "-o", "json").stdout)["items"]
        port: int = nodes[0]["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        return port

    def host_pid(self) -> int:
        """The pod host: the process whose arguments name our kubeconfig."""
        mark = str(self.cluster.kubeconfig).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if b"gpurunbook.targets.rehearsal" in words and any(mark in word for word in words):
                        return int(entry.name)
        raise AssertionError("no pod host")


@pytest.fixture(scope="module")
def space(cluster: Any) -> Iterator[Space]:
    cluster.kubectl("create", "namespace", SPACE)
    yield Space(cluster)
    cluster.kubectl("delete", "namespace", SPACE, "--wait=true", "--timeout=60s")


@pytest.fixture(scope="module")
def box(space: Space) -> str:
    return space.ready(space.apply("box"))


def jails_running(mark: str) -> int:
    """How many processes of this machine have the mark in their arguments, kubectl's own aside."""
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes()
                count += mark.encode() in words and b"kubectl" not in words and b"pytest" not in words
    return count


def ended(pid: int) -> bool:
    """Whether a process has ended, be it reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


# Exec and cp


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_codes_come_back(space: Space, box: str, code: int) -> None:
    assert space.kubectl("exec", box, "--", "sh", "-c", f"exit {code}", check=False).returncode == code


def test_a_killed_command_counts_as_in_a_shell(space: Space, box: str) -> None:
    assert space.kubectl("exec", box, "--", "sh", "-c", "kill -9 $$", check=False).returncode == 137


@pytest.mark.parametrize(("program", "said"), [
    ("no-such-program", 'exec: "no-such-program": executable file not found in $PATH'),
    ("/bin/no-such-program", 'exec: "/bin/no-such-program": stat /bin/no-such-program: no such file or directory')])
def test_a_missing_command_is_said_as_containerd_says_it(space: Space, box: str, program: str, said: str) -> None:
    done = space.kubectl("exec", box, "--", program, check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_stdin_ends(space: Space, box: str) -> None:
    assert space.kubectl("exec", "-i", box, "--", "cat", input="hi\n").stdout == "hi\n"


def test_a_command_may_ignore_its_stdin(space: Space, box: str) -> None:
    assert space.kubectl("exec", "-i", box, "--", "head", "-c", "3", input="abc" + "x" * 3_000_000).stdout == "abc"


def test_stdout_and_stderr_stay_apart(space: Space, box: str) -> None:
    done = space.kubectl("exec", box, "--", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_50_mb_in_and_out_unchanged(space: Space, box: str, tmp_path: Path) -> None:
    data = os.urandom(50_000_000)
    (tmp_path / "in").write_bytes(data)
    space.kubectl("cp", str(tmp_path / "in"), f"{box}:/tmp/big")
    assert space.sh(box, "sha256sum < /tmp/big").split()[0] == hashlib.sha256(data).hexdigest()
    space.kubectl("cp", f"{box}:/tmp/big", str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == data


def test_much_output_does_not_grow_memory(space: Space, box: str) -> None:
    def resident() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{space.host_pid()}/status").read_text())[0])

    before = resident()
    # A client that reads nothing for a while: the program must wait, not the pod host's memory.
    with subprocess.Popen(space.argv("exec", box, "--", "head", "-c", "300000000", "/dev/zero"),
                          stdout=subprocess.PIPE) as kubectl:
        assert kubectl.stdout is not None
        time.sleep(2)
        stalled = resident()
        got = sum(len(block) for block in iter(lambda: kubectl.stdout.read(1 << 20), b""))  # type: ignore[union-attr]
    assert got == 300_000_000
    assert max(stalled, resident()) - before < 32_000  # KiB


def test_many_at_once(space: Space, box: str) -> None:
    def one(number: int) -> str:
        return space.sh(box, f"sleep 0.5; echo {number}")

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(one, range(20))) == [f"{number}\n" for number in range(20)]


def test_the_client_gone_means_the_command_gone(space: Space, box: str) -> None:
    mark = "31536001"
    kubectl = subprocess.Popen(space.argv("exec", box, "--", "sh", "-c", f"sleep {mark} & sleep {mark}"))
    until(lambda: jails_running(mark) >= 2, "the command runs")
    kubectl.kill()
    kubectl.wait()
    until(lambda: jails_running(mark) == 0, "the command ends")


def test_what_is_left_in_the_background_ends_with_the_exec(space: Space, box: str) -> None:
    mark = "31536002"
    space.sh(box, f"sleep {mark} & true")
    until(lambda: jails_running(mark) == 0, "the background job ends")


def test_the_python_client(space: Space, box: str) -> None:
    from kubernetes import client, config, stream

    api = client.CoreV1Api(config.new_client_from_config(str(space.cluster.kubeconfig)))
    try:
        run = stream.stream(api.connect_get_namespaced_pod_exec, box, SPACE, command=["sh", "-c", "read x; echo $x; "
                            "echo err >&2; exit 5"], stdin=True, stdout=True, stderr=True, tty=False,
                            _preload_content=False)
        run.write_stdin("hello\n")
        run.run_forever(timeout=SECONDS)
        assert (run.read_stdout(), run.read_stderr(), run.returncode) == ("hello\n", "err\n", 5)
        run.sock.shutdown()  # close() leaves the socket open once the server has closed
    finally:
        api.api_client.close()


# A terminal


class Terminal:
    """kubectl in a pseudo-terminal of 40 by 100."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)
        self.resize(40, 100)
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, pattern: str) -> str:
        def look() -> re.Match[str] | None:
            while select.select([self.fd], [], [], 0)[0]:
                try:
                    self.seen += os.read(self.fd, 4096).decode()
                except OSError:
                    break
            return re.search(pattern, self.seen)

        try:
            found = until(look, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}; seen: {self.seen!r}") from error
        self.seen = self.seen[found.end():]
        return str(found[0])

    def end(self) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def terminal(space: Space, box: str) -> Iterator[Callable[..., Terminal]]:
    opened = []

    def start(*command: str) -> Terminal:
        opened.append(Terminal(space.argv("exec", "-it", box, "--", *command)))
        return opened[-1]

    yield start
    for one in opened:
        one.end()


def test_a_shell_in_a_terminal(terminal: Callable[..., Terminal]) -> None:
    shell = terminal("bash", "--norc")
    shell.expect(r"\$ ")
    shell.type("echo tty=$(test -t 0 && echo yes) $TERM\n")
    assert "xterm" in shell.expect(r"tty=yes \S+")
    shell.type("stty size\n")
    shell.expect(r"40 100")
    shell.resize(50, 132)
    shell.type("sleep 0.3; stty size\n")
    shell.expect(r"50 132")
    shell.type("sleep 1000\n")
    time.sleep(0.5)
    shell.type("\x03")
    shell.expect(r"\$ ")
    shell.type("echo code=$?\n")
    shell.expect(r"code=130")
    shell.type("exit 9\n")
    shell.expect("exit code 9")


def test_ctrl_c_reaches_a_program_that_handles_it(terminal: Callable[..., Terminal]) -> None:
    script = ("import time\nprint('ready', flush=True)\n"
              "try:\n  time.sleep(1000)\nexcept KeyboardInterrupt:\n  print('caught')\n  raise SystemExit(3)")
    python = terminal("python", "-c", script)
    python.expect("ready")
    python.type("\x03")
    python.expect("caught")
    python.expect("exit code 3")


def test_ctrl_c_ends_a_program_that_does_not(terminal: Callable[..., Terminal]) -> None:
    sleep = terminal("sh", "-c", "echo ready; exec sleep 1000")
    sleep.expect("ready")
    sleep.type("\x03")
    sleep.expect("exit code 130")


# What a pod sees


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    """The name of a file in the host's home, /tmp and /var/tmp."""
    name = f"gpurunbook-canary-{os.getpid()}"
    files = [Path.home() / name, Path("/tmp") / name, Path("/var/tmp") / name]
    for file in files:
        file.write_text("canary")
    yield name
    for file in files:
        file.unlink()


def test_the_host_is_not_visible(space: Space, box: str, canary: str) -> None:
    assert space.sh(box, f"find / -name '{canary}*' 2>/dev/null | grep -v ^/proc; true") == ""
    for path in (Path.home() / canary, Path("/etc/shadow"), Path("/etc/ssl"), space.cluster.kubeconfig,
                 Path(__file__), Path("/sys/kernel"), Path("/var/lib/dpkg")):
        assert space.kubectl("exec", box, "--", "test", "-e", str(path), check=False).returncode == 1, path


def test_no_variable_of_the_host_is_visible(space: Space, box: str) -> None:
    host = Path(f"/proc/{space.host_pid()}/environ").read_bytes()
    assert b"GPURUNBOOK_" in host, "the canary: the pod host itself has it"
    script = ("env; for f in /proc/[0-9]*/environ /proc/[0-9]*/task/*/environ; do tr '\\0' '\\n' < $f; done "
              "2>/dev/null; true")
    seen = space.sh(box, script)
    names = {line.split("=")[0] for line in seen.splitlines() if "=" in line}
    assert names <= {"HOME", "HOSTNAME", "LANG", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "f"}


def test_only_its_own_processes(space: Space, box: str) -> None:
    lines = space.kubectl("exec", box, "--", "ps", "-eo", "args", "--no-headers").stdout.splitlines()
    assert lines == ["ps -eo args --no-headers"]


def test_no_network(space: Space, box: str) -> None:
    script = ("import socket\nprint([name for _, name in socket.if_nameindex()])\n"
              "for address in ('127.0.0.1', '10.0.0.1'):\n"
              f"  print(socket.socket().connect_ex((address, {space.port()})))")
    answer = space.kubectl("exec", box, "--", "python", "-c", script).stdout.splitlines()
    assert answer[0] == "['lo']"
    assert "0" not in answer[1:]


def test_another_pods_files_are_not_visible(space: Space, box: str) -> None:
    space.sh(box, "echo secret > /tmp/mine; echo secret > $HOME/mine")
    other = space.ready(space.apply("other"))
    assert space.sh(other, "ls -A $HOME").split() == []
    # A checkout below /tmp is bound there, read-only, for its Python environment.
    assert "mine" not in space.sh(other, "ls -A /tmp").split()


def test_the_system_is_read_only_and_has_no_powers(space: Space, box: str) -> None:
    for path in ("/x", "/usr/x", "/etc/x", "/opt/../x"):
        assert space.kubectl("exec", box, "--", "touch", path, check=False).returncode == 1, path
    status = space.sh(box, "cat /proc/self/status")
    assert re.findall(r"Cap(?:Prm|Eff|Bnd):\s+(\w+)", status) == ["0" * 16] * 3
    assert space.kubectl("exec", box, "--", "unshare", "-U", "true", check=False).returncode != 0


def test_started_by_root_a_pod_is_an_unused_uid(space: Space, box: str) -> None:
    if os.geteuid() != 0:
        assert space.sh(box, "id -u").strip() == "1000"
        return
    mark = "31536003"
    kubectl = subprocess.Popen(space.argv("exec", box, "--", "sleep", mark))
    try:
        until(lambda: jails_running(mark), "the command runs")
        owners = {entry.stat().st_uid for entry in Path("/proc").iterdir()
                  if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"sleep\0" + mark.encode())}
    finally:
        kubectl.kill()
        kubectl.wait()
    assert len(owners) == 1
    assert owners.pop() > 60_000


def test_a_planted_link_makes_nothing_outside(space: Space) -> None:
    name = f"planted-{os.getpid()}"
    space.ready(space.apply("planter", f"ln -sfn /oldroot/tmp /home/app/way; mv /home/app/deep /home/app/deeper; "
                            f"ln -sfn /oldroot/tmp/{name} /home/app/deep; sleep 1000",
                            spec={"volumes": [{"name": "data", "emptyDir": {}}]},
                            volumeMounts=[{"name": "data", "mountPath": f"/home/app/deep/{name}"}]))
    space.kubectl("exec", "planter", "--", "ls", check=False)
    assert not (Path("/tmp") / name).exists()
    assert space.sh("planter", f"ls -d /home/app/deep/{name}").strip() == f"/home/app/deep/{name}"


def test_only_the_api_server_gets_in(space: Space) -> None:
    config = yaml.safe_load(Path(space.cluster.kubeconfig).read_text())
    user = config["users"][0]["user"]
    for admin in (True, False):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if admin:
            context.load_cert_chain(user["client-certificate"], user["client-key"])
        answer = b""
        with socket.create_connection(("127.0.0.1", space.port()), timeout=5) as plain, \
                context.wrap_socket(plain) as secure, contextlib.suppress(OSError):
            secure.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            answer = secure.recv(100)
        assert answer == b""


# Life of a pod


def test_dolly_idles_in_a_writable_workdir_and_has_torch(space: Space) -> None:
    dolly = space.ready(space.apply("dolly", image=DOLLY))
    assert space.sh(dolly, "pwd; touch main.py; ls; test -d $MODEL && ls -d $MODEL").split() == [
        "/home/bentoml/bento", "main.py", "/opt/model"]
    assert space.kubectl("exec", dolly, "--", "python", "-c", "import torch; print(1 + 1)").stdout == "2\n"


def test_run_to_completion(space: Space) -> None:
    space.apply("done", "echo ok", spec={"restartPolicy": "Never"})
    space.apply("failed", "exit 3", spec={"restartPolicy": "Never"})
    until(lambda: space.get("done")["status"]["phase"] == "Succeeded", "done")
    until(lambda: space.get("failed")["status"]["phase"] == "Failed", "failed")
    ended = space.main("failed")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert ended["startedAt"] <= ended["finishedAt"]
    assert space.main("done")["state"]["terminated"]["reason"] == "Completed"
    assert space.kubectl("logs", "done").stdout == "ok\n"


def test_restarts_back_off_and_the_previous_log(space: Space) -> None:
    space.apply("crash", "date +%s%N; echo kept > /data/kept; test ! -e /tmp/fresh; touch /tmp/fresh; exit 4",
                spec={"volumes": [{"name": "data", "emptyDir": {}}]},
                volumeMounts=[{"name": "data", "mountPath": "/data"}])
    status = until(lambda: (found := space.main("crash")).get("restartCount", 0) >= 2 and found, "restarts")
    assert status["lastState"]["terminated"]["exitCode"] == 4
    waiting = until(lambda: space.main("crash")["state"].get("waiting"), "it waits")
    assert waiting["reason"] == "CrashLoopBackOff"
    assert "back-off" in waiting["message"]
    newest, before = (int(space.kubectl("logs", "crash", *more).stdout) for more in ([], ["--previous"]))
    assert newest - before > 1e9
    assert space.get("crash")["status"]["phase"] == "Running"


def test_on_failure_ends_with_success(space: Space) -> None:
    space.apply("once-more", "test -e /data/been || { touch /data/been; exit 1; }",
                spec={"restartPolicy": "OnFailure", "volumes": [{"name": "data", "emptyDir": {}}]},
                volumeMounts=[{"name": "data", "mountPath": "/data"}])
    until(lambda: space.get("once-more")["status"]["phase"] == "Succeeded", "success")
    assert space.main("once-more")["restartCount"] == 1


def test_init_containers_run_in_order_before(space: Space) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    space.ready(space.apply("inits", "cat /data/order; sleep 1000", volumeMounts=mounts, spec={
        "volumes": [{"name": "data", "emptyDir": {}}],
        "initContainers": [{"name": name, "image": PYTHON, "volumeMounts": mounts,
                            "command": ["sh", "-c", f"sleep 0.2; echo {name} >> /data/order"]}
                           for name in ("first", "second")]}))
    until(lambda: space.kubectl("logs", "inits").stdout == "first\nsecond\n", "the log")
    assert len(space.get("inits")["status"]["initContainerStatuses"]) == 2


def test_variables_and_volumes(space: Space) -> None:
    source = [{"name": "GREETING", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "greeting"}}},
              {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
              {"name": "BOTH", "value": "$(GREETING) $(POD) $$(POD) $(NONE)"}]
    space.apply("config", spec={"volumes": [{"name": "map", "configMap": {"name": "late"}},
                                            {"name": "data", "emptyDir": {}}]},
                env=source, workingDir="/data/sub",
                command=["sh", "-c", 'echo "$0"; pwd; cat /etc/map/greeting; echo; sleep 99'],
                args=["arg of $(POD)"], volumeMounts=[{"name": "map", "mountPath": "/etc/map"},
                                                      {"name": "data", "mountPath": "/data"}])
    waiting = until(lambda: space.main("config").get("state", {}).get("waiting", {}).get("message"), "it waits")
    assert 'configmap "late" not found' in waiting
    space.kubectl("create", "configmap", "late", "--from-literal=greeting=hello")
    space.ready("config")
    until(lambda: space.kubectl("logs", "config").stdout == "arg of config\n/data/sub\nhello\n", "the log")
    assert space.sh("config", "echo $BOTH").strip() == "hello config $(POD) $(NONE)"
    assert space.kubectl("exec", "config", "--", "touch", "/etc/map/x", check=False).returncode == 1


def test_what_is_not_supported_is_named(space: Space) -> None:
    space.apply("secret", env=[{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}])
    waiting = until(lambda: space.main("secret").get("state", {}).get("waiting"), "it waits")
    assert waiting["reason"] == "CreateContainerConfigError"
    assert "secretKeyRef" in waiting["message"]
    space.apply("host-path", spec={"volumes": [{"name": "etc", "hostPath": {"path": "/etc"}}]},
                volumeMounts=[{"name": "etc", "mountPath": "/host"}])
    until(lambda: "hostPath" in space.main("host-path").get("state", {}).get("waiting", {}).get("message", ""), "said")


def test_probes(space: Space) -> None:
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    space.apply("probed", readinessProbe=probe,
                livenessProbe={**probe, "exec": {"command": ["test", "!", "-e", "/tmp/dead"]}, "failureThreshold": 1})
    until(lambda: "running" in space.main("probed").get("state", {}), "it runs")
    assert space.main("probed")["ready"] is False
    space.sh("probed", "touch /tmp/ready")
    until(lambda: space.main("probed")["ready"], "ready")
    space.sh("probed", "touch /tmp/dead")
    until(lambda: space.main("probed")["restartCount"] == 1, "restarted")


def test_delete_gives_the_grace_period_and_leaves_nothing(space: Space) -> None:
    mark = "31536004"
    space.ready(space.apply("polite", f"trap 'echo bye; exit 0' TERM; sleep {mark} & wait"))
    space.ready(space.apply("stubborn", f"trap '' TERM; while true; do sleep {mark}; done"))
    folder = next(Path(space.cluster.folder).rglob(f"pods/{space.get('polite')['metadata']['uid']}"))
    began = time.monotonic()
    space.kubectl("delete", "pod", "polite")
    assert time.monotonic() - began < 2
    space.kubectl("delete", "pod", "stubborn")
    assert 1.5 < time.monotonic() - began < 10
    until(lambda: jails_running(mark) == 0, "their processes end")
    until(lambda: not folder.exists(), "the pod's files go")


def test_events_are_a_kubelets(space: Space) -> None:
    space.ready(space.apply("told", "sleep 0.5; exit 1"))
    until(lambda: space.main("told")["restartCount"] >= 2, "restarts")
    events = until(lambda: (found := {e["reason"]: e for e in space.events("told")}).get("BackOff") and found, "events")
    assert [reason for reason in events if reason != "Pulling"] == ["Pulled", "Created", "Started", "BackOff"]
    started = events["Started"]
    assert (started["message"], started["type"]) == ("Container started", "Normal")
    assert started["involvedObject"]["fieldPath"] == "spec.containers{main}"
    assert started["source"] == {"component": "kubelet", "host": space.get("told")["spec"]["nodeName"]}
    assert until(lambda: {e["reason"]: e["count"] for e in space.events("told")}["Started"] >= 3, "it counts")
    assert "Back-off restarting failed container main in pod told_pod-host" in events["BackOff"]["message"]
    assert "Started" in space.kubectl("describe", "pod", "told").stdout
    space.kubectl("delete", "pod", "told")


def test_a_container_is_killed_as_a_whole_when_it_passes_its_memory_limit(space: Space) -> None:
    limits = {"limits": {"memory": "150Mi"}}
    allocate = "x = [b'x' * 2**20 for _ in range(600)]; import time; time.sleep(60)"
    space.ready(space.apply("hungry", "exec sleep 1000", resources=limits))
    done = space.kubectl("exec", "hungry", "--", "python", "-c", allocate, check=False)
    assert done.returncode == 137
    status = until(lambda: (found := space.main("hungry"))["lastState"] and found, "it ended")
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (137, "OOMKilled")
    until(lambda: space.main("hungry")["restartCount"] == 1, "started again")
    space.apply("once", command=["python", "-c", allocate], resources=limits, spec={"restartPolicy": "Never"})
    until(lambda: space.get("once")["status"]["phase"] == "Failed", "failed")
    assert space.main("once")["state"]["terminated"]["reason"] == "OOMKilled"
    space.apply("modest", command=["python", "-c", "x = b'x' * (50 << 20)"], resources=limits,
                spec={"restartPolicy": "Never"})
    until(lambda: space.get("modest")["status"]["phase"] == "Succeeded", "succeeded")


def test_an_exec_ends_with_its_container(space: Space) -> None:
    space.ready(space.apply("brief", "exec sleep 1000", spec={"restartPolicy": "Never"}))
    argv = space.argv("exec", "brief", "--", "sh", "-c", "echo begun; exec sleep 60")
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as done:
        assert done.stdout
        assert done.stdout.readline() == b"begun\n"
        space.kubectl("delete", "pod", "brief", "--wait=false")
        assert done.wait(SECONDS) == 137


def test_the_smoke_pods_image_says_that_it_is_a_rehearsal(space: Space) -> None:
    space.apply("smoke", image="python:3.12-slim", spec={"restartPolicy": "Never"},
                command=["python", "-c", "import os; print(os.environ['GPURUNBOOK_REHEARSAL'], os.getcwd())"])
    until(lambda: space.get("smoke")["status"]["phase"] == "Succeeded", "succeeded")
    assert space.kubectl("logs", "smoke").stdout == "1 /\n"


def test_logs(space: Space) -> None:
    space.ready(space.apply("talk", "printf 'one\\ntwo\\n'; echo three >&2; sleep 1; echo four; sleep 0.5; "
                            "printf unfinished; exec sleep 3", spec={"restartPolicy": "Never"}))
    followed = space.kubectl("logs", "-f", "talk").stdout
    assert followed == "one\ntwo\nthree\nfour\nunfinished"
    assert space.kubectl("logs", "talk", "--tail=2").stdout == "four\nunfinished"
    assert space.kubectl("logs", "talk", "--limit-bytes=5").stdout == "one\nt"
    stamped = space.kubectl("logs", "talk", "--timestamps").stdout.splitlines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z one", stamped[0])
    since = stamped[3].split()[0]
    assert space.kubectl("logs", "talk", f"--since-time={since}").stdout == "four\nunfinished"


def test_logs_follow_ends_with_the_client(space: Space) -> None:
    space.ready(space.apply("quiet", "echo line; exec sleep 1000"))
    kubectl = subprocess.Popen(space.argv("logs", "-f", "quiet"), stdout=subprocess.PIPE, text=True)
    assert kubectl.stdout is not None
    assert kubectl.stdout.readline() == "line\n"
    kubectl.kill()
    kubectl.wait()
    kubectl.stdout.close()


# Not ours


def test_simulated_pods_say_so(space: Space) -> None:
    space.ready(space.apply("simulated", image="example.com/app:1"))
    for args in (["exec", "simulated", "--", "ls"], ["logs", "simulated"],
                 ["cp", "simulated:/etc/passwd", "/dev/null"]):
        done = space.kubectl(*args, check=False)
        assert done.returncode != 0
        assert "simulated" in done.stderr


@pytest.mark.parametrize("args", [["attach", "box"], ["port-forward", "box", "18080:80"]])
def test_attach_and_port_forward_are_refused(space: Space, box: str, args: list[str]) -> None:
    done = space.kubectl(*args, check=False)
    assert done.returncode != 0
    assert "use `kubectl" in done.stderr


# The pod host itself; last, since it restarts every pod


def test_a_new_pod_host_goes_on(space: Space, box: str) -> None:
    mark = "31536005"
    space.ready(space.apply("survivor", f"echo start; exec sleep {mark}"))
    pid = space.host_pid()
    argv = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
    environment = dict(entry.split("=", 1) for entry in Path(f"/proc/{pid}/environ").read_text().split("\0") if entry)
    began = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    until(lambda: ended(pid), "the pod host ends", 2)
    assert time.monotonic() - began < 2
    assert jails_running(mark) == 0
    began = time.monotonic()
    started = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert started.returncode == 0, started.stderr
    until(lambda: space.main("survivor")["restartCount"] == 1, "started again")
    assert space.main("survivor")["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    space.ready("survivor")
    space.kubectl("exec", box, "--", "true")
    again = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert again.returncode == 1, "the port is taken"
    assert "next:" in again.stderr
    killed = space.host_pid()
    os.kill(killed, signal.SIGKILL)
    until(lambda: jails_running(mark) == 0, "the pods end with the pod host")
    subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=20, check=True)
    until(lambda: space.main("survivor")["restartCount"] == 2, "started again")


# Another world; after everything else too, for the same reason


WORLD = {
    "pace": 0.02, "cut_streams": True, "images": {
        "irbull/dolly:0.2-slim": {"gigabytes": 20, "lacks": ["tar"]},  # 50 GB unpacked: a CPU node's disk, just so
        DOLLY: {"gigabytes": 45},  # 112.5 GB: more than any node's disk
        "python:3.12-slim": {"pull_error": "failed to resolve reference: not found"}}}


@pytest.fixture(scope="module")
def slow(space: Space) -> Iterator[Space]:
    """The pod host in a world where pulls take time and some fail, and exec streams break; nodes have no image."""
    before = space.restart_host(json.dumps(WORLD))
    for node in space.kubectl("get", "nodes", "-o", "name").stdout.split():
        space.kubectl("patch", node, "--subresource=status", "--type=merge", "-p", '{"status": {"images": null}}')
    yield space
    space.restart_host(before)


def test_a_node_pulls_an_image_once_however_many_wait(slow: Space) -> None:
    node = slow.kubectl("get", "nodes", "-o", "name").stdout.split()[0].removeprefix("node/")
    for name in ("first", "second"):
        slow.apply(name, image="irbull/dolly:0.2-slim", spec={"nodeName": node})
    creating = until(lambda: slow.main("first").get("state"), "it is being made")
    assert creating["waiting"]["reason"] == "ContainerCreating"
    for name in ("first", "second"):
        slow.ready(name)  # 20 GB in 6 to 18 s
        until(lambda name=name: len(slow.events(name)) == 4, "the events")
        assert [e["reason"] for e in slow.events(name)] == ["Pulling", "Pulled", "Created", "Started"]
    pulled = re.fullmatch(r'Successfully pulled image "irbull/dolly:0.2-slim" in (\S+) \((\S+) including waiting\)\. '
                          r"Image size: 20000000000 bytes\.", slow.events("first")[1]["message"])
    assert pulled
    assert pulled[1] != "0s"
    assert " in 0s (" in slow.events("second")[1]["message"]
    slow.ready(slow.apply("third", image="irbull/dolly:0.2-slim", spec={"nodeName": node}))
    told = until(lambda: slow.events("third"), "its first event")
    assert told[0]["message"].startswith('Container image "irbull/dolly:0.2-slim" already present')
    images = json.loads(slow.kubectl("get", "node", node, "-o", "json").stdout)["status"]["images"]
    assert {"names": ["irbull/dolly:0.2-slim"], "sizeBytes": 20_000_000_000} in images


def test_what_the_registry_refuses_backs_off(slow: Space) -> None:
    slow.apply("refused", image="python:3.12-slim")
    waiting = until(lambda: (found := slow.main("refused").get("state", {}).get("waiting", {})).get("reason") ==
                    "ImagePullBackOff" and found, "it backs off")
    assert waiting["message"] == ('Back-off pulling image "python:3.12-slim": ErrImagePull: '
                                  "failed to resolve reference: not found")
    counts = until(lambda: (found := {e["message"]: e["count"] for e in slow.events("refused")}) and
                   found.get("Error: ImagePullBackOff", 0) >= 2 and found, "again")
    assert counts['Failed to pull image "python:3.12-slim": failed to resolve reference: not found'] >= 2
    assert counts["Error: ErrImagePull"] >= 2
    assert 'Back-off pulling image "python:3.12-slim"' in counts
    slow.kubectl("delete", "pod", "refused")


def test_an_image_that_does_not_fit_the_disk(slow: Space) -> None:
    slow.apply("large", image=DOLLY)
    waiting = until(lambda: (found := slow.main("large").get("state", {}).get("waiting", {})).get("message", "").count(
        "no space left on device") and found, "it does not fit", 90)  # 107 of 112 GB, in 12 to 38 s
    assert waiting["reason"] in ("ErrImagePull", "ImagePullBackOff")
    node = slow.get("large")["spec"]["nodeName"]
    assert "FreeDiskSpaceFailed" in until(lambda: (text := slow.kubectl("describe", "node", node).stdout) and
                                          "FreeDiskSpaceFailed" in text and text, "the node says so")
    slow.kubectl("delete", "pod", "large")


def test_without_tar_cp_fails_and_says_why(slow: Space, tmp_path: Path) -> None:
    slow.ready(slow.apply("bare", image="irbull/dolly:0.2-slim"))
    (tmp_path / "file").write_text("x")
    for args in (["exec", "bare", "--", "tar", "--version"], ["cp", str(tmp_path / "file"), "bare:/tmp/file"],
                 ["cp", "bare:/etc/passwd", str(tmp_path / "passwd")]):
        done = slow.kubectl(*args, check=False)
        assert done.returncode == 1
        assert 'exec: "tar": executable file not found in $PATH' in done.stderr


def test_a_stream_that_breaks_ends_with_0_until_the_pod_is_made_anew(slow: Space) -> None:
    def answer() -> tuple[str, int]:
        done = slow.kubectl("exec", "cut", "--", "sh", "-c", "echo 0123456789; exit 3", check=False)
        return done.stdout, done.returncode

    slow.ready(slow.apply("cut"))
    assert answer() == ("01234", 0)
    assert slow.kubectl("exec", "-i", "cut", "--", "sh", "-c", "cat > /tmp/in", input="x" * 200_000).returncode == 0
    slow.kubectl("delete", "pod", "cut")
    slow.ready(slow.apply("cut"))
    assert answer() == ("0123456789\n", 3)
