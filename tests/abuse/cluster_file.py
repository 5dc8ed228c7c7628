"""cluster.yaml with anything in any place: refused with a place to look at, or taken as it stands."""

from __future__ import annotations

import copy
import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gpurunbook import yaml_file
from gpurunbook.config import load_cluster
from gpurunbook.files import to_yaml
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.show import CONTROL
from gpurunbook.targets.eks import derived
from tests.abuse.inputs import TEXTS, checkout, tried
from tests.abuse.outcome import Outcome

FAMILY = "cluster_file"
OTHERS: tuple[Any, ...] = (None, True, 0, -1, 10**18, 1.5, float("nan"), float("inf"), [], {}, [[]], {"a": {}}, [None], {1: 2},
                           {None: 1}, {"name": "x"}, [{"name": "x", "instanceType": "g4dn.xlarge"}])
Place = tuple[Any, ...]


def attack(seed: int) -> Iterator[Outcome]:
    dice = random.Random(seed)
    with checkout() as root:
        whole = yaml.safe_load((root / "cluster.yaml").read_text())
        places, file = list(_places(whole)), root / "given.yaml"
        short = [text for text in TEXTS if len(text) < 200 and "\ud7ff" not in text and text.isprintable() | ("\n" in text)]
        for place in places:
            for value in [*OTHERS, *dice.sample(short, 6)]:
                text = to_yaml([_with(whole, place, value)])
                yield tried(FAMILY, f"{place} = {value!r}", lambda text=text: _loaded(file, text))
        for place in places:
            text = to_yaml([_with(whole, place, dice.choice(short), key=True)])
            yield tried(FAMILY, f"a key at {place}", lambda text=text: _loaded(file, text))


def _places(thing: Any, before: Place = ()) -> Iterator[Place]:
    """Where a value stands, as keys and indices from the top."""
    for key, inner in thing.items() if isinstance(thing, dict) else enumerate(thing) if isinstance(thing, list) else ():
        yield (*before, key)
        yield from _places(inner, (*before, key))


def _with(whole: Any, place: Place, value: Any, *, key: bool = False) -> Any:
    """A copy with another value there; with `key`, another key beside it."""
    made = inner = copy.deepcopy(whole)
    for step in place[:-1]:
        inner = inner[step]
    if key and isinstance(inner, dict):
        inner[value] = "x"
    else:
        inner[place[-1]] = value
    return made


def _loaded(file: Path, text: str) -> str:
    """"" when what was taken is written, shown and given on as it stands."""
    file.write_text(text, encoding="utf-8")
    cluster = load_cluster(file)
    command = Eksctl().create_nodegroup(file, *(group.name for group in cluster.groups))
    if shlex.split(command.short) != list(command.shown) or CONTROL.search(command.short):
        return f"shown as {command.short!r}"
    made = derived.derive(text, {"gpurunbook/run": "x"})
    document, again = yaml_file.parse(text, file), yaml_file.parse(made, file)
    document["metadata"].setdefault("tags", {})
    document["metadata"]["tags"] = {**(document["metadata"]["tags"] or {}), "gpurunbook/run": "x"}
    return "" if again == document or repr(again) == repr(document) else f"written as {made[:300]!r}"
