"""Fixtures for a conftest to import: the account for programs in other processes, and a stand-in eksctl that uses it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.aws.eksctl import POINTS
from tests.aws.server import Aws

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """#!{python}
import sys
sys.path.insert(0, {repository!r})
from pathlib import Path
from tests.aws.eksctl import main
sys.exit(main(sys.argv[1:], Path({settings!r})))
"""


@dataclass(frozen=True)
class StandIn:
    """An installed stand-in: put `folder` first on the PATH of what is to find it."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "eksctl"

    def set(self, **settings: Any) -> None:
        """Change settings (tests/aws/eksctl.py lists them) now, even while it runs; None takes one away."""
        assert settings.get("hang") in (None, *POINTS), f"no such point: {settings['hang']}"
        file = self.folder / "eksctl.json"
        kept = json.loads(file.read_text()) if file.exists() else {}
        kept = {key: value for key, value in {**kept, **settings}.items() if value is not None}
        new = file.with_suffix(".set")
        new.write_text(json.dumps(kept, default=str))
        new.replace(file)
        if "hang" in settings:
            (self.folder / "eksctl.at").unlink(missing_ok=True)

    @property
    def hangs_at(self) -> str:
        """The point at which it hangs now, empty before it got there."""
        at = self.folder / "eksctl.at"
        return at.read_text() if at.exists() else ""

    @property
    def runs(self) -> list[list[str]]:
        """The arguments of every run so far, `version` excepted."""
        log = self.folder / "eksctl.log"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [line for line in lines if line != ["version"]]


def install(folder: Path, **settings: Any) -> StandIn:
    """Install the stand-in as `folder`/eksctl."""
    folder.mkdir(parents=True, exist_ok=True)
    made = StandIn(folder)
    made.program.write_text(PROGRAM.format(python=sys.executable, repository=str(REPOSITORY),
                                           settings=str(folder / "eksctl.json")))
    made.program.chmod(0o755)
    made.set(**settings)
    return made


@pytest.fixture(scope="session")
def aws_server() -> Iterator[Aws]:
    """One moto server and proxy for the whole session (0.3 s)."""
    with Aws() as account:
        yield account


@pytest.fixture
def aws(aws_server: Aws) -> Iterator[Aws]:
    """An empty account, for programs in any process (`aws.environment`)."""
    aws_server.reset()
    yield aws_server
    aws_server.mend()
    if aws_server.state.errors:
        raise ExceptionGroup("the account could not do what it was asked", aws_server.state.errors)


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    """The stand-in eksctl, alone in a folder for the PATH."""
    return install(tmp_path / "stand-in", seconds={"cluster": 0.3, "group": 0.2, "delete": 0.1})
