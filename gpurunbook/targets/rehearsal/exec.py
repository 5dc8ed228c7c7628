"""`kubectl exec`: a command in a jail of its own over the pod's files, behind a WebSocket.

Each exec has its own process table and sees the container's files, variables and limits, but not its other processes;
what it leaves in the background ends with it. Protocols: v5.channel.k8s.io (kubectl) and v4.channel.k8s.io (the
`kubernetes` Python client), as k8s.io/apimachinery/pkg/util/remotecommand names them. A binary frame's first byte is
the channel; the end of the client ends the command and all that it started.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import Any

from aiohttp import WSMsgType, web

from gpurunbook.targets.rehearsal.jail import Jail, missing
from gpurunbook.targets.rehearsal.process import Exit, Process, chunks, write_all

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
LARGEST_FRAME = 64 << 20  # bytes: the Python client sends what it is given in one frame
CUT_AFTER = 1 << 16  # bytes of input that a stream takes which is about to break
END_OF_TRANSMISSION = b"\x04"  # what a terminal reads as the end of input


def outcome(end: Exit) -> dict[str, Any]:
    """The metav1.Status that closes an exec; an exit code travels as its cause `ExitCode`."""
    if not end.jailed:
        return failure("the command could not be jailed, so it did not run; stderr says why")
    if end.code == 0:
        return {"metadata": {}, "status": "Success"}
    return {"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": f"command terminated with exit code {end.code}",
            "details": {"causes": [{"reason": "ExitCode", "message": str(end.code)}]}}


def failure(message: str) -> dict[str, Any]:
    """The metav1.Status of an exec that could not start; kubectl prints the message and ends with 1."""
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500}


def not_found(said: str, start: str) -> dict[str, Any]:
    """The metav1.Status of a program that is not in the container, as containerd words it; kubectl ends with 1.

    Args:
        said: runc's words.
        start: a number of this exec's own, in hexadecimal.
    """
    return failure("Internal error occurred: error executing command in container: failed to exec in container: "
                   f'failed to start exec "{start}": OCI runtime exec failed: exec failed: unable to start container '
                   f"process: {said}: unknown")


class Cut(Exception):
    """The stream breaks here."""


def flag(request: web.Request, *names: str) -> bool:
    """A boolean of the query, as Go writes it ("1", "true"); kubelets take it under either of its names."""
    return any(request.query.get(name, "").lower() in ("1", "true") for name in names)


async def open_channels(request: web.Request) -> web.WebSocketResponse:
    """Accept the WebSocket.

    Raises:
        web.HTTPNotImplemented: not a WebSocket (SPDY), or none of our protocols.
    """
    socket = web.WebSocketResponse(protocols=PROTOCOLS, max_msg_size=LARGEST_FRAME, compress=False)
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    if not socket.can_prepare(request).ok or not any(protocol in offered for protocol in PROTOCOLS):
        raise web.HTTPNotImplemented(text="the rehearsal speaks exec over WebSocket only (kubectl 1.31 and later)")
    await socket.prepare(request)
    return socket


async def send_status(socket: web.WebSocketResponse, status: dict[str, Any]) -> None:
    """Send the closing status and say goodbye."""
    await socket.send_bytes(bytes([ERROR]) + json.dumps(status).encode())
    await socket.close()


async def run(request: web.Request, socket: web.WebSocketResponse, jail: Jail, *, cut: bool = False) -> None:
    """Run the query's command until it has ended or the client has gone.

    Args:
        cut: the stream breaks: half of the first output is sent, and no status, so that kubectl ends with 0. So it does
            after 64 KiB of input, and when the command ends without a word. Here the command ends with its stream.
    """
    tty, command = flag(request, "tty"), request.query.getall("command")
    if (said := missing(jail, command[0])) is not None:
        return await send_status(socket, not_found(said, secrets.token_hex(32)))
    try:
        process = Process.start(jail, command, stdin=flag(request, "input", "stdin"), tty=tty)
    except OSError as error:
        return await send_status(socket, failure(f"the command could not be started: {error}"))
    client = asyncio.create_task(_receive(socket, process, tty, CUT_AFTER if cut else None))
    program = asyncio.create_task(_send(socket, process, cut=cut))
    try:
        await asyncio.wait({client, program}, return_when=asyncio.FIRST_COMPLETED)
        if client.done():
            client.result()
        else:
            await send_status(socket, outcome(program.result()))
    except* Cut:
        await socket.close()
    except* ConnectionError:
        pass  # the client has gone: so goes the command
    finally:
        process.kill()
        for task in (client, program):
            task.cancel()
        await asyncio.gather(client, program, process.wait(), return_exceptions=True)
        process.close()


async def _send(socket: web.WebSocketResponse, process: Process, *, cut: bool) -> Exit:
    async def pump(descriptor: int | None, channel: int) -> None:
        if descriptor is not None:
            prefix = bytes([channel])
            async for data in chunks(descriptor):
                await socket.send_bytes(prefix + (data[:len(data) // 2] if cut else data))
                if cut:
                    raise Cut

    async with asyncio.TaskGroup() as pumps:
        pumps.create_task(pump(process.stdout, STDOUT))
        pumps.create_task(pump(process.stderr, STDERR))
    end = await process.wait()
    if cut:
        raise Cut
    return end


async def _receive(socket: web.WebSocketResponse, process: Process, tty: bool, most: int | None) -> None:
    """Until the client closes the connection. Raises Cut after `most` bytes of input."""
    taken = 0
    async for message in socket:
        # The Python client sends str as text frames.
        frame: bytes = message.data.encode() if message.type is WSMsgType.TEXT else message.data
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY) or not frame:
            continue
        channel, data = frame[0], frame[1:]
        if channel == STDIN and process.stdin is not None:
            taken += len(data)
            if most is not None and taken > most:
                raise Cut
            try:
                await write_all(process.stdin, data)
            except OSError:
                process.close_stdin()  # it reads no more, which is its right: `head -1`
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and process.stdin is not None:
            if tty:
                await write_all(process.stdin, END_OF_TRANSMISSION)
            else:
                process.close_stdin()
        elif channel == RESIZE and tty:
            size = json.loads(data)
            process.resize(int(size["Height"]), int(size["Width"]))
