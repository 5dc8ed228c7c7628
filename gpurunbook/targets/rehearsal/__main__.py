"""Starts the pod host: `python -m gpurunbook.targets.rehearsal --kubeconfig F --port N ...`.

Without --foreground the parent returns 0 once the server listens, else 1 with the reason; the child goes on in a
session of its own, with the environment it got. It may start before the cluster: it waits for the kubeconfig file, and
makes the certificates if there are none.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from gpurunbook.errors import RunbookError
from gpurunbook.targets.rehearsal.pod_host import PodHost, Settings, machine

LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gpurunbook.targets.rehearsal", description=__doc__)
    for name in ("kubeconfig", "pki", "pods", "images", "model", "log"):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True)
    for name, text in (("nodes", "a List of Nodes to register"), ("world", "what the rehearsal imitates (world.py)")):
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), help=text)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--foreground", action="store_true")
    chosen = parser.parse_args(arguments)
    settings = Settings(chosen.kubeconfig, chosen.port, chosen.pki, chosen.pods, chosen.images, chosen.model,
                        chosen.nodes, chosen.world)
    os.umask(0o022)
    # A background job of a script inherits these as ignored, and so would every program of every pod.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if chosen.foreground:
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
        return serve(settings, lambda error: print(error or "listening", file=sys.stderr))
    return daemonise(settings, chosen.log)


def daemonise(settings: Settings, log: Path) -> int:
    """Fork, serve in the child, and wait for it to listen or fail."""
    read, write = os.pipe()
    if os.fork() == 0:
        def tell(error: str) -> None:
            os.write(write, error.encode() or b"\0")
            os.close(write)

        code = 1
        try:
            os.close(read)
            os.setsid()
            detach(log)
            logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
            code = serve(settings, tell)
        except BaseException:
            traceback.print_exc()
        finally:
            logging.shutdown()
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        said = answer.read().decode()
    if said == "\0":
        return 0
    error = said or str(RunbookError("The pod host ended before it listened", where=str(log),
                                     next="read the end of that file"))
    print(error, file=sys.stderr)
    return 1


def detach(log: Path) -> None:
    """Standard input from nowhere, output to the log: whoever waits for our caller's output must not wait for us."""
    log.parent.mkdir(parents=True, exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(output)
    os.close(nothing)
    os.chdir("/")


def serve(settings: Settings, tell: Callable[[str], None]) -> int:
    """Run the pod host; calls `tell` once, with "" when it listens, else with the error."""
    async def run() -> None:
        listening = asyncio.Event()
        host = asyncio.create_task(PodHost(settings, shared).run(listening))
        started = asyncio.create_task(listening.wait())
        await asyncio.wait({host, started}, return_when=asyncio.FIRST_COMPLETED)
        if listening.is_set():
            tell("")
        started.cancel()
        await host

    try:
        shared = machine(settings)
        asyncio.run(run())
    except RunbookError as error:
        tell(str(error))
        return 1
    except OSError as error:
        tell(str(RunbookError(f"The pod host could not start: {error}", where=f"127.0.0.1:{settings.port}",
                              next="choose another --port, or end what listens there")))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
