"""What holds for any input: a shown line is its argv again, what is written is read back, and a parser refuses in our words.

hypothesis prints the example that fails and how to try it again (`@reproduce_failure`, or `--hypothesis-seed`).
"""

from __future__ import annotations

import datetime as dt
import json
import shlex
import string
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gpurunbook import config, deployment, notebooks, show, yaml_file
from gpurunbook.cli import stack as cli_stack
from gpurunbook.command import Command
from gpurunbook.config import load_cluster
from gpurunbook.deployment import derive
from gpurunbook.errors import ConfigError
from gpurunbook.files import to_yaml
from gpurunbook.gpu_stack import FAMILIES
from gpurunbook.journal import Journal
from gpurunbook.plan import Plan
from gpurunbook.programs import eksctl, helm, locate
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.programs.helm import Helm
from gpurunbook.programs.kubectl import Fed, Kubectl
from gpurunbook.readiness.snapshot import quantity, when
from gpurunbook.runs import read
from gpurunbook.stages import answered
from gpurunbook.targets.rehearsal import pace
from tests.abuse.inputs import TEXTS

ROOT = Path(__file__).resolve().parents[2]
settings.register_profile("here", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
settings.load_profile("here")

anything = st.one_of(st.text(max_size=60), st.sampled_from([text for text in TEXTS if len(text) < 1000]))
"""Any text that Python can hold: lone surrogates and NUL too."""
arguments = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
"""What a program's argument can hold."""
leaves = st.none() | st.booleans() | st.integers(-2**63, 2**64 - 1) | st.floats(allow_nan=False) | arguments
documents = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(arguments, inner, max_size=4),
                         max_leaves=12)
odd = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | anything,
                   lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3), max_leaves=10)


# Commands

def built(words: list[str]) -> list[Command]:
    """One of each way in which a command of ours is made, with these words where people's or the cluster's may come."""
    one, other, path = words[0], words[-1], Path("/runs") / words[0].replace("/", "_").strip(".") / "file"
    kubectl, chart = Kubectl("/bin/kubectl", path, one), Helm("/bin/helm", path, one, path.parent)
    return [
        Command(("program", *words), "", 1), kubectl.get(*words, why=""), kubectl.apply(path, why=""), kubectl.diff(path),
        kubectl.delete(one, other, namespace=one), kubectl.untaint_nodes(one, selector=other),
        kubectl.shell(one, container=other), kubectl.untaint_nodes(one, names=words),
        kubectl.cp_into(path, one, other, container=one), kubectl.exec(one, *words, container=other, why=""),
        chart.repo_add(one, other), chart.list(one), chart.rollback(one, other),
        chart.upgrade_install(one, other, namespace=one, values=path, version=other), chart.uninstall(one, other, hooks=False),
        Eksctl().create_cluster(path, path, shown_config=one), Eksctl().create_nodegroup(path, *words),
        Eksctl().delete_nodegroup(one, other, one), Eksctl().try_account(one, other, one, path, {other: one})]


@given(st.lists(arguments, min_size=1, max_size=5))
def test_a_shown_command_is_its_argv_again(words: list[str]) -> None:
    for command in built(words):
        assert tuple(shlex.split(command.short)) == (command.shown or command.argv)
        assert tuple(shlex.split(command.full)) == command.argv


@settings(max_examples=25)
@example(["$(id)", "'; id #", "\n", "~", "*", "!!", "\u2028", "", "-x", "\\"])
@given(st.lists(arguments, min_size=1, max_size=12))
def test_bash_reads_a_shown_command_as_its_argv(words: list[str]) -> None:
    command = Kubectl("/bin/kubectl", Path("/k"), "c").exec("pod", *words, container="c", why="")
    fed = Fed(command.argv, "", 1, command.shown, source="/dev/null")
    for line in (command.short, fed.short):
        shell = f"set -f; kubectl() {{ printf '%s\\0' kubectl \"$@\"; }}; {line}"
        said = subprocess.run(["bash", "-c", shell], capture_output=True, check=True, timeout=20).stdout
        assert said.decode().split("\0")[:-1] == list(command.shown)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(["KUBECONFIG", "HELM_DATA_HOME", "KUBECACHEDIR"]), arguments, min_size=1))
def test_bash_takes_the_export_line_as_it_is_meant(variables: dict[str, str]) -> None:
    """As Run.header writes it."""
    line = "export " + " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
    shell = f"{line}; for name in {' '.join(variables)}; do printf '%s\\0' \"${{!name}}\"; done"
    said = subprocess.run(["bash", "-c", shell], capture_output=True, check=True, timeout=20).stdout
    assert said.decode().split("\0")[:-1] == list(variables.values())


@given(arguments, st.lists(arguments, min_size=1, max_size=4))
def test_a_plan_shows_its_commands_on_a_terminal_without_a_control_character(reason: str, words: list[str]) -> None:
    plan = Plan(tuple(built(words)), reason, f"export X={shlex.quote(words[0])}")
    assert not show.CONTROL.search(repr(plan))
    assert not show.CONTROL.search(plan._repr_html_())
    assert json.loads(json.dumps(plan.to_json()))["commands"] == [list(command.argv) for command in plan]


# What is written is read back

@given(st.lists(documents, max_size=3))
def test_yaml_that_is_written_is_read_back(found: list[Any]) -> None:
    assert yaml_file.parse_all(to_yaml(found), Path("x.yaml")) == found


@given(st.dictionaries(arguments.filter(lambda key: key not in ("time", "kind")), odd, max_size=4))
def test_a_record_that_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    journal = Journal(tmp_path_factory.mktemp("run"))
    sent = [{"a": 1}, {"fields": fields}, {"z": 2}]
    for one in sent:
        journal.append("note", **one)
    found = [{key: value for key, value in record.items() if key not in ("time", "kind")} for record in journal.records()]
    assert json.dumps(found, default=str) == json.dumps(sent, default=str)


@given(st.binary(max_size=300))
@example(b'{"kind": "intent"}\n{"kind": "result"}\n')
@example(b"null\n[]\n1\n\xff\n{\n" + b"[" * 100_000 + b"\n")
def test_a_journal_of_anything_is_read(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    journal = Journal(tmp_path_factory.mktemp("run"))
    journal.path.write_bytes(raw)
    assert all(isinstance(record, dict) for record in journal.records())
    journal.append("note", x=1)
    assert list(journal.records())[-1]["x"] == 1


# Parsers: an answer, or an error of ours

PARSERS: dict[str, tuple[Callable[[str], Any], tuple[type[Exception], ...]]] = {
    "yaml": (lambda text: yaml_file.parse_all(text, Path("x.yaml")), (ConfigError,)),
    "pace": (pace.number, (ConfigError,)),
    "helm list": (helm.releases, (ValueError, LookupError, TypeError)),  # its caller says what they mean
    "quantity": (lambda text: quantity({"nvidia.com/gpu": text, "nvidia.com/mig-1g.5gb": text, text: text}), ()),
    "time": (when, (ValueError,)),
    "version": (locate.numbers, (ValueError,)),
    "minor": (config._minor, ()),
    "gpu type": (config.is_gpu, ()),
    "literals": (notebooks.literals, ()),
    "digest": (notebooks.digest, ()),
    "one line": (show.line, ()),
}


@pytest.mark.parametrize("name", PARSERS)
@given(text=anything)
def test_a_parser_answers_or_refuses(name: str, text: str) -> None:
    parse, refusals = PARSERS[name]
    with suppress(*refusals):
        parse(text)


@given(st.sampled_from(["", *FAMILIES]) | anything, anything, anything)
def test_a_recipe_is_made_or_refused(family: str, kind: str, version: str) -> None:
    with suppress(ConfigError):
        assert cli_stack.recipe(ROOT, family, kind, version, "", dt.date(2026, 11, 23)).to_json()


@settings(max_examples=60)
@given(odd.filter(lambda found: isinstance(found, dict)))
def test_eksctls_schema_objects_or_passes(found: dict[Any, Any]) -> None:
    problem = eksctl.schema_problem(found)
    assert problem is None or all(isinstance(part, str) for part in problem)


@settings(max_examples=60)
@given(st.text(string.printable, max_size=200) | st.binary(max_size=200))
def test_a_cluster_file_of_anything_is_refused(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.mktemp("file") / "cluster.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError):
        load_cluster(path)


@given(st.text(st.sampled_from(string.ascii_letters + string.digits + "./:@-_ \n$\0{"), max_size=60))
def test_an_images_name_is_whole_or_refused(name: str) -> None:
    if deployment.REFERENCE.fullmatch(name):
        document = yaml_file.load(ROOT / "manifests/model/deployment.yaml")
        made = derive(document, load_cluster(ROOT / "cluster.yaml").gpu_group, image=name)
        again = yaml_file.parse(to_yaml([made]), Path("x.yaml"))
        assert again == made
        assert again["spec"]["template"]["spec"]["containers"][0]["image"] == name
        assert not set(name) & set(" \n$\0{")


@given(odd)
def test_tokens_of_anything_do_not_take_the_report_with_them(tmp_path_factory: pytest.TempPathFactory, found: Any) -> None:
    folder = tmp_path_factory.mktemp("run")
    journal = Journal(folder)
    journal.append("run", state="started", target="rehearsal", cluster_file="x")
    journal.append("stage", stage="next_token", state="done")
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "next_tokens.json").write_text(json.dumps(found))
    assert read(folder) is not None
    assert answered.tokens(folder) is None or isinstance(answered.tokens(folder), dict)


def test_there_is_one_reader_of_yaml() -> None:
    readers = [path.name for path in (ROOT / "gpurunbook").rglob("*.py")
               if any(word in path.read_text() for word in ("yaml.safe_load", "yaml.load", "yaml.full_load"))]
    assert readers == []
