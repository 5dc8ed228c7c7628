"""To play with what 07 measured: temperature and top-p on the stored logits, at once; and another prompt, which runs in the pod.

    explore.at(run, temperature=0.7, top_p=0.9)      # a table with bars, from the run folder alone
    explore.sliders(run)                             # the same under sliders, where ipywidgets is installed
    explore.ask(run, "Once upon a time")             # a new measurement, in the pod

Nothing here changes what 07 kept and verified.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpurunbook import distribution, show
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.prediction import Bars, Prediction, arm_name
from gpurunbook.stages import answered, next_token
from gpurunbook.tokens import visible

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gpurunbook.runbook import Run

ANSWER = "next_tokens.json"
ASKED = "asked"
"""How the files of `ask` are called, so that those of 07 stay as they were verified."""
INSTALL = "pip install ipywidgets, then restart JupyterLab; or: explore.at(run, temperature=0.7, top_p=0.9)"


@dataclass(frozen=True)
class Stored:
    """One arm of an answer and all its logits. `at` computes; nothing is asked of the cluster."""

    found: dict[str, Any]
    arm: dict[str, Any]
    logits: NDArray[np.float64]

    def at(self, temperature: float = 1.0, top_p: float = 1.0, tokens: int = 10) -> Bars:
        """The likely tokens as a sampler with these settings would draw them: those beyond the top-p cut have no chance.

        A temperature keeps their order, so all have the names that the answer gives them.

        Raises:
            ConfigError: a setting out of range, or more tokens than the answer names.
        """
        top = self.arm["top"]
        if not 1 <= tokens <= len(top):
            raise ConfigError(f"{tokens} tokens", where="gpurunbook.explore",
                              next=f"give 1 to {len(top)}; for more run 07 again: gpurunbook run --from next_token -p top=50")
        p = distribution.probabilities(self.logits, temperature)
        s = distribution.measure(p, top_p)
        mass = float(np.sort(p)[::-1][:s.kept].sum())
        rows = []
        for i, token in enumerate(top[:tokens]):
            chance = float(p[token["id"]]) / mass if i < s.kept else 0.0
            rows.append((visible(token), chance, "" if chance else f"cut off by top-p {top_p:g}"))
        caption = (f"{arm_name(self.arm)} at temperature {temperature:.3g}: {s.entropy_bits:.2f} bits, as of {s.choices:,.0f} "
                   f"equal choices")
        if top_p < 1:
            caption += f"; top-p {top_p:g} keeps {s.kept:,} of {len(p):,} tokens"
        return Bars(caption, rows, ("all other tokens", max(0.0, 1 - sum(chance for _, chance, _ in rows))))


def stored(run: Run, precision: str = "") -> Stored:
    """What 07 kept in the run folder: of its first arm, or of another precision.

    Raises:
        RunbookError: 07 has not run, or its files were changed.
        ConfigError: no such precision was measured.
    """
    path = run.artifacts / ANSWER
    try:
        found = answered.read(path)
    except FileNotFoundError as error:
        raise RunbookError("nothing was measured yet", where=str(path), next="run notebooks/07_next_token.ipynb first") from error
    except ValueError as error:
        raise RunbookError(f"{ANSWER} is not as 07 wrote it: {error}", where=str(path),
                           next="run notebooks/07_next_token.ipynb again") from error
    return _arm(found, precision, run.artifacts, next_token.LOGITS)


@dataclass(frozen=True)
class Sliders:
    """Sliders above a table that follows them, and the table as it begins, for a page where no kernel moves them."""

    box: Any
    still: Bars

    def __repr__(self) -> str:
        return repr(self.still)

    def _repr_mimebundle_(self, **_: object) -> dict[str, Any]:
        return {**self.box._repr_mimebundle_(), "text/html": self.still._repr_html_(), "text/plain": repr(self.still)}


def at(run: Run, temperature: float = 1.0, top_p: float = 1.0, tokens: int = 10, precision: str = "") -> Bars:
    """The likely tokens at a temperature, with a top-p cut. Raises RunbookError and ConfigError as `stored` and `Stored.at`."""
    return stored(run, precision).at(temperature, top_p, tokens)


def sliders(run: Run) -> Bars | Sliders:
    """Sliders for temperature, top-p and the number of tokens, in a notebook that somebody works in.

    A notebook that is saved so keeps the table at temperature 1 too, for readers of the file.

    Without ipywidgets, or where nobody can move a slider (papermill, a terminal), the table at temperature 1 comes back,
    and says how to have more.

    Raises:
        RunbookError: 07 has not run.
    """
    kept = stored(run)
    still = kept.at(tokens=min(10, len(kept.arm["top"])))
    if not _somebody():
        return still
    try:
        import ipywidgets
    except ImportError:
        return replace(still, caption=f"{still.caption}. For sliders: {INSTALL}")
    return Sliders(_box(ipywidgets, kept), still)


def ask(run: Run, prompt: str, *, top: int = 10, precisions: str = "int8,reference") -> Prediction:
    """Run main.py in the pod with another prompt: a measurement, journalled as any, kept as artifacts/asked.json.

    Raises:
        RunbookError: no pod is ready, main.py is not in it, or its answer cannot be used.
    """
    facts = next_token.observe(run)
    if not facts.copied:
        raise RunbookError("main.py is not in the pod", where=f"kubectl exec {facts.pod.name}",
                           next="run notebooks/07_next_token.ipynb first: it copies it")
    command = next_token.command(run, facts, prompt=prompt, top=top, precisions=precisions, logits=ASKED)
    found = next_token.measure(run, facts, command)
    found = next_token.compare(found, next_token.fetch(run, facts, found, ASKED))
    next_token.save(run, found, ASKED)
    return found


def _arm(found: dict[str, Any], precision: str, folder: Path, name: str) -> Stored:
    arm = next((arm for arm in found["arms"] if precision in ("", arm["precision"])), None)
    if arm is None:
        raise ConfigError(f"{precision!r} was not measured", where=str(folder / ANSWER),
                          next=f"one of: {', '.join(arm['precision'] for arm in found['arms'])}")
    path = folder / f"{name}.{arm['precision']}.f32"
    logits = distribution.read(path)
    if len(logits) != found["vocab_size"]:
        raise RunbookError(f"{len(logits):,} logits for a vocabulary of {found['vocab_size']:,}", where=str(path),
                           next="run notebooks/07_next_token.ipynb again")
    return Stored(found, arm, logits)


def _somebody() -> bool:
    """Whether a person's front end asked for this cell: it offers to type in it, which papermill and nbconvert do not."""
    if not show.in_notebook():
        return False
    return bool(getattr(sys.modules["IPython"].get_ipython().kernel, "_allow_stdin", False))


def _box(widgets: Any, kept: Stored) -> Any:
    """A box of sliders above a table that follows them. Only ipywidgets' own parts: its extension is installed with it."""
    wide = {"style": {"description_width": "9em"}, "layout": widgets.Layout(width="32em")}
    # 0.05 to 4.79 in steps of which one is exactly 1: the front end moves what lies between two of them.
    temperature = widgets.FloatLogSlider(value=1, base=10, min=-1.3, max=0.68, step=0.02,
                                         description="temperature", readout_format=".2f", **wide)
    top_p = widgets.FloatSlider(value=1, min=0.05, max=1, step=0.01, description="top-p", **wide)
    most = len(kept.arm["top"])
    tokens = widgets.IntSlider(value=min(10, most), min=1, max=most, description="tokens", **wide)
    table = widgets.HTML()

    def draw(_: object = None) -> None:
        # Two digits, as the slider shows: 10 to the power of its position is a hair off.
        table.value = kept.at(round(temperature.value, 2), round(top_p.value, 2), tokens.value)._repr_html_()

    for slider in (temperature, top_p, tokens):
        slider.observe(draw, names="value")
    draw()
    return widgets.VBox([temperature, top_p, tokens, table])
