"""How long a next token takes: every arm in one run, taking turns, beside llama.cpp. `make bench-inference`.

    __main__.py   the run, from the first load to the file of results
    worker.py     one arm in a process of its own; cpu.py and gpu.py say which arms there are
    harness.py    turns, samples, and whether the machine was quiet
    quality.py    the gate against fp32
    results.py    ratios with intervals, and whether a later run is better
    table.py      what is printed
    cold.py       from nothing to the first token, by part
    peer.py       where llama.cpp comes from

**Why torch alone.** The weight-only path on a CPU is manifests/model/arms.py, on kernels that torch has. Looked at beside it
once, on a busy machine, so no result of this benchmark (2026-11-23, avx512_bf16 and avx512_vnni; forward of 6 tokens / decode
step, ms of CPU time): torch int4 on one thread 17.2 / 10.0, llama.cpp on one thread 33.3 / 8.6. OpenVINO 2026.4 on two threads,
a graph of our own: int4 in groups of 32 8.9 / 7.2 with a KL of 0.81 nats from fp32, int8 10.1 / 7.6 with 0.027; both fail the
gate, and the conversion took four minutes. torchao 0.18, int8 for the weights only, forward over that of bf16 in transformers,
in turns: 1.84 to 1.98 eager and 0.68 compiled, log p off by 0.87 and 0.63, so it fails the gate; its int4 for CPUs is a
prototype by now, on the very kernel of torch that arms.py calls. ONNX Runtime was not measured.

**Why main.py keeps no 8-bit checkpoint.** The arm "LLM.int8 kept" is what it would be: the same logits to the last bit, 0.50 s
to load instead of 1.04, for 0.08 s and 164 MB at the first load (medians of five in turns, 2026-11-23). In a pod main.py runs
twice, in 07 and 08. There the 164 MB are memory in a rehearsal, and for dolly-v2-3b 2.9 GB on a node's disk: 23 s at the 125
MB/s of a plain gp3 volume (arithmetic, not measured), to spare a second load whose file is in the page cache by then. Nor is it
needed for the memory. What looked like copies was the mapped checkpoint, which the system can take back, and what glibc's heap
kept of freed half-precision matrices: 170 to 410 MB in all for 163 MB of weights, by chance, 162 to 167 since main.py has each
large one mapped (mallopt). That costs 0.35 s.
"""
