"""What a drill does besides making objects: end a helm half-way, begin a drain, swap a kubeconfig.

None of it goes into the journal or onto the screen: whoever reads along would know the answer.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gpurunbook import yaml_file
from gpurunbook.command import Command, Result
from gpurunbook.command import run as run_command
from gpurunbook.errors import RunbookError
from gpurunbook.files import to_yaml, write

if TYPE_CHECKING:
    from gpurunbook.runbook import Run

CHART = "stand-in"
"""The drills' images have its names, and NVIDIA's would have to be downloaded."""
LITTLE = "400Mi"
"""Less than what Python, its libraries and the rehearsal's model need (about 700 MB), more than a container that idles."""
EVERY_NODE = "kubernetes.io/os=linux"
LOOK, SECONDS = 0.02, 30.0


def unseen(run: Run, command: Command, *, check: bool = True) -> Result:
    """Run a command without the journal knowing. Raises CommandFailed with `check`, RunbookError where it is another cluster."""
    if command.guarded:
        run.check_identity()
    return run_command(command, env=run.environment, check=check, cwd=run.root)


def reopened(run: Run, stage: str) -> Run:
    """The same run, open in another stage."""
    from gpurunbook.runbook import open_run
    return open_run(stage, run_id=run.id, target=run.target.name, cluster_file=str(run.cluster.path))


def gpu_node(run: Run) -> str:
    """Name of the first GPU node."""
    from gpurunbook.stages import nodes
    return next(node.name for node in nodes.observe(run) if node.gpu)


def killed_helm(run: Run) -> None:
    """Begin to install the operator and kill helm while the release is pending. Raises RunbookError when it was quicker."""
    from gpurunbook.stages import gpu_operator
    opened, killers, over = reopened(run, "gpu_operator"), list[threading.Thread](), threading.Event()
    command = gpu_operator.plan(opened, gpu_operator.observe(opened, chart=CHART)).commands[-1]

    def kill(pid: int) -> None:
        # Half-way: with the account in place that the chart's clean-up needs, or an uninstall would wait for it for ever.
        while not (_pending(opened) and _begun(opened)):
            if over.wait(LOOK):
                return
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def started(pid: int) -> None:
        killers.append(threading.Thread(target=kill, args=(pid,), daemon=True))
        killers[0].start()

    # With nowhere to go, the operator's pod keeps helm waiting: a rehearsal would be quicker than the kill.
    unseen(opened, opened.kubectl("cordon", "-l", EVERY_NODE, why="no room"))
    try:
        opened.check_identity()
        run_command(replace(command, argv=(*command.argv, "--wait"), limit=SECONDS), env=opened.environment, cwd=opened.root,
                    check=False, started=started)
    finally:
        over.set()
        for killer in killers:
            killer.join()
        unseen(opened, opened.kubectl("uncordon", "-l", EVERY_NODE, why="room again"))
    if not _pending(opened):
        raise RunbookError("helm was done before it could be ended", where=str(run.folder), next="start the drill again")


def _pending(run: Run) -> bool:
    return bool(run.core.list_secret_for_all_namespaces(label_selector="owner=helm,status=pending-install",
                                                        _request_timeout=SECONDS).items)


def _begun(run: Run) -> bool:
    from gpurunbook.stages import gpu_operator
    namespace = gpu_operator.pin(run)["namespace"]
    return bool(run.client("AppsV1Api").list_namespaced_deployment(namespace, _request_timeout=SECONDS).items)


def drain(run: Run) -> None:
    """Begin to drain the GPU node and give up: it stays cordoned. Raises RunbookError when nothing stood in the way."""
    command = run.kubectl("drain", gpu_node(run), "--ignore-daemonsets", "--pod-selector=app=dolly-v2", "--timeout=2s",
                          why="drain the node")
    if unseen(run, command, check=False).code == 0:
        raise RunbookError("the node could be drained", where=str(run.folder), next="start the drill again")


def starve(run: Run) -> None:
    """Give the model's container a memory limit below what loading takes, and wait for its new pod."""
    from gpurunbook.stages import model
    deployment = model.manifest(run)
    unseen(run, run.kubectl("set", "resources", "deployment", deployment.name, "-c", deployment.container,
                            f"--limits=memory={LITTLE},nvidia.com/gpu=1", f"--requests=memory={LITTLE}", why="less memory"))
    model.wait(run)


def ask_the_model(run: Run) -> None:
    """Copy main.py into the pod and run it there once, whatever comes of it."""
    from gpurunbook.errors import CommandFailed
    from gpurunbook.stages import next_token
    opened = reopened(run, "next_token")
    facts = next_token.observe(opened)
    opened.apply(next_token.plan(opened, facts))
    with suppress(CommandFailed):
        opened.ask(next_token.command(opened, facts, prompt="Long long ago, in a", top=10, precisions="reference"))


def another_ca(run: Run) -> None:
    """Put the CA of another cluster into the run's kubeconfig, as a file has it that was made for a namesake."""
    config, cluster = _kubeconfig(run)
    del cluster["certificate-authority"]
    other = (run.folder / "rehearsal" / "pki" / "ca.crt").read_bytes()
    cluster["certificate-authority-data"] = base64.b64encode(other).decode()
    write(run.kubeconfig, to_yaml([config]))


def token(run: Run) -> None:
    """Sign in as a ServiceAccount from here on: an admin certificate of kwokctl's is never turned away."""
    config, _ = _kubeconfig(run)
    config["users"][0]["user"] = {"token": _token(run, "runbook")}
    write(run.kubeconfig, to_yaml([config]))


def dashboard(run: Run) -> None:
    """Start the process that plays the dashboard's pod: see dashboard.py."""
    _, cluster = _kubeconfig(run)
    file = run.folder / "rehearsal" / "dashboard.json"
    write(file, json.dumps({"server": cluster["server"], "ca": cluster["certificate-authority"],
                            "token": _token(run, "dashboard")}))
    unseen(run, Command((sys.executable, "-m", "gpurunbook.drills.dashboard", str(file)), why="a dashboard", limit=20))


def _token(run: Run, name: str) -> str:
    return unseen(run, run.kubectl("create", "token", name, "-n", "platform", "--duration=48h", why="a token",
                                   data=True)).stdout.strip()


def _kubeconfig(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run's kubeconfig and the only cluster in it."""
    config: dict[str, Any] = yaml_file.load(run.kubeconfig)
    return config, config["clusters"][0]["cluster"]
