"""Parameters given by hand, the preview, and the report of a run as its journal tells it."""

from __future__ import annotations

import ast
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import preview, report, stages
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.parameters import check_parameters, parameters
from tests.unit.test_plan_show import HOSTILE, Tags, harmless

ROOT = Path(__file__).resolve().parents[2]


# Parameters

@pytest.mark.parametrize(("given", "values"), [
    ([], {}),
    (["top=5"], {"top": 5}),
    (["prompt=a=b"], {"prompt": "a=b"}),
    (["uninitialized_taint=False", "repetitions=3"], {"uninitialized_taint": False, "repetitions": 3}),
    (["uninitialized_taint=true"], {"uninitialized_taint": True}),
    (["top=1", "top=2"], {"top": 2}),
])
def test_values_get_the_type_of_the_default(given: list[str], values: dict[str, Any]) -> None:
    assert check_parameters(ROOT, given) == values


@pytest.mark.parametrize(("text", "what", "next"), [
    ("promt=x", "unknown parameter 'promt'", "did you mean prompt?"),
    ("zzz=x", "unknown parameter 'zzz'", "one of: accept_unknown_prices, "),
    ("top", "'top' is not NAME=VALUE", "did you mean top?"),
    ("=x", "unknown parameter ''", "one of: "),
    ("top =5", "unknown parameter 'top '", "did you mean top?"),
    ("run_id=x", "unknown parameter 'run_id'", ""),
    ("target=eks", "unknown parameter 'target'", ""),
    ("__import__('os').system('id')=1", "unknown parameter", ""),
    ("prompt\nimport os=1", "unknown parameter", ""),
    ("top=five", "parameter top is 'five'", "give a value like 10 (int)"),
    ("top=5.0", "parameter top is '5.0'", "(int)"),
    ("top=", "parameter top is ''", "(int)"),
    ("top=1; import os", "parameter top is", "(int)"),
    ("prompt=", "parameter prompt is ''", "give text, not empty"),
    ("top=0", "parameter top is '0'", "from 1 to 1000"),
    ("precisions=int8,foo", "parameter precisions is 'int8,foo'", "some of bf16"),
    ("precisions=int8,int8", "parameter precisions is", "each once"),
    ("top=-5", "parameter top is '-5'", "numbers up to 1,000,000"),
    ("repetitions=1000001", "parameter repetitions is '1000001'", "numbers up to 1,000,000"),
    ("prompt=" + "x" * 10_001, "(10,001 characters)", "text up to 10,000"),
    ("top=" + "9" * 5000, "parameter top is", "(int)"),
    ("uninitialized_taint=1", "parameter uninitialized_taint is '1'", "give a value like True (bool)"),
    ("image=--kubeconfig=x", "parameter image is", "give an image's name"),
    ("image=a b", "parameter image is", "give an image's name"),
    ("account_check=-x", "parameter account_check is", "a cluster's name"),
    ("pace=nan", "parameter pace is 'nan'", "instant, real"),
    ("context=a\nb", "parameter context is", "text on one line, without control characters"),
    ("context=\u2028", "parameter context is", "text on one line"),
    ("chart=\u202egnp.exe", "parameter chart is", "text on one line"),
    ("kubeconfig=a\0b", "parameter kubeconfig is", "text on one line"),
    ("prompt=a\0b", "parameter prompt is", "text without NUL, in UTF-8"),
    ("prompt=\udcff", "parameter prompt is", "text without NUL, in UTF-8"),
    ("allow_modified=yes", "parameter allow_modified is 'yes'", "(bool)"),
    ("uninitialized_taint=no", "parameter uninitialized_taint is 'no'", "(bool)"),
])
def test_a_wrong_parameter_is_refused_before_anything_starts(text: str, what: str, next: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_parameters(ROOT, [text])
    assert what in caught.value.what
    assert next in caught.value.next


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_no_text_can_leave_the_literal_that_papermill_writes(text: str) -> None:
    """papermill pastes parameters into a cell as code: whatever a prompt holds must come back as that text."""
    from papermill.translators import PythonTranslator
    assert check_parameters(ROOT, [f"prompt={text}"]) == {"prompt": text}
    assert ast.literal_eval(PythonTranslator.translate(text)) == text


def test_every_notebook_declares_the_parameters_that_we_set() -> None:
    assert list(parameters(ROOT)) == list(stages.NAMES)
    for cell in parameters(ROOT).values():
        assert {"run_id", "target", "cluster_file"} <= cell.keys()


# The preview

@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notebooks", "manifests", "cluster.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hand_written(root: Path, run: str = "by-hand", *records: dict[str, Any]) -> Path:
    folder = root / "runs" / run
    folder.mkdir(parents=True)
    journal = Journal(folder)
    journal.append("run", state="started", target="rehearsal", cluster_file=str((root / "cluster.yaml").resolve()))
    for record in records:
        journal.append(**record)
    return folder


def at(second: float) -> str:
    return f"2026-11-22T12:00:{second:06.3f}+00:00"


def test_without_a_run_the_preview_says_what_is_not_known_yet(checkout: Path) -> None:
    rows = preview.plans(checkout, "rehearsal", (checkout / "cluster.yaml").resolve())
    assert [row["stage"] for row in rows] == list(stages.NAMES)
    assert [row["reason"] for row in rows[2:-1]] == ["known after 02"] * 6
    assert any(line.startswith("kwokctl create cluster --name=new") for line in rows[1]["shown"])
    assert not (checkout / "runs").exists()
    assert "no cluster yet" in rows[1]["reason"]
    assert not (checkout / "runs").exists()


def test_with_a_run_and_no_cluster_the_preview_shows_the_commands_that_make_it(checkout: Path) -> None:
    hand_written(checkout)
    rows = {row["stage"]: row for row in
            preview.plans(checkout, "rehearsal", (checkout / "cluster.yaml").resolve())}
    assert any(line.startswith("kwokctl create cluster --name=by-hand") for line in rows["provision"]["shown"])
    assert rows["taint"]["reason"] == rows["model"]["reason"] == "known after 02"
    assert not (checkout / "runs" / "by-hand" / "kubeconfig").exists()
    assert "intent" not in (checkout / "runs" / "by-hand" / "journal.jsonl").read_text()


# The report

def story(*records: dict[str, Any]) -> report.StageStory:
    return next(s for s in report.stories(list(records)) if s.name == "taint")


def stage(state: str, second: float) -> dict[str, Any]:
    return {"kind": "stage", "stage": "taint", "state": state, "time": at(second)}


def notebook(seconds: float) -> dict[str, Any]:
    return {"kind": "notebook", "stage": "taint", "state": "ended", "seconds": seconds, "time": at(59)}


@pytest.mark.parametrize(("records", "outcome", "seconds"), [
    ([], "not run", 0),
    ([stage("started", 1)], "started", 0),
    ([stage("started", 1), stage("done", 3.5)], "done", 2.5),
    ([stage("started", 1), stage("failed", 2), stage("started", 10), stage("done", 14)], "done", 4),
    ([stage("started", 1), stage("done", 3), notebook(7)], "done", 7),
    ([stage("started", 1), stage("done", 3), notebook(7), stage("started", 10), stage("done", 11), notebook(2)], "done", 2),
    ([stage("started", 1), stage("failed", 3), notebook(5)], "failed", 5),
    ([stage("started", 1), notebook(5)], "started", 5),
    ([stage("started", 1), stage("done", 3), stage("failed", 4)], "failed", 3),
])
def test_a_stages_seconds_are_those_of_its_last_walk(records: list[dict[str, Any]], outcome: str, seconds: float) -> None:
    told = story(*records)
    assert told.outcome == outcome
    assert told.seconds == pytest.approx(seconds)


def intent(name: str, **fields: Any) -> dict[str, Any]:
    return {"kind": "intent", "id": name, "stage": "taint", "argv": ["kubectl", name], "shown": f"kubectl {name}",
            "why": "because", "changes": True} | fields


def test_a_command_is_told_with_its_result_or_without_one() -> None:
    told = story(intent("a"), intent("b"), {"kind": "result", "id": "a", "code": 0, "seconds": 1.5},
                 {"kind": "result", "id": "never-begun", "code": 0})
    assert [(c["shown"], c["code"], c["error"]) for c in told.commands] == [
        ("kubectl a", 0, None), ("kubectl b", None, "no result: interrupted")]


def text_of(page: str) -> str:
    body = page.partition("<body>")[2].partition("</body>")[0]
    return " ".join(Tags(re.sub(r"</(td|th|h\d|p|pre|li)>|<br>", r" \g<0>", body)).text.split())


def test_the_report_tells_the_run(tmp_path: Path) -> None:
    folder = hand_written(
        tmp_path, "by-hand",
        {"kind": "program", "name": "helm", "path": "/x", "version": "4.2.4", "found": "PATH"},
        {**stage("started", 1)}, intent("taint"), {"kind": "result", "id": "taint", "code": 0, "seconds": 0.4},
        intent("slow"), {"kind": "result", "id": "slow", "code": None, "seconds": 5.0, "error": "helm was ended"},
        intent("get", changes=False),
        {"kind": "checks", "stage": "taint", "checks": [{"name": "no taint", "state": "warn", "evidence": "one node",
                                                         "fix": "type this"}]},
        {**stage("failed", 3)}, {"kind": "error", "stage": "taint", "error": "it broke"})
    page = report.write(folder)
    text = text_of(page.read_text())
    for said in ("✗ Stopped in taint", "run by-hand · target rehearsal", "This was a rehearsal.", "04 taint failed 2.0",
                 "kubectl taint because: exit 0 after 0.4 s", "because: helm was ended", "1 reading commands",
                 "! no taint one node mends it: type this", "it broke", "helm 4.2.4 PATH"):
        assert said in text, said
    assert "exit None" not in text
    assert page.stat().st_mode & 0o777 == 0o600


def test_the_report_opens_without_network_or_scripts(tmp_path: Path) -> None:
    page = report.write(hand_written(tmp_path, "by-hand", stage("started", 1), stage("done", 2))).read_text()
    assert page.startswith("<!doctype html>")
    assert "script" not in Tags(page.partition("\n")[2]).seen
    assert re.findall(r"<(?:link|iframe|object|embed|form|base|audio|video)\b", page) == []
    assert all(value.startswith(("data:", "#")) for value in re.findall(r'\b(?:src|href|srcset)="([^"]*)"', page))
    assert not re.search(r"@import|url\(|javascript:|\son\w+\s*=", page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert {f'href="#{one}"' for one in ids} <= set(re.findall(r'href="#[^"]+"', page))


def test_hostile_text_in_a_journal_stays_text(tmp_path: Path) -> None:
    folder = hand_written(
        tmp_path, "by-hand",
        {"kind": "program", "name": HOSTILE, "path": "/x", "version": HOSTILE, "found": HOSTILE},
        stage("started", 1), intent("a", shown=HOSTILE, why=HOSTILE),
        {"kind": "result", "id": "a", "code": None, "error": HOSTILE}, intent("b", shown=HOSTILE, changes=False),
        {"kind": "checks", "stage": "taint", "checks": [{"name": HOSTILE, "state": "fail", "evidence": HOSTILE,
                                                         "fix": HOSTILE}]},
        {"kind": "error", "stage": "taint", "error": HOSTILE}, stage("failed", 2))
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "next_tokens.json").write_text(json.dumps({
        "prompt": HOSTILE, "top": [{"text": HOSTILE, "id": 1, "p": 0.5, "logp": -0.69}], "versions": {HOSTILE: HOSTILE}}))
    page = report.write(folder).read_text()
    assert harmless(page)
    assert "script" not in Tags(page.partition("\n")[2]).seen
    assert page.count("&lt;script&gt;") > 10


@pytest.mark.parametrize("torn", ["", '{"prompt": "a', "[]", "\0"])
def test_an_artifact_torn_by_a_kill_does_not_take_the_report_with_it(tmp_path: Path, torn: str) -> None:
    folder = hand_written(tmp_path)
    (folder / "artifacts").mkdir()
    for name in ("next_tokens", "latency"):
        (folder / "artifacts" / f"{name}.json").write_text(torn)
    assert "Run dead" in report.write(folder).read_text()


def test_a_finished_run_says_so(tmp_path: Path) -> None:
    folder = hand_written(tmp_path, "by-hand", {"kind": "run", "state": "finished"})
    assert "✓ Walked to the end" in report.write(folder).read_text()


def test_a_folder_that_is_no_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(RunbookError, match="is no run"):
        report.write(tmp_path)
    assert os.listdir(tmp_path) == []
