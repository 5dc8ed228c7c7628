"""What the model says, by transformers and bitsandbytes directly. Answers of main.py are compared with it."""

from __future__ import annotations

import os
from pathlib import Path


def next_tokens(model_dir: Path, prompt: str, k: int, precision: str = "int8") -> list[tuple[int, str, float]]:
    """The k most likely next tokens as (id, text, probability), most likely first.

    Written apart from main.py: other calls, all positions' logits, softmax in numpy. `precision` is `int8` (LLM.int8,
    the rest in fp16) or `bf16`. Runs in this process, on its CPUs.
    """
    import numpy as np
    import torch
    import transformers

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(model_dir)
    if precision == "int8":
        model = transformers.LlamaForCausalLM.from_pretrained(
            model_dir, dtype=torch.float16, device_map={"": "cpu"},
            quantization_config=transformers.BitsAndBytesConfig(load_in_8bit=True))  # fmt: skip
    else:
        model = transformers.LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    with torch.no_grad():
        logits = model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1]
    exponentials = np.exp(logits.float().numpy().astype(np.float64) - float(logits.max()))
    p = exponentials / exponentials.sum()
    return [(int(i), tokenizer.decode([int(i)]), float(p[i])) for i in np.argsort(-p, kind="stable")[:k]]
