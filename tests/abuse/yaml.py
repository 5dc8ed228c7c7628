"""YAML, wherever people's own is read: files that are none, documents that grow, and manifests with a byte or two changed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gpurunbook import gpu_facts, identity, yaml_file
from gpurunbook.errors import RunbookError
from gpurunbook.targets import adoption
from gpurunbook.targets.rehearsal import images
from tests.abuse.inputs import ROOT, TEXTS, checkout, tried
from tests.abuse.outcome import Outcome

FAMILY = "yaml"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True))
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{','.join([f'*{old}'] * 9)}]}}\n" for old, new in zip("abcdef", "bcdefg", strict=True))
DOCUMENTS = (
    BOMB, MERGES, "&a [*a]", "&a {b: *a}", "*a", "[" * 100_000, "{" * 10_000, "- " * 10_000, "? " * 5_000, "a: " * 1_000,
    "a:\n\tb: c", "a: 1\na: 2",
    "a: {b: 1, 'b': 2}", "!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!int ''", "!!int x", "!!float x",
    "!!timestamp 9", "2026-99-99", "!!binary '*'", "!!set [a]", "!!omap a", "!!pairs a", "!!map a", "!!seq a", "!<tag:x> a",
    "{[a]: b}", "? {a: b}\n: c", "a: b: c", "'", '"', '"\\x"', "|", "|9", ">-\n", "%YAML 9.9\n--- a", "%TAG ! x", "---\n---\n",
    "...",
    "a\0b", "\x1b[31m", "\ufeff\ufeffa: 1", "\u2028", "0x" + "f" * 50_000, "1" * 50_000, "1" + ":1" * 20_000,
    "a: 1" + ":1" * 178 + ".5", ".nan", "-.inf",
    "&" * 9,
    "#" * 2_000_000, "a: " + "x" * 2_000_000, "- a\n" * 100_000,
    ",".join("&a" + str(n) + " x" for n in range(9_999)), "<<: a",
    "<<: [1]",
    "=", "~", "yes", "- - - -", "\t", "a: |\n  b\n c", "[a, b", "}", "@a", "`a`", "a: !x {", "\ud800",
)
ONE = "contexts: [{name: a, context: {cluster: c}}]\nclusters: [{name: c, cluster: %s}]\ncurrent-context: a"
CONFIGS = ("[]", "1", "contexts: 1", "contexts: [1]", "contexts: [{name: [a]}]", "users: 1\ncontexts: []\nclusters: []",
           "users: [1]\ncontexts: []\nclusters: []", "current-context: {a: b}\ncontexts: []\nclusters: []",
           ONE % 1, ONE % "{server: 'https://[x'}", ONE % "{server: x, certificate-authority: no}",
           ONE % "{server: x, certificate-authority-data: '*'}", ONE % "{server: [x]}",
           "contexts: [{name: a, context: {cluster: [c]}}]\nclusters: []\ncurrent-context: a")


def attack(seed: int) -> Iterator[Outcome]:
    assert len(BOMB) < 300, "a few lines are enough to fill a machine"
    with checkout() as root:
        file = root / "given.yaml"
        for text in DOCUMENTS:
            for reader, read in _readers(file).items():
                yield tried(FAMILY, f"{reader}: {text[:60]!r}", lambda text=text, read=read: _read(file, text, read))
        for text in CONFIGS:
            yield tried(FAMILY, f"kubeconfig: {text}", lambda text=text: _read(file, text, lambda: adoption.find(file, "")))
            yield tried(FAMILY, f"the run's kubeconfig: {text}",
                        lambda text=text: _read(file, text, lambda: identity.read(file, "a", _nobody)))
        for name, make in _files(root).items():
            make(root / name)
            for reader, read in _readers(root / name).items():
                yield tried(FAMILY, f"{reader}: {name}", lambda read=read: _sane(read()))
        for name in ("a\0b", "\ud800", "x" * 5_000, ""):
            yield tried(FAMILY, f"a file called {name[:20]!r}", lambda name=name: _sane(yaml_file.load(root / name)))
        for text in _changed(seed, 250):
            yield tried(FAMILY, f"changed: {text!r}"[-90:], lambda text=text: _read(file, text, lambda: yaml_file.load_all(file)))


def _nobody() -> Any:
    raise RunbookError("nobody answers", where="here", next="nothing")


def _readers(file: Path) -> dict[str, Callable[[], Any]]:
    return {"load": lambda: yaml_file.load(file), "load_all": lambda: yaml_file.load_all(file),
            "kubeconfig": lambda: adoption.find(file, ""), "identity": lambda: identity.read(file, "a", _nobody),
            "images": lambda: images.load(file), "facts": lambda: gpu_facts.facts(file)}


def _read(file: Path, text: str, read: Callable[[], Any]) -> str:
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    return _sane(read())


def _sane(found: Any) -> str:
    """Why what was read should not have been; "" when it is small."""
    size = len(json.dumps(found, default=str, skipkeys=True))
    return f"{size:,} bytes came of it" if size > 4 * yaml_file.MAX_BYTES else ""


def _files(root: Path) -> dict[str, Callable[[Path], object]]:
    def unreadable(path: Path) -> None:
        path.write_bytes(b"a: \xff\xfe")

    return {"pipe": os.mkfifo, "folder": Path.mkdir, "endless": lambda path: path.symlink_to("/dev/zero"),
            "loop": lambda path: path.symlink_to(path), "nowhere": lambda path: path.symlink_to("/nonexistent"),
            "latin": unreadable, "empty": Path.touch, "utf16": lambda path: path.write_text("a: b", encoding="utf-16"),
            "process": lambda path: path.symlink_to("/proc/self/mem"), "null": lambda path: path.symlink_to("/dev/null")}


def _changed(seed: int, count: int) -> Iterator[str]:
    dice = random.Random(seed)
    sources = [path.read_text() for path in sorted((ROOT / "manifests").rglob("*.yaml"))]
    short = [text for text in TEXTS if len(text) < 30]
    for _ in range(count):
        text = dice.choice(sources)
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(text) + 1)
            put = dice.choice((dice.choice(short), "*a", "&a ", "!!x ", "\t", "- ", ": "))
            text = text[:at] + put + text[at + dice.randrange(20):]
        yield text
