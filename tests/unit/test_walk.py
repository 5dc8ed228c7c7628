"""Parameters given by hand, and the preview."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import preview, stages
from gpurunbook.errors import ConfigError
from gpurunbook.journal import Journal
from gpurunbook.parameters import check_parameters, parameters

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
