"""gpurunbook: notebooks that take a team to the ten most likely next tokens, computed on a GPU in Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpurunbook.errors import CommandFailed, ConfigError, RunbookError

if TYPE_CHECKING:
    from gpurunbook.runbook import Run, open_run

__version__ = "0.1.0"
__all__ = ["CommandFailed", "ConfigError", "Run", "RunbookError", "__version__", "open_run"]


def __getattr__(name: str) -> Any:
    # The pod host and the jail's probe import this package too, and need none of what a run needs.
    if name in ("Run", "open_run"):
        from gpurunbook import runbook
        return getattr(runbook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
