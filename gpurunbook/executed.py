"""Where papermill writes an executed notebook: whole or not at all, for its owner only, and never with a secret in it.

papermill saves after every cell what libraries printed and raised, parameters and tracebacks; a kill at any time leaves the
last of these files. So they are cleared before they are written, and not only after.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from gpurunbook.files import write
from gpurunbook.masking import hide, hide_json

PICTURE = re.compile(r'("image/png": "iVBORw0KGgo[A-Za-z0-9+/=\\n]*")')
"""A chart, which takes longer to look through than all the rest, and of which no part is text."""


def masked(text: str) -> str:
    """`hide`, but for pictures, and for what one cell printed also as a whole."""
    joined = _joined(text)
    hidden = "".join(part if i % 2 else hide(part) for i, part in enumerate(PICTURE.split(joined)))
    try:
        json.loads(hidden)
    except ValueError:  # a bare number went: it would be no notebook any more
        return hide_json(joined, indent=1)
    return hidden


def _joined(text: str) -> str:
    """The notebook; where a secret was printed in two parts with something else between, the stream is one again, without it."""
    try:
        book = json.loads(text)
        streams = [[o for o in cell.get("outputs", ()) if o.get("output_type") == "stream" and o.get("name") == name]
                   for cell in book["cells"] for name in ("stdout", "stderr")]
    except (ValueError, LookupError, TypeError, AttributeError):
        return text  # torn, or none of papermill's
    changed = False
    for outputs in streams:
        parts = ["".join(output["text"]) for output in outputs]
        if len(parts) > 1 and (whole := hide("".join(parts))) != "".join(map(hide, parts)):
            changed = True
            for output in outputs:
                output["text"] = [whole] if output is outputs[0] else []
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n" if changed else text


class Writer:
    """What papermill calls for one path (papermill.iorw); its reading and listing are not asked for."""

    def write(self, text: str, path: str) -> None:
        """Raises RunbookError when the file cannot be written."""
        write(Path(path), masked(text))

    def pretty_path(self, path: str) -> str:
        return path


def register(output: Path) -> None:
    """From here on papermill writes this notebook so."""
    from papermill.iorw import papermill_io
    papermill_io.register(str(output), Writer())
