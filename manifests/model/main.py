"""The ten most likely next tokens of a prompt, in one or more precisions of one model. Runs in the model's pod.

    python main.py --prompt "Long long ago, in a" --precisions int8,reference --repetitions 100

Progress goes to stderr; one line of JSON to stdout, and after it the sentinel; all logits of the last position to
logits.PRECISION.f32 (float32, little-endian, one per token of the vocabulary). Bad input: exit code 2.
"""

import argparse
import ctypes
import gc
import hashlib
import json
import os
import resource
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path

DTYPES = {"int8": "float16", "nf4": "half", "bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "reference": "half"}

parser = argparse.ArgumentParser(description="The most likely next tokens of a prompt, as one line of JSON.")
parser.add_argument("--prompt", default="Long long ago, in a")
parser.add_argument("--top", type=int, default=10, help="how many tokens (default: 10)")
parser.add_argument("--precisions", default="int8", help=f"some of {', '.join(DTYPES)} (default: int8)")
parser.add_argument("--repetitions", type=int, default=0, help="timed passes of each precision (default: 0)")
parser.add_argument("--logits", type=Path, default="logits.f32", help="files of all logits (default: logits.f32)")
parser.add_argument("--sentinel", default="", help="what to print last of all (default: nothing)")
parser.add_argument("--model", default=os.environ.get("MODEL"), help="hub name or folder (default: by device)")
args = parser.parse_args()
precisions = args.precisions.split(",")
warm_up = 10 if args.repetitions else 0  # passes before the timed ones
for option, wrong in {"--precisions": not set(precisions) <= set(DTYPES) or len(set(precisions)) < len(precisions),
    "--top": args.top < 1, "--repetitions": args.repetitions < 0, f"--logits {args.logits}": not args.logits.parent.is_dir(),
    "--prompt": not args.prompt or args.prompt.encode(errors="ignore").decode() != args.prompt}.items():
    if wrong:
        parser.error(f"{option} cannot be so; see --help")


def say(text):
    print(f"main.py: {text}", file=sys.stderr, flush=True)


gc.disable()  # the imports make a million objects, all to stay: looking for garbage among them takes a quarter of their time
ctypes.CDLL(None).mallopt(-3, 2**20)  # M_MMAP_THRESHOLD: else the heap keeps what quantising frees, more than the weights
say("importing torch and transformers")
import torch  # noqa: E402

torch.compiler.set_default_backend("eager")  # else bitsandbytes imports torch's compiler, 0.7 s
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig  # noqa: E402

torch.set_num_threads(len(os.sched_getaffinity(0)))
gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
device = "cuda:0" if gpu else "cpu"
half = "float16" if gpu and not torch.cuda.is_bf16_supported(including_emulation=False) else "bfloat16"  # a T4: fp16
name = args.model or ("databricks/dolly-v2-3b" if gpu else "HuggingFaceTB/SmolLM2-135M-Instruct")
try:
    config, tokenizer = AutoConfig.from_pretrained(name), AutoTokenizer.from_pretrained(name)
except (OSError, ValueError) as error:
    parser.error(f"cannot load {name}: {str(error).splitlines()[0]}")
prompt = tokenizer(args.prompt, return_tensors="pt")["input_ids"].to(device)
if prompt.shape[1] > config.max_position_embeddings or args.top > config.vocab_size:
    parser.error(f"{prompt.shape[1]} tokens of prompt (at most {config.max_position_embeddings}), "
                 f"--top {args.top} (at most {config.vocab_size})")


def token(i):
    return {"id": i, "text": tokenizer.decode([i]), "token": tokenizer.convert_ids_to_tokens(i)}


def load(precision):
    """The model with its weights in one precision; int8 is LLM.int8 by bitsandbytes, as in the tutorial."""
    dtype = DTYPES[precision].replace("half", half)
    bits = {"int8": BitsAndBytesConfig(load_in_8bit=True), "nf4": BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)}.get(precision)
    return AutoModelForCausalLM.from_pretrained(name, dtype=dtype, device_map=device, quantization_config=bits)


def timed(work):
    """What `work` returns, and the milliseconds that the device took for it."""
    if not gpu:
        started = time.perf_counter_ns()
        return work(), (time.perf_counter_ns() - started) / 1e6
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    result = work()
    end.record()
    end.synchronize()
    return result, begin.elapsed_time(end)


def forward(model):
    """One pass over the whole prompt: the logits of its last position, shape (vocabulary,), and milliseconds."""
    return timed(lambda: model(prompt, logits_to_keep=1, use_cache=False).logits[0, -1])


def copy_bandwidth(size=2**27):
    """Bytes read and written per second, in the fastest of ten copies: about as fast as weights can be read."""
    say("copying memory, to measure its bandwidth")
    data = torch.zeros(2, size, dtype=torch.uint8, device=device)
    return 2 * size / min(timed(lambda: data[1].copy_(data[0]))[1] for _ in range(10)) * 1e3


def predict(precision):
    """Load the model, run it once, keep all logits. Returns the model and what to say of this precision."""
    say(f"loading {precision}")
    model, load_ms = timed(lambda: load(precision))
    logits, first_ms = timed(lambda: forward(model)[0].float().cpu())
    args.logits.with_suffix(f".{precision}{args.logits.suffix}").write_bytes(data := logits.numpy().astype("<f4").tobytes())
    logp = logits.double().log_softmax(0)
    top = logp.argsort(descending=True, stable=True)[:args.top]  # stable: equal ones in the order of their ids
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    unread = 0 if table is head else table[prompt.numel():].nbytes  # a pass looks up one row for each token
    return model, {
        "precision": precision, "dtype": str(model.dtype).removeprefix("torch."),
        "top": [{**token(i), "p": logp[i].exp().item(), "logp": logp[i].item()} for i in top.tolist()],
        "top_mass": logp[top].exp().sum().item(), "entropy_bits": (logp.exp() @ -logp / logp.new_tensor(2).log()).item(),
        "linear_layers": Counter(type(m).__name__ for m in model.modules() if isinstance(m, torch.nn.Linear)),
        "load_seconds": load_ms / 1e3, "first_seconds": first_ms / 1e3, "weight_bytes": model.get_memory_footprint() - unread,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() or 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "logits_sha256": hashlib.sha256(data).hexdigest(), "warm_up": warm_up, "samples_ms": []}


with torch.inference_mode():
    copied = copy_bandwidth() if args.repetitions else None  # while there is room: no model is loaded yet
    arms = [predict(precision) for precision in precisions]
    for i in range(-warm_up, args.repetitions):
        if i % 25 == 0:
            say(f"timing: {i} of {args.repetitions} done")
        for model, arm in arms[::-1] if i % 2 else arms:  # A B, B A, A B, ...: a drift hits all alike
            arm["samples_ms"] += [forward(model)[1]] * (i >= 0)

digest = hashlib.sha256()
for path in sorted(Path(name).glob("*.safetensors")):
    digest.update(torch.from_file(str(path), size=path.stat().st_size, dtype=torch.uint8).numpy())  # mapped: it may be 5.7 GB
print(json.dumps({
    "schema": "gpurunbook/next-token/1", "prompt": args.prompt, "prompt_tokens": [token(i) for i in prompt[0].tolist()],
    "model": getattr(config, "model_name", name), "vocab_size": config.vocab_size, "copy_bytes_per_second": copied,
    "revision": f"sha256:{digest.hexdigest()}" if Path(name).is_dir() else config._commit_hash,
    "versions": {"python": sys.version.split()[0], **{m: version(m) for m in ("torch", "transformers", "bitsandbytes")}},
    "device_memory_bytes": gpu.total_memory if gpu else None, "compute_capability": f"{gpu.major}.{gpu.minor}" if gpu else None,
    "device": gpu.name if gpu else f"CPU, {torch.get_num_threads()} threads", "arms": [arm for _, arm in arms],
}), args.sentinel, sep="\n", end="", flush=True)
os._exit(0)  # the libraries' own way out takes 1.3 s and has nothing left to do
