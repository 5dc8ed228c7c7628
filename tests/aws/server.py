"""An AWS account for programs in other processes: a moto server on loopback, behind our proxy. Nothing of it is AWS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.aws import lacking
from tests.aws.proxy import Call, Fault, State, application
from tests.aws.stacks import STACK, Event, Stacks, Story

REGION = lacking.REGION
ACCOUNT = "123456789012"
CANARIES = {"AWS_ACCESS_KEY_ID": "AKIACANARYCANARY2326", "AWS_SECRET_ACCESS_KEY": "canary/Secret+Key/0123456789abcdefghijkl",
            "AWS_SESSION_TOKEN": "canary//SessionToken//FwoGZXIvYXdzEJr0123456789"}
"""Credentials that must be found in no file: no real ones look so."""
PREFIXES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing", "resourcegroupstaggingapi": "tag",
            "service-quotas": "servicequotas"}
"""How IAM names services that boto3 names otherwise."""

MOTO = """
import sys
from moto.moto_server.threaded_moto_server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
import moto.cloudformation.parsing, moto.cloudformation.responses, moto.eks.responses, moto.ec2.responses, moto.iam.responses
sys.stdin.read()  # until whoever started it is gone
"""


class Aws:
    """One account, empty at first. Use it as a context manager, or call `start` and `stop`.

    `environment` is what a program needs to use it; `facts` are the answers of lacking.py, which a test may change;
    `calls` are the calls so far. Its methods may be used while programs run.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aws-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        images = Path(self._folder.name, "images.json")
        images.write_text(json.dumps(lacking.motos_images()))
        with Path(self._folder.name, "moto.log").open("wb") as log:
            self._moto = subprocess.Popen(
                [sys.executable, "-c", MOTO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                start_new_session=True, env={"PATH": os.environ["PATH"], "MOTO_AMIS_PATH": str(images), "LANG": "C.UTF-8"})
        assert self._moto.stdout
        port = self._moto.stdout.readline().strip()
        assert port, f"moto did not start: {Path(log.name).read_text()}"
        self._direct = f"http://127.0.0.1:{port}"
        self.state = State(Stacks(self.session(), self._direct))
        self._thread.start()
        self.endpoint = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(20)

    async def _serve(self) -> str:
        self._runner = web.AppRunner(application(self.state, self._direct), access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}"

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        assert self._moto.stdin
        assert self._moto.stdout
        self._moto.stdin.close()
        self._moto.kill()
        self._moto.wait(10)
        self._moto.stdout.close()
        self._folder.cleanup()

    @property
    def environment(self) -> dict[str, str]:
        """For a program that is to use this account; loopback must not go through a proxy."""
        return {"AWS_ENDPOINT_URL": self.endpoint, "AWS_REGION": REGION, "AWS_DEFAULT_REGION": REGION,
                "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **CANARIES}

    @property
    def facts(self) -> lacking.Facts:
        return self.state.facts

    @property
    def calls(self) -> list[Call]:
        """Every call so far, the stand-in's excepted: it speaks to the account in its own way."""
        with self.state.turn:
            return list(self.state.calls)

    def session(self) -> Any:
        """A boto3 Session with this account's credentials; a client of it needs `endpoint_url` (see `client`)."""
        import boto3
        return boto3.Session(CANARIES["AWS_ACCESS_KEY_ID"], CANARIES["AWS_SECRET_ACCESS_KEY"],
                             CANARIES["AWS_SESSION_TOKEN"], REGION)

    def client(self, service: str, region: str = REGION) -> Any:
        """A boto3 client that goes straight to moto: to seed and to look, unnoted and never refused."""
        return self.state.stacks.client(service, region)

    def seen(self, service: str, region: str = REGION) -> Any:
        """A boto3 client as a program has it: noted, and met by faults. It does not try again."""
        from botocore.config import Config
        return self.session().client(service, region_name=region, endpoint_url=self.endpoint,
                                     config=Config(retries={"total_max_attempts": 1}))

    def fail(self, service: str, operation: str, *, code: str, message: str = "", status: int = 400,
             times: int | None = 1) -> None:
        """The next `times` calls (None: all) end with this error. `operation` is AWS's name, or "*"."""
        self._add(Fault(service, operation, times, code, message or code, status))

    def deny(self, service: str, operation: str) -> None:
        """From now on nobody may call this; the policy simulator says so too."""
        spoken = "UnauthorizedOperation" if service == "ec2" else "AccessDeniedException"
        if service in ("iam", "sts", "cloudformation", "autoscaling", "elb", "elbv2"):
            spoken = "AccessDenied"
        action = f"{PREFIXES.get(service, service)}:{operation}"
        self.facts.refused.add(action)
        self._add(Fault(service, operation, None, spoken,
                        f"User: arn:aws:sts::{ACCOUNT}:user/moto is not authorized to perform: {action}", 403))

    def slow(self, service: str, operation: str, seconds: float, times: int | None = None) -> None:
        """The next `times` calls (None: all) are answered only after so many seconds."""
        self._add(Fault(service, operation, times, seconds=seconds))

    def _add(self, fault: Fault) -> None:
        with self.state.turn:
            self.state.faults.append(fault)

    def mend(self) -> None:
        """No fault is left, and nothing is denied."""
        with self.state.turn:
            self.state.faults.clear()
            self.facts.refused.clear()

    def stack(self, name: str, status: str, *, reason: str = "", events: list[tuple[str, str, str, str]] | None = None) -> None:
        """Say of a stack, which must exist, that it is in `status`; `events` are (logical id, type, status, reason)."""
        self.state.stacks.stories[name] = Story(name, [*[Event(0, *event) for event in events or ()],
                                                       Event(0, name, STACK, status, reason)])

    def reset(self) -> None:
        """An empty account, and nothing that was said to it before."""
        self.mend()
        with self.state.turn:
            self.state.calls.clear()
            self.state.errors.clear()
            self.state.facts = lacking.Facts()
        self.state.stacks.forget()
        with urllib.request.urlopen(urllib.request.Request(f"{self._direct}/moto-api/reset", method="POST"), timeout=20):
            pass
