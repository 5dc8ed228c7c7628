"""Secrets and account ids are hidden wherever text is written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook import masking, show
from gpurunbook.command import Command, environment, run
from gpurunbook.errors import RunbookError
from gpurunbook.journal import Journal

CANARIES = {"AWS_SECRET_ACCESS_KEY": "canary/Secret+Key/0123456789abcdefghijkl", "HF_TOKEN": "canary-of-the-hub",
            "MY_PASSWORD": 'quoted "canary" <&> ü'}


@pytest.fixture(autouse=True)
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CANARIES.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("secret", [
    *CANARIES.values(), "AKIAIOSFODNN7EXAMPLE", "k8s-aws-v1.aHR0cHM6Ly9zdHMuZXU", "hf_abcdefghijklmnopqrstuv",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJl", "IQoJb3JpZ2luX2Vj" + "A" * 60])
def test_a_secret_is_hidden_in_text_json_and_html(secret: str) -> None:
    for text in (f"before {secret} after", json.dumps({"x": secret}), show.escape(secret), f"Bearer {secret}"):
        assert secret not in masking.hide(text)
        assert json.dumps(secret)[1:-1] not in masking.hide(text)
    assert "before" in masking.hide(f"before {secret} after")


@pytest.mark.parametrize("text", [
    "User: arn:aws:iam::123456789012:user/ian is not authorized", "123456789012.dkr.ecr.eu-central-1.amazonaws.com/dolly:1",
    '{"Account": "123456789012"}', "account 123456789012", "arn:aws-cn:eks:cn-north-1:123456789012:cluster/x",
    '{"OwnerId": "123456789012"}'])
def test_an_account_id_keeps_its_last_digits(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = masking.hide(text)
    assert "123456789012" not in hidden
    assert "********9012" in hidden
    monkeypatch.setenv("GPURUNBOOK_SHOW_ACCOUNT_IDS", "1")
    assert masking.hide(text) == text


def test_a_number_of_twelve_digits_is_no_account() -> None:
    assert masking.hide("ephemeral-storage 107374182400 bytes") == "ephemeral-storage 107374182400 bytes"


def test_no_writer_lets_a_canary_through(tmp_path: Path) -> None:
    secret = CANARIES["AWS_SECRET_ACCESS_KEY"]
    journal = Journal(tmp_path)
    journal.append("note", text=secret, deep={"list": [secret]})
    run(Command(("echo", secret), why="", limit=10), env=environment({}), log=tmp_path / "x.log")
    assert secret not in (tmp_path / "journal.jsonl").read_text() + (tmp_path / "x.log").read_text()
    assert next(iter(journal.records()))["text"] == masking.HIDDEN
    assert secret not in str(RunbookError(secret, where=secret, next=secret))
    assert secret not in repr(show.Table((secret,), [(secret,)])) + show.Box(secret, (secret,))._repr_html_()


@given(st.text(max_size=200))
def test_hiding_twice_changes_nothing_more(text: str) -> None:
    assert masking.hide(masking.hide(text)) == masking.hide(text)


def test_a_secret_in_printed_json_or_a_url_is_seen(tmp_path: Path) -> None:
    secret = CANARIES["MY_PASSWORD"]
    Journal(tmp_path).append("result", tail=json.dumps({"password": secret}), argv=(f"--url={quote(secret, safe='')}",))
    text = (tmp_path / "journal.jsonl").read_text()
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1], quote(secret, safe="")):
        assert form not in text


@pytest.mark.parametrize(("name", "hidden"), [
    ("DB_CREDENTIALS", True), ("SSH_PASSPHRASE", True), ("HF_TOKENS", True), ("TOKENIZER_NAME", False),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", False), ("GOOGLE_APPLICATION_CREDENTIALS", False)])
def test_names_tell_secrets_from_places(name: str, hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "value/of/it")
    assert (masking.hide("value/of/it") == masking.HIDDEN) == hidden


def test_a_secret_in_a_very_long_line_is_seen(tmp_path: Path) -> None:
    secret = CANARIES["AWS_SECRET_ACCESS_KEY"]
    script = f"print('x' * (2**16 - 20) + {secret!r} + 'y' * 99)"
    run(Command((sys.executable, "-c", script), why="", limit=10), env=environment({}), log=tmp_path / "x.log")
    assert secret not in (tmp_path / "x.log").read_text()
