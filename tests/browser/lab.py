"""A real JupyterLab on a copy of the checkout: started with the flags of `make lab`, ended with its kernels."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.conftest import REPOSITORY, Checkout

START_S = 60
RUNTIME = "JUPYTER_RUNTIME_DIR"
FOLDERS = (RUNTIME, "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR")


@dataclass(frozen=True)
class Lab:
    """A server at work: its address, the token that opens it, and the copy of the checkout that it shows."""

    checkout: Checkout
    url: str
    token: str

    def book(self, name: str) -> Path:
        """A notebook's file."""
        return self.checkout.root / "notebooks" / name

    def page(self, book: Path) -> str:
        """The address of a notebook, in a workspace where nothing else is open."""
        return f"{self.url}/lab/tree/notebooks/{book.name}?reset&token={self.token}"


def flags() -> list[str]:
    """What `make lab` gives to JupyterLab: with other flags, another Lab than the user's would be tested."""
    said = subprocess.run(["make", "-n", "lab"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    words = shlex.split(said.replace("\\\n", "").partition("jupyter lab ")[2])
    return [word for word in words if word.startswith("--")]


@contextmanager
def started(checkout: Checkout, folder: Path) -> Iterator[Lab]:
    """JupyterLab on a free port of 127.0.0.1, with settings of its own. Raises AssertionError with its log."""
    own = {name: str(folder / name.lower()) for name in FOLDERS}
    folder.mkdir(parents=True)
    argv = [str(REPOSITORY / ".venv/bin/jupyter"), "lab", *flags(), "--no-browser", "--port=0"]
    with (folder / "lab.log").open("wb") as log:
        server = subprocess.Popen(argv, cwd=checkout.root, env=checkout.environment | own, stdin=subprocess.DEVNULL, stdout=log,
                                  stderr=subprocess.STDOUT)
    try:
        told = _told(Path(own[RUNTIME]) / f"jpserver-{server.pid}.json", server, folder / "lab.log")
        yield Lab(checkout, told["url"].rstrip("/"), told["token"])
    finally:
        server.terminate()
        server.wait(30)


def _told(path: Path, server: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    end = time.monotonic() + START_S
    while time.monotonic() < end and server.poll() is None:
        if path.exists() and (text := path.read_text()).rstrip().endswith("}"):
            return dict(json.loads(text))
        time.sleep(0.05)
    raise AssertionError(f"JupyterLab did not start within {START_S} s:\n{log.read_text()[-3000:]}")
