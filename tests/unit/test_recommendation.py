"""The advice at the end of 08: what it says of hand-written answers, at its boundaries, and of any answer at all."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.inference.quality import GATE
from gpurunbook import recommendation, show
from gpurunbook.recommendation import DELTA, ROOM, WORTH
from gpurunbook.report import page as report
from gpurunbook.stages import answered, latency
from tests.unit.test_report import saved, text_of, with_files
from tests.unit.test_walk import hand_written

GB = 10**9
T4 = {"device": "Tesla T4", "device_memory_bytes": 15_640_000_000, "compute_capability": "7.5", "copy_bytes_per_second": 240e9}
H100 = {"device": "NVIDIA H100 80GB HBM3", "device_memory_bytes": 85 * GB, "compute_capability": "9.0",
        "copy_bytes_per_second": 2.6e12}  # fmt: skip


def samples(p50: float, count: int = 100, spread: float = 0.01) -> list[float]:
    """Around `p50`, which is their median; the same for the same arguments."""
    drawn = np.random.default_rng(round(p50 * 1000)).standard_normal(count)
    return list(p50 * (1 + spread * (drawn - np.median(drawn))))


def top(logps: list[float], ids: list[int] | None = None) -> list[dict[str, Any]]:
    found = [{"id": i, "text": f" w{i}", "token": f"Ġw{i}", "p": math.exp(logp), "logp": logp}
             for i, logp in zip(ids or range(len(logps)), logps, strict=True)]
    return sorted(found, key=lambda token: -token["logp"])


LOGPS = [-1.5 - 0.3 * i for i in range(10)]


def arm(precision: str, dtype: str, p50: float, weights: float, *, moved: float = 0.0, count: int = 100,
        spread: float = 0.01) -> dict[str, Any]:
    """`moved`: how much more the second token is likely, and so its log p."""
    tokens = top([logp + moved * (i == 1) for i, logp in enumerate(LOGPS)])
    return {"precision": precision, "dtype": dtype, "top": tokens, "samples_ms": samples(p50, count, spread) if p50 else [],
            "weight_bytes": int(weights), "peak_memory_bytes": int(8.4 * GB)}


def found(*arms: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": "databricks/dolly-v2-3b", "prompt_tokens": [{}] * 6, "arms": list(arms), **more}


def told(*arms: dict[str, Any], **more: Any) -> str:
    return repr(recommendation.of(found(*arms, **more)))


INT8 = arm("int8", "float16", 167.2, 2.77 * GB, moved=0.06)
FP16 = arm("reference", "float16", 39.0, 5.29 * GB)
BF16 = arm("reference", "bfloat16", 33.0, 5.29 * GB)


def test_on_a_t4_fp16_fits_and_8_bits_are_slow() -> None:
    text = told(INT8 | {"peak_memory_bytes": 3 * GB}, FP16, **T4)
    assert text.splitlines()[0] == ("Use fp16 for dolly-v2-3b on this Tesla T4: 8-bit LLM.int8 takes 4.29 times as long, "
                                    "and fp16 fits")
    assert "p50 167.2 against 39.0 ms; 95% interval of the ratio, roughly: 4." in text
    assert "the weights take 2.77 GB in 8-bit LLM.int8, 5.29 GB in fp16." in text
    assert "needs 6.35 GB of this GPU's 15.64 GB (arithmetic): 9.29 GB are left" in text
    assert "Measured in use, with all of these loaded: 8.40 GB." in text
    assert "limits:" not in text
    assert "by up to 0.06 (a factor of 1.06) against fp16; the first one stays ·w0." in text
    assert "fp16 here: a GPU of compute capability 7.5 does not compute in bf16" in text


def test_on_an_h100_it_is_bf16_and_nothing_is_said_of_bf16_being_absent() -> None:
    int8, bf16 = arm("int8", "float16", 65.0, 2.77 * GB), arm("reference", "bfloat16", 19.4, 5.29 * GB)
    text = told(int8, bf16, **H100)
    assert text.startswith("Use bf16 for dolly-v2-3b on this NVIDIA H100 80GB HBM3: 8-bit LLM.int8 takes 3.35 times as long")
    assert "does not compute" not in text
    assert "does not compute" not in told(int8, bf16 | {"precision": "fp16", "dtype": "float16"}, **H100)
    assert "does not compute" not in told(int8, bf16, **T4), "who asks for bf16 there gets it, emulated"


def test_the_chart_says_the_same_ratio_and_interval() -> None:
    one, other = arm("int8", "float16", 60, 1e9, spread=0.3), arm("reference", "float16", 40, 2e9, spread=0.3)
    for i in range(100):  # a machine that slows both down: only drawn in pairs do they tell it apart
        one["samples_ms"][i] *= 1 + i // 50
        other["samples_ms"][i] *= 1 + i // 50
    figures = r"takes (\d\.\d\d) times.*roughly: ([\d.]+ to [\d.]+)\)"
    title = re.search(figures, latency.compared(found(one, other)))
    advice = re.search(figures, told(one, other, device="GPU").partition("speed: ")[2])
    assert title
    assert advice
    assert title.groups() == advice.groups()


def test_a_reference_and_the_same_type_are_one() -> None:
    text = told(INT8, FP16 | {"precision": "fp16"}, FP16, **T4)
    assert text.count("speed: ") == 1


def test_time_that_no_pass_can_take_is_not_believed() -> None:
    text = told(INT8, FP16 | {"samples_ms": [5e-324] * 100}, **T4)
    assert "which is faster is not known" in text
    assert "no claim, from 100 passes of 8-bit LLM.int8 and 0 of fp16" in text


def test_among_what_fits_the_same_answer_comes_before_speed() -> None:
    title = recommendation.of(found(arm("nf4", "float16", 20, 1.6 * GB, moved=0.5), INT8, FP16, device="GPU",
                                    device_memory_bytes=5 * GB)).title
    assert title == "Use 8-bit LLM.int8 for dolly-v2-3b on this GPU: fp16 leaves little room in memory"


def test_where_16_bits_do_not_fit_8_bits_are_right_by_arithmetic() -> None:
    text = told(arm("int8", "float16", 150, 7 * GB), device="GPU of 8 GB", device_memory_bytes=8_360_000_000)
    assert text.startswith("Use 8-bit LLM.int8 for dolly-v2-3b on this GPU of 8 GB: 16 bits may leave little room in memory")
    assert "at most 14.00 GB, going by the 7.00 GB of 8-bit LLM.int8" in text
    assert "16.80 GB (arithmetic). This GPU has 8.36 GB." in text
    assert 'precisions = "reference" in the parameters of 08, and run it again; that tells whether 16 bits fit' in text
    assert "8-bit LLM.int8 has little room itself" in text, "7.0 GB and a fifth are 8.4 GB too"
    assert "answer: what 8-bit LLM.int8 changes in it is not known" in text


def test_on_a_cpu_it_says_nothing_of_a_gpu_and_where_faster_arms_are() -> None:
    text = told(arm("int8", "float16", 55, 163e6, moved=0.31), arm("reference", "bfloat16", 26, 269e6), device="CPU, 2 threads",
                device_memory_bytes=None, compute_capability=None)  # fmt: skip
    assert text.splitlines()[0] == "Use bf16 for dolly-v2-3b on this CPU: 8-bit LLM.int8 takes 2.12 times as long"
    assert "says nothing about a GPU" in text
    assert "make bench-inference" in text
    assert "memory: the weights take 0.16 GB in 8-bit LLM.int8, 0.27 GB in bf16." in text
    assert "the first one becomes ·w1, from ·w0." in text
    assert "fits" not in text


@pytest.mark.parametrize(("more", "said"), [
    ({"device": "Tesla T4"}, "How much memory there is for them is not in this answer"),
    ({"device": "Tesla T4", "copy_bytes_per_second": None}, "takes 4.29 times as long"),
])  # fmt: skip
def test_of_an_older_answer_it_says_what_is_in_it(more: dict[str, Any], said: str) -> None:
    text = told(INT8, FP16, **more)
    assert said in text
    assert "and fp16 fits" not in text


def interval(low: float, high: float, **more: Any) -> recommendation.Beside:
    values: dict[str, Any] = {"arm": INT8, "name": "n", "ratio": 1.0, "low": low, "high": high, "truth": "t", "delta": 0.0,
                              "kept": 10, "of": 10, "before": "a", "after": "a"}  # fmt: skip
    return recommendation.Beside(**values | more)


@pytest.mark.parametrize(("low", "high", "claim"), [
    (0.9, 1.1, False), (1.0, 1.2, False), (0.8, 1.0, False), (1.0, 1.0, False), (0.5, 0.9999, True), (1.0001, 2.0, True)])
def test_an_interval_that_holds_1_is_no_claim(low: float, high: float, claim: bool) -> None:
    text = interval(low, high).speed(FP16)
    assert ("times as long" in text) == claim
    assert ("no difference" in text) != claim


@pytest.mark.parametrize(("delta", "kept", "weights", "flaw"), [
    (DELTA, 10, GB, ""), (DELTA + 1e-9, 10, GB, "changes the answer too much"), (0.0, 9, GB, "may change the answer too much"),
    (DELTA + 1e-9, 9, GB, "changes the answer too much"), (0.0, 10, 4 * GB, "leaves little room in memory")])
def test_what_may_be_chosen(delta: float, kept: int, weights: int, flaw: str) -> None:
    assert interval(0.3, 0.5, delta=delta, kept=kept, arm=INT8 | {"weight_bytes": weights}).flaw(math.ceil(ROOM * GB)) == flaw


def test_the_gate_is_the_benchmarks() -> None:
    assert GATE["delta"] == DELTA


@pytest.mark.parametrize(("moved", "spread", "p50", "title"), [
    (0.05, 0.01, 20.0, "Use 8-bit LLM.int8 .*: it takes 0.61 of the time of bf16"),
    (0.39, 0.01, 20.0, "Use 8-bit LLM.int8 .*: it takes 0.61 of the time of bf16; 8-bit LLM.int8 puts another token .*"),
    (0.60, 0.01, 20.0, "Use bf16 .*: 8-bit LLM.int8 takes 0.61 of its time, but changes the answer too much, and bf16 fits"),
    (0.05, 0.01, 32.3, "Use bf16 .*: 8-bit LLM.int8 takes 0.98 of its time, too little to change for, and bf16 fits"),
    (0.05, 0.20, 33.0, "Use bf16 .*: 8-bit LLM.int8 is not measurably faster, and bf16 fits"),
])  # fmt: skip
def test_faster_counts_where_the_answer_stays(moved: float, spread: float, p50: float, title: str) -> None:
    box = recommendation.of(found(arm("int8", "float16", p50, 2.77 * GB, moved=moved, spread=spread), BF16,
                                  device="GPU", device_memory_bytes=24 * GB))
    assert re.fullmatch(title, box.title)
    assert ("That does not count as the same answer" in repr(box)) == (moved > DELTA)


@pytest.mark.parametrize(("memory", "title", "state"), [
    (math.ceil(5.29 * GB * ROOM), "Use fp16 .* 4.29 times as long, and fp16 fits", "pass"),
    (math.ceil(5.29 * GB * ROOM) - 2, "Use 8-bit LLM.int8 .*: fp16 leaves little room in memory", "pass"),
    (math.ceil(2.77 * GB * ROOM) - 2, "Use 8-bit LLM.int8 .*: fp16 leaves little room in memory, and nothing smaller has room "
                                      "either; 8-bit LLM.int8 is the smallest with the same answer", "warn"),
])  # fmt: skip
def test_room_is_the_weights_and_a_fifth(memory: int, title: str, state: str) -> None:
    box = recommendation.of(found(INT8, FP16, device="GPU", device_memory_bytes=memory))
    assert re.fullmatch(title, box.title)
    assert box.state == state
    assert ("a longer prompt may not fit" in repr(box)) == ("little room" in title)


OTHER = arm("reference", "float16", 39, 5.29 * GB, moved=0.5)
"""16 bits that fail against fp32."""
FP32 = arm("fp32", "float32", 70, 10.6 * GB)


@pytest.mark.parametrize(("arms", "memory", "title", "state"), [
    ([OTHER, FP32], 16, "Use fp32 .*: fp16 changes the answer too much", "pass"),
    ([OTHER, FP32, arm("int8", "float16", 20, 2.77 * GB, moved=0.05)], 24,
     "Use 8-bit LLM.int8 .*: it takes 0.51 of the time of fp16", "pass"),
    ([OTHER, FP32, arm("int8", "float16", 150, 2.77 * GB, moved=0.05)], 24, "Use fp32 .*: fp16 changes .*", "pass"),
    ([OTHER, FP32], 12, "Keep fp16 .*: fp16 changes the answer too much, and nothing has both room and the same answer", "warn"),
    ([OTHER | {"samples_ms": []}, arm("int8", "float16", 0, 2.77 * GB), arm("fp32", "float32", 0, 10.6 * GB)], 24,
     "Use fp32 .*: fp16 changes the answer too much", "pass"),
    ([FP16, arm("nf4", "float16", 20, 1.6 * GB, moved=0.9)], 6,
     "Keep fp16 .*: fp16 leaves little room in memory, and nothing has both room and the same answer", "warn"),
    ([FP16, arm("fp32", "float32", 20, 10.6 * GB)], 12, "Use fp16 .*: fp32 takes 0.51 of its time, but leaves little room in "
     "memory, and fp16 fits", "pass"),
    ([FP16, INT8, arm("nf4", "float16", 60, 1.6 * GB)], 1,
     "Use 4-bit NF4 .*; 4-bit NF4 is the smallest with the same answer", "warn"),
    ([BF16, arm("nf4", "float16", 30.5, 1.6 * GB, spread=0.3), arm("int8", "float16", 31, 2.77 * GB)], 24,
     "Use 8-bit LLM.int8 .*: it takes 0.94 of the time of bf16", "pass"),
    ([BF16, arm("int8", "float16", 33, 2.77 * GB)], 24, "Use bf16 .*: 8-bit LLM.int8 is not measurably faster, .*", "pass"),
    ([FP16], 6, "Keep fp16 .*: it leaves little room in memory, and nothing else was measured", "warn"),
])  # fmt: skip
def test_the_rule(arms: list[dict[str, Any]], memory: int, title: str, state: str) -> None:
    box = recommendation.of(found(*arms, device="GPU", device_memory_bytes=memory * GB))
    assert re.fullmatch(title, box.title)
    assert box.state == state


def test_faster_by_an_uncertain_measure_asks_for_more_repetitions() -> None:
    slow = arm("int8", "float16", 30.5, 2.77 * GB, moved=0.05, spread=0.3)
    one = recommendation.beside(slow, BF16, BF16)
    assert one.ratio < WORTH <= one.high < 1
    box = recommendation.of(found(slow, BF16, device="GPU", device_memory_bytes=24 * GB))
    assert box.title.startswith("Keep bf16 ")
    assert box.state == "warn"
    text = repr(box)
    assert f"too uncertain ({one.low:.2f} to {one.high:.2f}), and bf16 fits" in text
    assert "next: repetitions = 400 in the parameters of 08" in text


def test_fewer_tokens_kept_may_be_another_answer() -> None:
    lost = arm("int8", "float16", 20, 2.77 * GB) | {"top": top([*LOGPS[:9], -4.3], [*range(9), 99])}
    box = recommendation.of(found(lost, BF16, device="GPU", device_memory_bytes=24 * GB))
    assert box.title == ("Use bf16 for dolly-v2-3b on this GPU: 8-bit LLM.int8 takes 0.61 of its time, "
                         "but may change the answer too much, and bf16 fits")


@pytest.mark.parametrize(("arms", "more", "said"), [
    ([FP16], T4, ["Keep fp16 ", "nothing else was measured, and fp16 fits", 'precisions = "int8,reference"']),
    ([FP32], T4, ["Measure 16 bits too, before you choose ", ": they fit", "at most 5.30 GB"]),
    ([arm("nf4", "float16", 60, 1.6 * GB)], {"device": "G", "device_memory_bytes": 7 * GB},
     ["Use 4-bit NF4 ", "16 bits may leave little room in memory", "at most 6.40 GB", "7.68 GB (arithmetic)",
      'precisions = "reference"']),
    ([INT8], T4, ["Measure 16 bits too, before you choose ", ": they fit", "at most 5.54 GB", 'precisions = "int8,reference"']),
    ([INT8], T4 | {"device_memory_bytes": 8_360_000_000}, [": they fit", "if they do not fit at once, each alone"]),
    ([INT8], {"device": "Tesla T4"}, ["Measure 16 bits too", "nothing in 16 bits ran"]),
    ([INT8], {"device": "G", "device_memory_bytes": 6 * GB}, ["Use 8-bit LLM.int8 ", "16 bits may leave little room", "6.65 GB"]),
    ([arm("nf4", "float16", 60, 3.9 * GB), arm("int8", "float16", 150, 6 * GB)], {"device": "G", "device_memory_bytes": 8 * GB},
     ["Use 8-bit LLM.int8 ", "16 bits may leave little room", "at most 12.00 GB"]),
    ([arm("nf4", "float16", 60, 3.9 * GB), arm("int8", "float16", 150, 7 * GB)], {"device": "G", "device_memory_bytes": 8 * GB},
     ["Use 4-bit NF4 ", "16 bits may leave little room"]),
    ([arm("int8", "float16", 0, GB), arm("reference", "float16", 0, 2 * GB)], T4,
     ["Keep fp16 ", "which is faster is not known, and fp16 fits", "from 0 passes of", "repetitions = 100"]),
    ([arm("int8", "float16", 167, GB, count=19), arm("reference", "float16", 39, 2 * GB, count=19)], T4,
     ["Keep fp16 ", "which is faster is not known", "from 19 passes of 8-bit LLM.int8 and 19 of fp16"]),
    ([INT8, arm("reference", "float16", 39, 2 * GB, count=50)], T4, ["which is faster is not known", "from 100 passes of"]),
])  # fmt: skip
def test_with_less_it_says_less(arms: list[dict[str, Any]], more: dict[str, Any], said: list[str]) -> None:
    text = told(*arms, **more)
    for part in said:
        assert part in text
    assert "times as long" not in text


def test_of_several_the_nearest_is_in_the_title_and_fp32_is_the_truth() -> None:
    nf4, fp32 = arm("nf4", "float16", 60.8, 1.6 * GB, moved=0.5), arm("fp32", "float32", 70, 10.6 * GB)
    box = recommendation.of(found(INT8, nf4, fp32, FP16 | {"precision": "fp16"}, **T4))
    assert box.title.startswith("Use fp16 ")
    assert "4-bit NF4 takes 1.56 times as long" in box.title
    text = repr(box)
    assert text.count("against fp32;") == 3


def test_a_token_that_is_not_among_the_others_bounds_the_difference() -> None:
    lost = INT8 | {"top": top([*LOGPS[:9], -4.3], [*range(9), 99])}
    one = recommendation.beside(lost, FP16, FP16)
    assert (one.kept, one.of) == (9, 10)
    assert one.delta == pytest.approx(LOGPS[9] + 4.3)
    likelier = recommendation.beside(INT8 | {"top": top([-0.01], [99])}, FP16, FP16)
    assert (likelier.kept, likelier.delta) == (0, 0.0), "it may be anything below: nothing is claimed"
    assert likelier.flaw(None) == "may change the answer too much"
    assert "by at least" in one.change()
    assert "keeps 9 of them" in one.change()


TEXT = st.text(st.characters(exclude_characters="n"), max_size=5)  # so that no token reads None or nan
LOGP = st.floats(max_value=0, allow_nan=False, allow_infinity=False)


@st.composite
def answers(draw: st.DrawFn) -> dict[str, Any]:
    """Of main.py's shape, with values at their ends."""
    count = draw(st.sampled_from([0, 1, 19, 20, 30]))
    known = st.sampled_from(["int8", "nf4", "bf16", "fp16", "fp32", "reference", "later"])
    chosen = draw(st.lists(known, min_size=1, unique=True))
    arms = []
    for precision in chosen:
        tokens = draw(st.lists(LOGP, min_size=1, max_size=4))
        ids = draw(st.permutations(range(6)))[:len(tokens)]
        tops = [token | {"text": draw(TEXT), "token": draw(st.none() | TEXT)} for token in top(tokens, ids)]
        timed = draw(st.lists(st.floats(0, 1e15), min_size=count, max_size=count))
        arms.append({"precision": precision, "dtype": draw(st.sampled_from(["float16", "bfloat16", "float32", "other"])),
                     "top": tops, "samples_ms": timed, "weight_bytes": draw(st.integers(0, 2**53)), "peak_memory_bytes": 0})
    more = {"device_memory_bytes": draw(st.none() | st.integers(0, 2**53)),
            "compute_capability": draw(st.sampled_from([None, "7.5"])),
            "copy_bytes_per_second": draw(st.none() | st.floats(1e-3, 1e15))}
    kept = draw(st.sets(st.sampled_from(sorted(more))))
    return found(*arms, device=draw(st.sampled_from(["CPU, 2 threads", "a GPU"])), **{k: more[k] for k in kept})


@settings(deadline=None)
@given(answers())
def test_of_any_answer_it_makes_a_short_true_text(given: dict[str, Any]) -> None:
    box = recommendation.of(given)
    assert re.match("(Use|Keep|Measure) ", box.title)
    assert len(box.title) < 200
    assert show.CONTROL.search(repr(box)) is None
    assert "None" not in repr(box)
    assert "nan" not in repr(box)
    base = next((a for p in recommendation.SIXTEEN for a in given["arms"] if a["precision"] == p), None)
    if base is None:
        assert "times as long" not in box.title
        return
    others = [recommendation.beside(a, base, base) for a in given["arms"]]
    if not any(o.high < 1 for o in others):
        assert "of the time of" not in box.title
    if not any(o.low > 1 for o in others):
        assert "times as long" not in box.title
    if "little room" in box.title and " 16 bits " not in box.title:
        assert any(a["weight_bytes"] * ROOM > given["device_memory_bytes"] for a in given["arms"])
    if "fits" in box.title:
        assert base["weight_bytes"] * ROOM <= given["device_memory_bytes"]


def test_the_report_gives_it_too_as_text(tmp_path: Path) -> None:
    folder = hand_written(tmp_path)
    assert answered.advice(folder) is None
    assert "Use bf16" not in report.write(folder).read_text()
    answer = saved()
    for one, (p50, dtype) in zip(answer["arms"], ((55.0, "float16"), (26.0, "bfloat16")), strict=True):
        one |= {"samples_ms": samples(p50), "dtype": dtype}
    answer["arms"][0]["top"][0]["text"] = "<i>"
    with_files(folder, latency__json=json.dumps(answer).encode())
    advice = answered.advice(folder)
    assert advice
    page = report.write(folder).read_text()
    for line in (advice.title, *advice.lines):
        assert " ".join(line.split()) in text_of(page)
    assert "<i>" not in page


def test_every_line_is_short_enough_to_be_read() -> None:
    for line in (*recommendation.of(found(INT8, FP16, **T4)).lines, *recommendation.of(found(INT8, BF16, **H100)).fold):
        assert len(line) < 260, line
