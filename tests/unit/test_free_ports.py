"""Two clusters that are made in the same moment never get the same port."""

from __future__ import annotations

import socket
from pathlib import Path

from gpurunbook.targets.rehearsal import kwok


def listening(port: int) -> socket.socket:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", port))
    server.listen()
    return server


def test_the_kernel_gives_a_chosen_port_to_nobody_else() -> None:
    """So many draws that, unreserved, each of the 30 would be drawn about once."""
    chosen = set(kwok.free_ports(30))
    low, high = (int(n) for n in Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    drawn = set()
    for _ in range(high - low):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            drawn.add(probe.getsockname()[1])
    assert len(chosen) == 30
    assert not chosen & drawn


def test_a_server_that_asks_for_it_by_number_has_it() -> None:
    for port in kwok.free_ports(6):
        listening(port).close()
