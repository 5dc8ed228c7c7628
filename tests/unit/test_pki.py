"""The certificates between the API server and the pod host, and the one of a user of the cluster."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

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


@pytest.mark.parametrize("kind", ["rsa", "ec"])
def test_a_user_is_signed_by_the_clusters_ca_and_named_as_kubernetes_reads_it(tmp_path: Path, kind: str) -> None:
    ca_key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    name = pki._name("kwok-ca")
    ca = pki._builder(name, name, ca_key.public_key(), ca_key, ca=True)  # type: ignore[arg-type]
    (tmp_path / "ca.crt").write_bytes(ca.sign(ca_key, pki.hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    (tmp_path / "ca.key").write_bytes(ca_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()))
    certificate, key = pki.sign_client(tmp_path, "who", "which")
    assert [path.stat().st_mode & 0o777 for path in (certificate, key)] == [0o600, 0o600]
    signed, issuer = (x509.load_pem_x509_certificate(path.read_bytes()) for path in (certificate, tmp_path / "ca.crt"))
    signed.verify_directly_issued_by(issuer)
    assert signed.subject.rfc4514_string() == "CN=who,O=which"
    assert list(signed.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not signed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    ssl.create_default_context().load_cert_chain(certificate, key)


def test_without_a_ca_nobody_is_signed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        pki.sign_client(tmp_path, "who", "which")
