"""eksctl's command lines as strictly as eksctl reads them: the flags come from its recorded help, the refusals too."""

from __future__ import annotations

import fnmatch
import re
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HELP = Path(__file__).parents[1] / "data" / "eksctl" / "help"
LINE = re.compile(r"^ +(?:-(?P<short>\w), )?--(?P<name>[\w-]+)(?: (?P<kind>\S.*?))?  ", re.MULTILINE)
VERBS = ("create addon", "create cluster", "create nodegroup", "delete cluster", "delete nodegroup", "get cluster",
         "get nodegroup", "utils write-kubeconfig")
ALIASES = {"ng": "nodegroup", "nodegroups": "nodegroup", "clusters": "cluster"}
NOT_WITH_FILE = ("cluster", "name", "region", "support-type", "version")
"""Refused beside --config-file by every verb; `create cluster` refuses more (v0.230.0, pkg/ctl/cmdutils/configfile.go)."""
NOT_WITH_FILE_CREATING = ("enable-auto-mode", "fargate", "managed", "node-ami", "node-type", "nodegroup-name", "nodes",
                          "nodes-max", "nodes-min", "tags", "vpc-cidr", "with-oidc", "without-nodegroup", "zones")
NOT_IN_DRY_RUN = ("authenticator-role-arn", "auto-kubeconfig", "kubeconfig", "set-kubeconfig-context", "write-kubeconfig",
                  "cfn-disable-rollback", "cfn-role-arn", "install-neuron-plugin", "install-nvidia-plugin", "profile", "timeout")
ONLY_WITH_FILE = ("approve", "exclude", "include", "only-missing")


class Refusal(Exception):
    """What eksctl says after `Error:`; it ends with 1."""


@dataclass(frozen=True)
class Flags:
    """A command line that was accepted: the verb, such as "create cluster", and the flags that were given."""

    verb: str
    given: dict[str, list[str]]

    @property
    def file(self) -> str:
        return self.value("config-file")

    def value(self, name: str) -> str:
        return self.given[name][-1] if name in self.given else ""

    def must(self, name: str) -> str:
        if not self.value(name):
            raise Refusal(f"--{name} must be set")
        return self.value(name)

    def on(self, name: str, default: bool = False) -> bool:
        return self.value(name) in ("true", "1", "t") if name in self.given else default

    def list(self, name: str) -> list[str]:
        return [part for value in self.given.get(name, ()) for part in value.split(",")]

    def includes(self, group: str) -> bool:
        """Whether --include and --exclude leave this node group."""
        wanted, unwanted = self.list("include"), self.list("exclude")
        return (not wanted or any(fnmatch.fnmatchcase(group, glob) for glob in wanted)) \
            and not any(fnmatch.fnmatchcase(group, glob) for glob in unwanted)

    def described(self) -> dict[str, Any]:
        """The cluster of `create cluster` without a file: one managed group."""
        tags = dict(pair.split("=", 1) for pair in self.list("tags"))
        metadata = {"name": self.must("name"), "region": self.value("region") or "eu-central-1",
                    "version": self.value("version") or "1.34", "tags": tags}
        group = {"name": self.value("nodegroup-name") or "ng-5eed5eed", "instanceType": self.value("node-type") or "m5.large",
                 "desiredCapacity": int(self.value("nodes") or 2)}
        return {"apiVersion": "eksctl.io/v1alpha5", "kind": "ClusterConfig", "metadata": metadata,
                "managedNodeGroups": [] if self.on("without-nodegroup") else [group]}

    def config(self) -> dict[str, Any]:
        """The config file, as far as eksctl's schema accepts it. Raises Refusal."""
        from gpurunbook.programs.eksctl import schema_problem
        try:
            text = sys.stdin.read() if self.file == "-" else Path(self.file).read_text()
        except OSError as error:
            raise Refusal(f'reading config file "{self.file}": open {self.file}: {str(error.strerror).lower()}') from error
        document: dict[str, Any] = yaml.safe_load(text)
        if problem := schema_problem(document):
            key, said = problem
            what = f'json: unknown field "{key.rpartition(".")[2]}"' if said.startswith("unknown key") else f"json: {key}: {said}"
            raise Refusal(f'loading config file "{self.file}": error unmarshaling JSON: while decoding JSON: {what}')
        return document


def read(argv: list[str]) -> Flags:
    """What a command line (without the program's name) asks for. Raises Refusal."""
    if argv[:1] == ["version"]:
        return Flags("version", {})
    words: list[str] = []
    given: dict[str, list[str]] = {}
    rest = list(argv)
    known: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            words.append(ALIASES.get(word, word))
            if len(words) == 2:
                known = flags_of(_verb(words))
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("--"):
            short, tail = word[1], word[2:].removeprefix("=")
            if f"-{short}" not in known:
                raise Refusal(f"unknown shorthand flag: '{short}' in {word}")
            name, value, equals = known[f"-{short}"], tail, "=" if tail else ""
        if name not in known:
            raise Refusal(f"unknown flag: --{name}")
        if known[name] == "bool":
            value = value if equals else "true"
        elif not equals:
            if not rest:
                raise Refusal(f"flag needs an argument: --{name}")
            value = rest.pop(0)
        _check(name, known[name], value)
        given.setdefault(name, []).append(value)
    flags = Flags(_verb(words), given)
    if len(words) > 2:
        raise Refusal("the stand-in takes names by --name only")
    _together(flags)
    return flags


@cache
def flags_of(verb: str) -> dict[str, str]:
    """The kind of each flag ("bool", "string", "int", "duration", ...), and for `-f` the long name that it stands for."""
    found = {}
    for line in LINE.finditer((HELP / f"{verb.replace(' ', '-')}.txt").read_text()):
        found[line["name"]] = line["kind"] or "bool"
        if line["short"]:
            found[f"-{line['short']}"] = line["name"]
    return found


def _verb(words: list[str]) -> str:
    verb = " ".join(words[:2])
    if verb not in VERBS:
        raise Refusal(f'unknown command "{verb}" for "eksctl"')
    return verb


def _check(name: str, kind: str, value: str) -> None:
    patterns = {"bool": r"1|t|T|true|TRUE|True|0|f|F|false|FALSE|False", "int": r"[+-]?\d+",
                "duration": r"0|([+-]?(\d+(\.\d*)?(ns|us|ms|s|m|h))+)"}
    if kind in patterns and not re.fullmatch(patterns[kind], value):
        why = {"bool": f'strconv.ParseBool: parsing "{value}": invalid syntax',
               "int": f'strconv.ParseInt: parsing "{value}": invalid syntax',
               "duration": f'time: invalid duration "{value}"'}[kind]
        raise Refusal(f'invalid argument "{value}" for "--{name}" flag: {why}')


def _together(flags: Flags) -> None:
    """What eksctl refuses in combination, in the order in which it looks."""
    beside = NOT_WITH_FILE + (NOT_WITH_FILE_CREATING if flags.verb == "create cluster" else ())
    if flags.file:
        for name in sorted(beside):
            if name in flags.given:
                raise Refusal(f"cannot use --{name} when --config-file/-f is set")
    else:
        for name in ONLY_WITH_FILE:
            if name in flags.given:
                raise Refusal(f"cannot use --{name} unless a config file is specified via --config-file/-f")
    if flags.on("dry-run"):
        for name in NOT_IN_DRY_RUN:
            if name in flags.given:
                raise Refusal(f"cannot use --{name} with --dry-run as this option cannot be represented in ClusterConfig")
