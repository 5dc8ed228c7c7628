"""gpurunbook: notebooks that take a team to the ten most likely next tokens, computed on a GPU in Kubernetes."""

from gpurunbook.errors import CommandFailed, ConfigError, RunbookError
from gpurunbook.runbook import Run, open_run

__version__ = "0.1.0"
__all__ = ["CommandFailed", "ConfigError", "Run", "RunbookError", "__version__", "open_run"]
