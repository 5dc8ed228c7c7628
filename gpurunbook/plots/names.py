"""What a chart says of a result as a whole."""

from __future__ import annotations

from gpurunbook.plots.page import Result


def made_by(result: Result) -> list[str]:
    """Revision and versions, for a chart's footer."""
    return [f"revision {str(result['revision'])[:19]}", *(f"{name} {version}" for name, version in result["versions"].items())]


def reference_of(result: Result) -> Result | None:
    """The arm in the reference precision, None when it is the only one or was not asked."""
    return next((arm for arm in result["arms"][1:] if arm["precision"] == "reference"), None)
