"""What people type: `gpurunbook ...`. One file for each family of commands; `commands.py` puts them together."""

from gpurunbook.cli.commands import app, main

__all__ = ["app", "main"]
