"""What can go wrong, as a caller may need to tell it apart.

    RunbookError           something failed; the message says what, where to look, what next
    ├── ConfigError        cluster.yaml or a parameter is wrong; nothing was started (exit code 2)
    └── CommandFailed      a program ended badly or was ended at its limit; carries its Result
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpurunbook.show import clean

if TYPE_CHECKING:
    from gpurunbook.command import Result


BRIEF = 240
"""Characters of each answer where there is a fold for the whole of it."""
ECHO = "command terminated with exit code"
"""What kubectl adds below the words of the program that failed in a pod."""


class RunbookError(Exception):
    """Base of every error this library raises on purpose.

    Args:
        what: what failed, one sentence.
        where: where to look: a file, a command, an object in the cluster.
        next: what to do next, as something a person can type or change.
    """

    def __init__(self, what: str, *, where: str = "", next: str = "") -> None:
        # papermill, logs and other people's programs print an error as it is, and a program's last words are in it.
        self.what, self.where, self.next = clean(what), clean(where), clean(next)
        super().__init__(self.what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.next:
            lines.append(f"  next:  {self.next}")
        return "\n".join(lines)

    @property
    def brief(self) -> str:
        """The three answers without a program's output, but for its last word; a notebook has the rest a fold below."""
        first, *said = self.what.splitlines() or [""]
        words = [line.strip() for line in said if line.strip() and not line.strip().startswith(ECHO)]
        told = [first, *(f"  said:  {word}" for word in words[-1:])]
        # Half a command cannot be pasted: what is said of it stays, and the fold has it.
        for key, text in (("where:", self.where), ("next: ", self.next)):
            whole = len(text) <= BRIEF - 9
            told += [f"  {key} {text if whole else text.partition(': ')[0][:BRIEF - 40] + ': in full below'}"] if text else []
        return "\n".join(line if len(line) <= BRIEF else f"{line[:BRIEF - 1]}…" for line in told)

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: a notebook shows the answers, and what `cells` folds below them has the traceback."""
        return f"{type(self).__name__}: {self.brief}".splitlines()


class ConfigError(RunbookError):
    """A file or parameter given by the user is wrong. Raised before anything is started."""


class CommandFailed(RunbookError):
    """A program failed.

    Attributes:
        result: its exit code, output and log file.
        again: the same stage, run again, would plan something else that can succeed.
    """

    def __init__(self, what: str, *, result: Result, where: str = "", next: str = "", again: bool = False) -> None:
        super().__init__(what, where=where, next=next)
        self.result, self.again = result, again
