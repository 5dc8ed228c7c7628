"""An error that this library did not raise on purpose, in the same three answers; and where its traceback is kept.

Most are defects of ours. Some are the machine's or the reader's: a file that cannot be read, a cell that was left out.
"""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path
from types import TracebackType

from gpurunbook import __version__, show
from gpurunbook.errors import RunbookError

HERE = Path(__file__).parent
LONGEST = 20_000
"""Characters of a traceback that are kept: its end, where the reason is."""


def ours(trace: TracebackType | None) -> bool:
    """Whether code of this library was running."""
    return any(_inside(frame.filename) for frame in traceback.extract_tb(trace))


def _inside(filename: str) -> bool:
    return Path(filename).is_relative_to(HERE)


def place(trace: TracebackType | None) -> str:
    """The last line of ours that a traceback goes through, such as `gpurunbook/stages/nodes.py, line 31`."""
    last = next((f for f in reversed(traceback.extract_tb(trace)) if _inside(f.filename)), None)
    return f"{Path(last.filename).relative_to(HERE.parent)}, line {last.lineno}" if last else ""


def text(error: BaseException) -> str:
    """The whole traceback, as text for a fold or a file: without secrets, nothing raw."""
    return show.clean("".join(traceback.format_exception(error)))[-LONGEST:]  # half a secret is none that is known


def explained(error: BaseException) -> RunbookError:
    """What, where and next for an error of nobody's making."""
    if isinstance(error, KeyboardInterrupt):
        return RunbookError("interrupted", where=place(error.__traceback__), next="run this cell again: no command was at work")
    if isinstance(error, OSError) and error.errno is not None:
        named = str(error.filename or "")
        return RunbookError(f"{named or 'a file or a connection'}: {error.strerror or error}",
                            where=named or place(error.__traceback__),
                            next="free space, or mend the permissions, then run the same again")
    said = show.clean(" ".join(str(error).split()))[:300]
    return RunbookError(f"{type(error).__name__}: {said}; this is a defect of gpurunbook {__version__}",
                        where=place(error.__traceback__),
                        next="run the same again; if it comes back, report it with its traceback, which holds no secrets")


def told(error: BaseException) -> RunbookError:
    """`explained` for the command line, which has no fold: a defect's traceback is in a file. A cause, so that it is not lost.

    Raises OSError where no file can be made.
    """
    made = explained(error)
    if not (isinstance(error, OSError) and error.errno is not None):
        made = RunbookError(made.what, where="; ".join(filter(None, (made.where, str(kept(error))))), next=made.next)
    made.__cause__ = error
    return made


def kept(error: BaseException) -> Path:
    """Write the traceback to a file of its owner's, for errors that no run's journal has. Returns the path."""
    descriptor, name = tempfile.mkstemp(prefix="gpurunbook-error-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text(error))
    return Path(name)
