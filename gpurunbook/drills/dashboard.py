"""A dashboard that lists all pods without a pause: `python -m gpurunbook.drills.dashboard FILE` goes into the background.

Pods of a rehearsal have no network, so this process does what the pod of the Deployment platform/dashboard would do, as
long as that has a replica. It asks for pods at a version that is not there yet, as clients do that outlived a restore of
etcd: the API server holds such a request for 3 seconds. It ends with the API server.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CLIENTS = 3
"""So that one waits for the seat that another gives back."""
LIST = f"/api/v1/pods?limit=1&resourceVersionMatch=NotOlderThan&resourceVersion={10**12}"
DEPLOYMENT = "/apis/apps/v1/namespaces/platform/deployments/dashboard"
SECONDS, TURNED_AWAY, PAUSE = 10.0, 0.03, 0.2
Ask = Callable[[str], tuple[int, bytes]]


def client(known: dict[str, str]) -> Ask:
    """A function that asks for a path over one connection that stays open."""
    tls = ssl.create_default_context(cafile=known["ca"])
    where = urlsplit(known["server"])
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, timeout=SECONDS, context=tls)

    def ask(path: str) -> tuple[int, bytes]:
        connection.request("GET", path, headers={"Authorization": f"Bearer {known['token']}"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    return ask


def main(file: Path) -> None:
    """Until the API server is gone."""
    known, wanted, over = json.loads(file.read_text()), threading.Event(), threading.Event()

    def guarded(work: Callable[[Ask], None]) -> None:
        try:
            ask = client(known)
            while not over.is_set():
                work(ask)
        except (OSError, http.client.HTTPException):
            over.set()  # the API server went, or there is none

    def look(ask: Ask) -> None:
        status, body = ask(DEPLOYMENT)
        (wanted.set if status == 200 and _replicas(json.loads(body)) else wanted.clear)()
        over.wait(PAUSE)

    def list_pods(ask: Ask) -> None:
        if not wanted.wait(PAUSE):
            return
        status, _ = ask(LIST)
        if status != 504:  # 504 is the answer after 3 seconds
            time.sleep(TURNED_AWAY)

    for work in (look, *(list_pods,) * CLIENTS):
        threading.Thread(target=guarded, args=(work,), daemon=True).start()
    over.wait()


def _replicas(deployment: dict[str, Any]) -> int:
    return int(deployment["spec"].get("replicas", 1))


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        main(Path(sys.argv[1]))
