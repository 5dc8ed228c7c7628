"""What kwokctl reads: how it starts the control plane, and the Stages by which KWOK keeps nodes and simulated pods."""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gpurunbook import yaml_file
from gpurunbook.targets.rehearsal import pace
from gpurunbook.targets.rehearsal.world import World

LEASE_SECONDS = 8
"""How long a killed KWOK keeps its nodes from its successor; kwokctl gives no less than 40."""
BINARIES = {"etcdBinary": "etcd", "kubeApiserverBinary": "kube-apiserver", "kubectlBinary": "kubectl",
            "kubeControllerManagerBinary": "kube-controller-manager", "kubeSchedulerBinary": "kube-scheduler",
            "kwokControllerBinary": "kwok"}
STARTS_OTHERWISE = "STARTS_OTHERWISE"
"""In stages.yaml: how long a simulated pod takes that does not say so itself."""


PORTS = ("kubeApiserverPort", "kubeControllerManagerPort", "kubeSchedulerPort", "kwokControllerPort", "etcdPort", "etcdPeerPort")


def free_ports(count: int) -> list[int]:
    """Different ports of 127.0.0.1 that nobody listens on, and that the kernel gives to nobody else for the next 60 s.

    A connection on each is closed by its server's end: in TIME_WAIT the port is no longer one to choose, and still one
    that a server that asks for it by number, with SO_REUSEADDR as all of ours do, can have.
    """
    with ExitStack() as held:
        servers = [held.enter_context(socket.socket()) for _ in range(count)]
        for server in servers:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", 0))
            server.listen(1)
            with socket.create_connection(server.getsockname(), timeout=5) as client:
                server.accept()[0].close()
                client.recv(1)
        return [int(server.getsockname()[1]) for server in servers]


def configuration(programs: Mapping[str, str], sockets: Path, pki: Path) -> dict[str, Any]:
    """The KwokctlConfiguration, with free ports: kwokctl's own choice is the same for two that start at once.

    Args:
        programs: paths by the keys of BINARIES.
        sockets: a folder whose path is short.
        pki: of the pod host.
    """
    socket_url = f"unix://{sockets / 'etcd.sock'}"
    flags = {
        # A rehearsal's data need not outlive a power cut; it does outlive kill -9.
        "etcd": [("listen-client-urls", socket_url, True), ("unsafe-no-fsync", "true", False)],
        "kube-apiserver": [("etcd-servers", socket_url, True),
                           ("kubelet-preferred-address-types", "InternalIP", False),
                           ("kubelet-certificate-authority", str(pki / "ca.crt"), False),
                           ("kubelet-client-certificate", str(pki / "apiserver-client.crt"), False),
                           ("kubelet-client-key", str(pki / "apiserver-client.key"), False)],
        # One of each: waiting for the lease of a killed predecessor would only cost 15 seconds.
        "kube-scheduler": [("leader-elect", "false", False)],
        "kube-controller-manager": [("leader-elect", "false", False)],
        "kwok-controller": [("node-lease-duration-seconds", str(LEASE_SECONDS), True)],
    }
    return {
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1", "kind": "KwokctlConfiguration",
        "options": {"runtime": "binary", "bindAddress": "127.0.0.1"} | dict(programs)
                   | dict(zip(PORTS, free_ports(len(PORTS)), strict=True)),
        "componentsPatches": [{"name": name, "extraArgs": [{"key": k, "value": v, "override": o} for k, v, o in args]}
                              for name, args in flags.items()],
    }


def stages(path: Path, ours: Collection[str], world: World) -> list[dict[str, Any]]:
    """The Stages of a file, told to leave alone the pods with an image of `ours`: the pod host runs these."""
    otherwise = pace.duration(pace.seconds("pod", world))
    found: list[dict[str, Any]] = yaml_file.parse_all(yaml_file.text(path).replace(STARTS_OTHERWISE, otherwise), path)
    for stage in found:
        if stage["spec"]["resourceRef"]["kind"] == "Pod":
            stage["spec"]["selector"]["matchExpressions"].append(
                {"key": ".spec.containers.[].image", "operator": "NotIn", "values": sorted(ours)})
    return found
