"""An HTTPS proxy on loopback before a real API server, which makes the network as it is: slow, cut, overloaded, out of date.

It has a certificate and a CA of its own, which `kubeconfig` puts into a copy of a run's kubeconfig; to the API server it goes
with that kubeconfig's client certificate. What upgrades a connection (exec, cp) does not pass.
"""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import ipaddress
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import aiohttp
import yaml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host", "content-length"}
DAY = dt.timedelta(days=1)
Kind = Literal["delay", "cut", "cut after", "cut within", "answer", "swallow"]


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path and query hold `path`; "" means any.

    Attributes:
        kind: `delay` by `seconds`; `cut` before the API server hears of it; `cut after` it has done it, without an answer;
            `cut within` its answer; `answer` with `status` and, where it is given, Retry-After `seconds`; `swallow`: a write
            is answered with 200 and the object as it was.
    """

    kind: Kind
    times: int = 1
    method: str = ""
    path: str = ""
    seconds: float | None = None
    status: int = 503

    def meets(self, request: web.BaseRequest) -> bool:
        return self.times > 0 and self.method in ("", request.method) and self.path in request.path_qs


@dataclass(frozen=True)
class Seen:
    """One request: when it came (monotonic), and whether the API server got it; `fault` is the one that it met, or ""."""

    at: float
    method: str
    path: str
    passed: bool
    fault: str = ""


@dataclass
class ApiProxy:
    """`faults` are met in their order, one by a request; `seen` has every request so far."""

    original: Path
    folder: Path
    expired: bool = False
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    server: str = ""

    def writes(self, passed: bool = True) -> list[Seen]:
        return [s for s in self.seen if s.method != "GET" and s.passed is passed]

    @property
    def kubeconfig(self) -> Path:
        """A copy of the kubeconfig that leads here; its client certificate stays, and is not asked for."""
        config = yaml.safe_load(self.original.read_text())
        ca = base64.b64encode((self.folder / "ca.crt").read_bytes()).decode()
        config["clusters"][0]["cluster"] = {"server": self.server, "certificate-authority-data": ca}
        copy = self.folder / "kubeconfig"
        copy.touch(mode=0o600)
        copy.write_text(yaml.safe_dump(config))
        return copy

    def application(self) -> web.Application:
        config = yaml.safe_load(self.original.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
        app = web.Application(client_max_size=64 * 2**20)
        session: list[aiohttp.ClientSession] = []

        async def connect(_: web.Application) -> None:
            session.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls, limit=0), auto_decompress=False))

        async def disconnect(_: web.Application) -> None:
            await session[0].close()

        async def handle(request: web.Request) -> web.StreamResponse:
            fault = next((f for f in self.faults if f.meets(request)), None)
            if fault:
                fault.times -= 1
            kind = fault.kind if fault else ""
            passed = kind not in ("cut", "answer", "swallow")
            self.seen.append(Seen(time.monotonic(), request.method, request.path_qs, passed, kind))
            body = await request.read()
            if fault and kind == "delay":
                await asyncio.sleep(fault.seconds or 0)
            if kind == "cut":
                return _cut(request)
            if fault and kind == "answer":
                after = {} if fault.seconds is None else {"Retry-After": f"{fault.seconds:g}"}
                return web.Response(text="the proxy says so", status=fault.status, headers=after)  # as a load balancer does
            method, path = ("GET", request.path) if kind == "swallow" else (request.method, request.raw_path)
            headers = {k: v for k, v in request.headers.items() if k.lower() not in HOP}
            async with session[0].request(method, cluster["server"] + path, headers=headers,
                                          data=None if kind == "swallow" else body or None, allow_redirects=False,
                                          skip_auto_headers=("Content-Type", "Accept", "User-Agent")) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
                if kind == "cut after":
                    await answer.read()
                    return _cut(request)
                out = web.StreamResponse(status=answer.status, headers=kept)
                await out.prepare(request)
                async for chunk in answer.content.iter_any():
                    if kind == "cut within":
                        await out.write(chunk[:len(chunk) // 2])
                        return _cut(request)
                    await out.write(chunk)
                await out.write_eof()
                return out

        app.on_startup.append(connect)
        app.on_cleanup.append(disconnect)
        app.router.add_route("*", "/{path:.*}", handle)
        return app


def _cut(request: web.Request) -> web.Response:
    assert request.transport
    request.transport.abort()
    return web.Response()


@contextmanager
def proxy(original: Path, folder: Path, *, expired: bool = False) -> Iterator[ApiProxy]:
    """A proxy before the API server of a rehearsal's kubeconfig, in a thread of its own. `folder` is to be private."""
    made = ApiProxy(original, folder, expired)
    _certificates(folder, expired=expired)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "server.crt", folder / "server.key")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = web.AppRunner(made.application(), access_log=None, shutdown_timeout=0.1)

    async def serve() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()

    asyncio.run_coroutine_threadsafe(serve(), loop).result(20)
    made.server = f"https://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(20)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result(20)  # until what was aborted is closed
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def _certificates(folder: Path, *, expired: bool) -> None:
    """`ca.crt`, `server.crt` for 127.0.0.1 and `server.key`; the server's may have ended yesterday."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    now, ca_key, key = dt.datetime.now(dt.UTC), ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name, subject = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in ("proxy CA", "proxy"))

    def builder(who: x509.Name, public: ec.EllipticCurvePublicKey, end: dt.datetime, *, ca: bool) -> x509.CertificateBuilder:
        return (x509.CertificateBuilder().subject_name(who).issuer_name(name).public_key(public)
                .serial_number(x509.random_serial_number()).not_valid_before(now - 9 * DAY).not_valid_after(end)
                .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
                .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False))

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    ca = builder(name, ca_key.public_key(), now + DAY, ca=True).add_extension(usage, critical=True)
    server = builder(subject, key.public_key(), now + (-DAY if expired else DAY), ca=False).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.crt").write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.crt").write_bytes(server.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (folder / "server.key").touch(mode=0o600)
    (folder / "server.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
