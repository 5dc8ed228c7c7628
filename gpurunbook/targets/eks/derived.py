"""runs/ID/cluster.yaml: the user's cluster.yaml with the run's tags, since eksctl refuses `--tags` beside a file.

The lines are put in where they belong, so that comments stay and the difference is only what was added.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from gpurunbook import yaml_file
from gpurunbook.errors import ConfigError
from gpurunbook.files import to_yaml

NAME = Path("cluster.yaml")


def derive(text: str, tags: Mapping[str, str], zones: Mapping[str, Sequence[str]] | None = None) -> str:
    """The file with tags in `metadata.tags`, and node groups (by name) bound to zones.

    A file whose form leaves no line to put them at (flow style, anchors, tags that are there already) is written anew,
    without its comments.
    """
    wanted = _wanted(yaml_file.parse(text, NAME), tags, zones or {})
    derived = _inserted(text, tags, zones or {})
    try:
        if yaml_file.parse(derived, NAME) == wanted:
            return derived
    except ConfigError:
        pass  # what was put in did not fit: the whole is written anew
    return to_yaml([wanted])


def diff(before: str, after: str, *, name: str = "cluster.yaml", derived: str = "runs/ID/cluster.yaml") -> str:
    """What was added, as `diff -u` shows it."""
    return "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), name, derived, n=2, lineterm=""))


def _wanted(document: Any, tags: Mapping[str, str], zones: Mapping[str, Sequence[str]]) -> Any:
    document = deepcopy(document)
    document["metadata"]["tags"] = {**(document["metadata"].get("tags") or {}), **tags}
    for group in (document.get("nodeGroups") or []) + (document.get("managedNodeGroups") or []):
        if group["name"] in zones:
            group["availabilityZones"] = list(zones[group["name"]])
    return document


def _inserted(text: str, tags: Mapping[str, str], zones: Mapping[str, Sequence[str]]) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines = text.splitlines(keepends=True)
    added: list[tuple[int, list[str]]] = []
    metadata = _value(root, "metadata")
    if isinstance(metadata, yaml.MappingNode) and metadata.value:
        there = _value(metadata, "tags")
        inside = isinstance(there, yaml.MappingNode) and bool(there.value)
        mark = (there if inside else metadata).value[0][0].start_mark  # type: ignore[union-attr]
        body = [f'{" " * mark.column}{"" if inside else "  "}{key}: "{value}"\n' for key, value in tags.items()]
        added.append((mark.line, body if inside else [f'{" " * mark.column}tags:\n', *body]))
    for key in ("nodeGroups", "managedNodeGroups"):
        groups = _value(root, key)
        for group in groups.value if isinstance(groups, yaml.SequenceNode) else []:
            name = _value(group, "name")
            if isinstance(name, yaml.ScalarNode) and name.value in zones and len(group.value) > 1:
                mark = group.value[1][0].start_mark
                added.append((mark.line, [f'{" " * mark.column}availabilityZones: [{", ".join(zones[name.value])}]\n']))
    for line, new in sorted(added, reverse=True):
        lines[line:line] = new
    return "".join(lines)


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if isinstance(name, yaml.ScalarNode) and name.value == key), None)
