"""YAML that a person wrote, read in one place: its size, depth and aliases are bounded before anything uses it.

PyYAML's safe_load makes 7 MB of 258 bytes (aliases of aliases), keeps the last of two equal keys, and never ends on a pipe.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import yaml

from gpurunbook import show
from gpurunbook.errors import ConfigError

MAX_BYTES, MAX_DEPTH, MAX_NODES = 2**20, 40, 20_000
"""Of a file, of its nesting, and of its values once aliases are followed. A kubeconfig of 100 clusters has about 500 KB."""
MAX_BITS = 64
"""Of a whole number: more fits no field of any program here, and Python refuses to print numbers of 4,300 digits."""
NEXT = "mend the file; nothing has been started"


def load(path: Path, *, most: int = MAX_BYTES) -> Any:
    """The one document in a file; None where the file holds none. Raises ConfigError naming the file, and what is wrong where."""
    return parse(text(path, most=most), path)


def load_all(path: Path) -> list[Any]:
    """All documents of a file. Raises ConfigError."""
    return parse_all(text(path), path)


def text(path: Path, *, most: int = MAX_BYTES) -> str:
    """A file of UTF-8 text that is no longer than `most` bytes. Raises ConfigError."""
    try:
        # A pipe without a writer would never open, a device never end.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise wrong(path, "", "expected a file, found a device or a pipe")
            raw = file.read(most + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", where=str(path),
                          next="name a file that is there and may be read") from error
    except ValueError as error:  # a NUL in its name
        raise ConfigError(f"{str(path)!r} cannot be read: no file has such a name", next="name a file that is there") from error
    if len(raw) > most:
        raise wrong(path, "", f"expected at most {most // 2**10:,} KiB, found more")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise wrong(path, "", f"expected UTF-8 text; byte {error.start} is not") from error


def parse(written: str, path: Path) -> Any:
    """The one document in a text that was read from `path`; None where it holds none. Raises ConfigError."""
    found = [document for document in parse_all(written, path) if document is not None]  # `---` at the end begins no other
    if len(found) > 1:
        raise wrong(path, "", f"expected one YAML document, found {len(found)}")
    return found[0] if found else None


def parse_all(written: str, path: Path) -> list[Any]:
    """All documents of a text. Raises ConfigError."""
    try:
        loader = _Loader(written, path)
        documents = []
        while loader.check_node():
            root: yaml.Node = loader.get_node()  # type: ignore[assignment]
            _measure(path, root)
            documents.append(loader.construct_document(root))
        return documents
    except (yaml.YAMLError, RecursionError, ValueError, ArithmeticError) as error:
        raise wrong(path, "", f"expected valid YAML; {_said(error)}") from error
    except (LookupError, AttributeError, TypeError) as error:  # what PyYAML's constructors raise for `!!int ""`
        raise wrong(path, "", "expected valid YAML; a value does not fit its !!tag") from error


class _Loader(yaml.SafeLoader):
    """Counts while it reads: what is too deep or too much is not read to its end."""

    def __init__(self, written: str, path: Path) -> None:
        super().__init__(written)
        self._path, self._depth, self._nodes = path, 0, 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        self._depth += 1
        if self._depth > MAX_DEPTH + 1:
            raise wrong(self._path, "", f"expected nesting of at most {MAX_DEPTH} levels, at {self._here()}")
        if self._nodes > MAX_NODES:
            raise wrong(self._path, "", f"expected at most {MAX_NODES:,} values, at {self._here()}")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _here(self) -> str:
        return _line(self.peek_event())  # type: ignore[no-untyped-call]

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if number.bit_length() > MAX_BITS:
            raise wrong(self._path, "", f"expected a whole number of at most {MAX_BITS} bits, at {_line(node)}")
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


def _measure(path: Path, root: yaml.Node) -> None:
    """Refuse what would grow when aliases are followed, recursion, depth, and keys given twice."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int, above: frozenset[int]) -> int:
        if depth > MAX_DEPTH or id(node) in above:
            raise wrong(path, "", f"expected nesting of at most {MAX_DEPTH} levels, at {_line(node)}")
        if id(node) in sizes:
            return sizes[id(node)]
        total, inside = 1, above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                    if key.value in seen:
                        raise wrong(path, key.value, f"expected one value; the key stands twice, again at {_line(key)}")
                    seen.add(key.value)
                total += size(key, depth + 1, inside) + size(value, depth + 1, inside)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item, depth + 1, inside) for item in node.value)
        if total > MAX_NODES:
            raise wrong(path, "", f"expected at most {MAX_NODES:,} values once aliases are followed")
        sizes[id(node)] = total
        return total

    size(root, 0, frozenset())


def _said(error: Exception) -> str:
    """What is wrong, and where, without the text that stands there: it may be somebody's kubeconfig."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        return " ".join(f"{error.context or ''} {error.problem or ''}{place}".split())[:300]
    return " ".join(str(error).split())[:300]


def _line(thing: yaml.Node | yaml.Event) -> str:
    return f"line {thing.start_mark.line + 1}" if thing.start_mark else "its end"


def wrong(path: Path, key: str, problem: str) -> ConfigError:
    """The error for a file in which something, at a key or anywhere, is not as expected."""
    key = show.line(key)[:200]
    return ConfigError(": ".join(part for part in (path.name, key, problem) if part),
                       where=f"{path}, key {key}" if key else str(path), next=NEXT)
