"""Names of parameters: papermill pastes them as code, so none gets there that the notebook does not declare."""

from __future__ import annotations

import random
from collections.abc import Iterator

from gpurunbook.parameters import check_parameters, parameters
from gpurunbook.stages import NAMES as STAGES
from gpurunbook.stages import notebook
from tests.abuse.inputs import NAMES, checkout, papermilled, texts, tried
from tests.abuse.outcome import Outcome

FAMILY = "names"


def attack(seed: int) -> Iterator[Outcome]:
    dice = random.Random(seed)
    with checkout() as root:
        declared = {name for cell in parameters(root).values() for name in cell}
        for name in [*NAMES, *(text for text in texts(seed, 300) if text not in declared)]:
            if "=" in name:
                continue  # then the name ends there
            yield tried(FAMILY, name, lambda name=name: f"taken: {check_parameters(root, [f'{name}=1'])}")
        for name in ("nosuch", "prompt_", "TOP", "os"):
            stage = dice.choice(STAGES)
            said = papermilled(root / "notebooks" / notebook(stage), {name: 1})
            refused = said.startswith(f"ConfigError: unknown parameter '{name}'") and not (root / "runs").exists()
            yield Outcome(FAMILY, f"papermill {stage} -p {name} 1", "refused" if refused else "violation", said)
        if (root / "CANARY").exists():
            yield Outcome(FAMILY, "CANARY", "violation", "a name was run as code")
