"""The certificates between the API server and the pod host."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from gpurunbook.targets.rehearsal import pki
from gpurunbook.targets.rehearsal.pod_host import tls


def client(folder: Path, certificate: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    if certificate is not None:
        context.load_cert_chain(certificate.with_suffix(".crt"), certificate.with_suffix(".key"))
    return context


async def answer(folder: Path, context: ssl.SSLContext) -> bytes:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"in")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls(folder))
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            return await reader.read()
        except (ssl.SSLError, ConnectionError):
            return b""  # TLS 1.3 tells a client of its refusal after the handshake, or only closes
        finally:
            writer.close()


def test_files_are_private(tmp_path: Path) -> None:
    pki.make(tmp_path / "pki")
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    files = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pki").iterdir()}
    assert files == dict.fromkeys(
        ("ca.crt", "kubelet.crt", "kubelet.key", "apiserver-client.crt", "apiserver-client.key"), 0o600)


async def test_the_api_servers_certificate_gets_in(tmp_path: Path) -> None:
    pki.make(tmp_path)
    assert await answer(tmp_path, client(tmp_path, tmp_path / "apiserver-client")) == b"in"


@pytest.mark.parametrize("which", ["none", "another CA's", "the server's own"])
async def test_no_other_gets_in(tmp_path: Path, which: str) -> None:
    pki.make(tmp_path)
    pki.make(tmp_path / "other")
    own = {"none": None, "another CA's": tmp_path / "other" / "apiserver-client",
           "the server's own": tmp_path / "kubelet"}
    assert await answer(tmp_path, client(tmp_path, own[which])) == b""
