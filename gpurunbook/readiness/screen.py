"""A ladder that is followed, in one place on the screen: updated in a notebook, a line for each piece of news elsewhere."""

from __future__ import annotations

from gpurunbook import show
from gpurunbook.readiness.rungs import BY_NAME, RUNGS, Ladder


class Screen:
    """Shows ladders one after the other; only news is shown."""

    def __init__(self, until: str = RUNGS[-1].name) -> None:
        self._until, self._handle, self._last = until, None, ""

    def __call__(self, ladder: Ladder, seconds: float) -> None:
        """Show it, if it says something else than the one before."""
        text = repr(ladder) if show.in_notebook() else summary(ladder, self._until)
        if text == self._last:
            return
        self._last = text
        if not show.in_notebook():
            show.show(f"{seconds:6.1f} s  {show.line(text)}")
            return
        from IPython.display import display
        if self._handle is None:
            self._handle = display(ladder, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._handle.update(ladder)


def summary(ladder: Ladder, until: str = RUNGS[-1].name) -> str:
    """One line: what holds up how many nodes, up to a rung; nodes without their domain, where that tells them apart."""
    groups: dict[str, list[str]] = {}
    short = {node.node.partition(".")[0] for node in ladder.nodes}
    for node in ladder.nodes:
        step = node.held(until)
        words = f"{BY_NAME[step.rung].title}: {step.state}: {step.evidence}" if step else f"done up to {BY_NAME[until].title}"
        groups.setdefault(words, []).append(node.node.partition(".")[0] if len(short) == len(ladder.nodes) else node.node)
    return show.line("; ".join(f"{nodes[0] if len(nodes) == 1 else f'{len(nodes)} nodes'}: {words}"
                               for words, nodes in groups.items()))
