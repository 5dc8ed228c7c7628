"""Every flag that our builders use exists in the real programs. An absent program fails here, it never skips."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from gpurunbook import programs
from gpurunbook.command import Command
from gpurunbook.programs.eksctl import SCHEMA, Eksctl
from tests.unit.test_programs import TABLE

DATA = Path(__file__).resolve().parents[1] / "data" / "eksctl"
FLAG = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
EKSCTL = [Eksctl().create_cluster(Path("c"), Path("k")),
          Eksctl().create_nodegroup(Path("c"), "a", "b"), Eksctl().create_addon("vpc-cni", "c", "r"),
          Eksctl().delete_nodegroup("g", "c", "r"), Eksctl().delete_cluster("c", "r"),
          Eksctl().try_account("c", "r", "1.36", Path("k"), {"a": "b"}), Eksctl().write_kubeconfig("c", "r", Path("k"))]


def parts(command: Command) -> tuple[list[str], set[str]]:
    """The words before the first argument that is no verb, and the flags; what follows `--` is the pod's."""
    ours = list(command.argv[1:command.argv.index("--")] if "--" in command.argv else command.argv[1:])
    flags = {word.partition("=")[0] for word in ours if word.startswith("-")}
    return [word for word in ours if not word.startswith("-")], flags


@cache
def help_text(program: str, *words: str) -> str:
    found = programs.find(program)
    assert found.fits, f"{program}: {found.how}; get it by `make setup`"
    return subprocess.run([found.path, *words], capture_output=True, text=True, check=True, timeout=20).stdout


def known_flags(text: str) -> set[str]:
    return set(FLAG.findall("\n".join(line for line in text.splitlines() if line.lstrip().startswith("-"))))


@pytest.mark.parametrize("command", [row[0] for row in TABLE], ids=lambda c: c.short)
def test_kubectl_and_helm_know_every_flag(command: Command) -> None:
    program = Path(command.argv[0]).name
    words, flags = parts(command)
    verbs = words[:2] if words[0] == "repo" or words[:2] == ["get", "values"] else words[:1]
    text = help_text(program, *verbs, "--help")
    assert f"{program} {' '.join(verbs)}" in text  # for a verb it does not know, a program may show its own help
    known = known_flags(text) | (known_flags(help_text("kubectl", "options")) if program == "kubectl" else set())
    known |= {"-it"} if {"-i", "-t"} <= known else set()
    assert flags <= known


@pytest.mark.parametrize("command", EKSCTL, ids=lambda c: c.short)
def test_eksctl_knows_every_flag(command: Command) -> None:
    words, flags = parts(command)
    assert flags <= known_flags((DATA / "help" / f"{'-'.join(words[:2])}.txt").read_text())


def test_helm_knows_the_states_that_a_listing_asks_for() -> None:
    """Helm 4 has no --all: each state is named, and the one of a finished uninstall is not asked for."""
    assert {"--deployed", "--failed", "--pending", "--uninstalling"} <= known_flags(help_text("helm", "list", "--help"))


def test_eksctls_schema_is_as_eksctl_printed_it() -> None:
    """`eksctl utils schema` of 0.231 without `x-intellij-html-description` and `preferredOrder`, as compact JSON."""
    compact = json.dumps(json.loads(SCHEMA.read_text()), sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(compact.encode()).hexdigest() == \
        "7330876a45e2e380a5ab82b2c29cdc21a8985291665fdf36c5ffd03bbf901e06"
