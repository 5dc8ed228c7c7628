"""Secrets and account ids are hidden wherever text is written."""

from __future__ import annotations

import ast
import copy
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import time
import traceback
from base64 import b64encode
from collections.abc import Callable
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


# Shapes, and what only looks like one

PEM = "-----BEGIN RSA PRIVATE KEY-----\n" + "\n".join(("MIIEowIBAAKCAQEAx7Yk3nQd0vT1u5c2p9" * 2)[:64] for _ in range(14)) + (
    "\nq83Kd0Zz==\n-----END RSA PRIVATE KEY-----")
SHAPED = {
    "AWS key": "AKIAIOSFODNN7EXAMPLE", "AWS session's key": "ASIAIOSFODNN7EXAMPLE",
    "GitHub": "ghp_" + "a1B2" * 9, "GitHub, fine-grained": "github_pat_" + "11ABCDEFG0" * 4, "GitLab": "glpat-" + "aB3-" * 5,
    "npm": "npm_" + "a1B2c3" * 6, "Python's index": "pypi-AgE" + "IcHlwaS5vcmc" * 4, "Docker": "dckr_pat_" + "aB3_" * 6,
    "GPU maker's catalogue": "nvapi-" + "aB3_" * 12, "chat": "xoxb-123456789012-abcdefABCDEF",
    "model API": "sk-proj-" + "aB3x" * 8,
    "bearer": "Bearer abcdef0123456789ABCDEF", "basic": "Authorization: Basic dXNlcjpwYXNzd29yZA==",
    "basic, in JSON": '{"Authorization": "Basic dXNlcjpwYXNzd29yZA=="}', "URL": "https://user:p4ss@example.org/path",
    "database": "postgres://admin:p@ss-word@db.internal:5432/x", "cache": "redis://:hunter22@cache:6379/0",
    "private key": PEM, "private key in JSON": json.dumps(PEM),
    "private key in a list": json.dumps(PEM.splitlines(True), indent=1),
    "private key in base64": "LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpNSUlF",
    "docker auth": '{"auths": {"r": {"auth": "dXNlcjpwYXNzd29yZDE="}}}',
    "kubeconfig": "  token: 0123456789abcdef0123456789abcdef",
    "kubeconfig's key": "client-key-data: TUlJRXBBSUJBQUtDQVFFQQ==", "shell": "export DB_PASSWORD='hunter2-hunter2'",
    "AWS file": "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "presigned": "https://sts/?X-Amz-Signature=0123456789abcdef0123456789abcdef&x=1",
}


@pytest.mark.parametrize("text", SHAPED.values(), ids=SHAPED)
def test_what_has_the_shape_of_a_secret_is_hidden(text: str) -> None:
    hidden = masking.hide(f"before {text} after")
    assert masking.HIDDEN in hidden
    assert hidden.startswith("before ")
    assert hidden.endswith(" after")
    assert not any(word in hidden for word in ("AKIA", "ASIA", "a1B2", "11ABC", "aB3", "AgEI", "xoxb", "ABCDEF", "dXNl", "p4ss",
                                                "p@ss", "hunter", "MII", "q83K", "LS0t", "TUlJ", "0123456789", "wJalr"))
    assert masking.hide(hidden) == hidden


@pytest.mark.parametrize("text", [
    "docker-pullable://nginx:1.27@sha256:" + "a" * 64, "https://127.0.0.1:6443/api?mail=a@b", "https://host:8443/x@y",
    "git@host:a/b",
    "Basic authentication is not supported", "basic understanding", "bearer of bad news", "the password: authentication failed",
    "sk-learn-gpu-node-group-with-a-long-name", "disk-0123456789ABCDEFGHIJKLMN", "task-sk-1", '{"token": "Ġtogetherness"}',
    '{"id": 5, "text": " password", "token": "Ġpassword"}', '"eos_token": "<|endoftext|>", "pad_token": "<|im_end|>"',
    "secretKeyRef: {name: db, key: password}", "imagePullSecrets: [registry]", "token: ${TOKEN}", "password=$PASSWORD",
    "api_key=<yours>", '"auth": "kubernetes"', "-----BEGIN CERTIFICATE-----\n" + "QUJD" * 16 + "\n-----END CERTIFICATE-----",
    "certificate-authority-data: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUR", "sha256:" + "0" * 64, "npm_config_registry",
    "--discovery-token-ca-cert-hash", "pypi-mirror-of-the-company-in-frankfurt-1", "the private key is in -----BEGIN PRIVATE"])
def test_what_only_looks_like_a_secret_stays(text: str) -> None:
    assert masking.hide(text) == text


@pytest.mark.parametrize("before", ["", "a", "ab", "abc", "user:"])
def test_a_known_secret_in_base64_is_hidden_wherever_it_stands_in_it(before: str) -> None:
    secret = CANARIES["AWS_SECRET_ACCESS_KEY"]
    for after in ("", "x", "xy", "xyz and more"):
        whole = b64encode(f"{before}{secret}{after}".encode()).decode()
        hidden = masking.hide(f"auths {whole} end")
        assert masking.HIDDEN in hidden
        assert len(hidden) < len(whole) / 2 + 24


@pytest.mark.parametrize("cut", range(14, 27))
def test_a_known_secret_in_two_parts_is_hidden_in_both(cut: int) -> None:
    secret = CANARIES["AWS_SECRET_ACCESS_KEY"]
    first, rest = secret[:cut], secret[cut:]
    for between in ("\n", '",\n    "', "</span><span>", " | "):
        hidden = masking.hide(f"said {first}{between}{rest} end")
        assert not any(secret[i:i + masking.PIECE] in hidden for i in range(len(secret)))
    assert masking.hide(f"{first[:5]} {rest[-5:]}") == f"{first[:5]} {rest[-5:]}"


def test_a_place_that_is_named_like_a_secret_takes_no_other_place_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_CREDENTIALS", "/home/somebody/with/a/long/name/credentials")
    assert masking.hide("/home/somebody/with/a/long/name/work") == "/home/somebody/with/a/long/name/work"


def test_a_private_key_that_comes_line_by_line_leaves_none_of_its_lines(tmp_path: Path) -> None:
    said: list[str] = []
    script = f"import sys; sys.stderr.write({PEM!r} + '\\nafter it\\n'); sys.exit(3)"
    result = run(Command((sys.executable, "-c", script), why="", limit=10), env=environment({}), log=tmp_path / "x.log",
                 check=False, watch=lambda seconds, line: said.append(line))
    seen = (tmp_path / "x.log").read_text() + result.tail + "".join(said)
    assert not any(line in seen for line in PEM.splitlines()[1:])  # the first says only what follows
    assert result.tail.endswith("after it")
    assert masking.hide("\n".join(PEM.splitlines()[-6:])) == masking.HIDDEN


@pytest.mark.parametrize("text", ["token=" * 50_000, "-----BEGIN PRIVATE KEY-----" * 10_000, "\\" * 300_000, "A" * 64 + "\n",
                                  ("A" * 64 + "\n") * 5_000, "://a:" * 60_000, "Bearer " * 50_000, "password: 1" * 30_000])
def test_no_text_takes_long(text: str) -> None:
    began = time.monotonic()
    masking.hide(text)
    assert time.monotonic() - began < 3


# A Secret

def test_no_operation_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    value = "value-of-the-canary-0123"
    secret = masking.Secret(value)
    logging.getLogger("x").warning("%s %r", secret, secret)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", "%s" % secret,   # noqa: UP031
             "{}".format(secret),  # noqa: UP032
             format(secret, "s"), str([secret]), str({"a": secret}), str(ValueError(secret)), repr(RunbookError(str(secret))),
             json.dumps({"a": secret}, default=str), caplog.text, *traceback.format_exception(KeyError(secret)),
             str(vars(type(secret))), str(dir(secret)), str(secret.__getstate__()), show.clean(secret),
             show.Table(("a",), [(secret,)])._repr_html_()]
    assert not [text for text in shown if value in text]
    refused: list[Callable[[], object]] = [
        lambda: secret + "", lambda: "" + secret, lambda: "".join([secret]), lambda: secret[0], lambda: secret[:4],
        lambda: list(secret), lambda: len(secret), lambda: bytes(secret), lambda: secret.encode(), lambda: json.dumps(secret),
        lambda: copy.copy(secret), lambda: copy.deepcopy({"a": secret}), lambda: pickle.dumps(secret), lambda: secret.__dict__,
        lambda: vars(secret), lambda: value in secret, lambda: secret * 2, lambda: int(secret), lambda: Path(secret),
        lambda: re.search("v", secret), lambda: os.fsencode(secret), lambda: subprocess.run(["true", secret], check=True)]
    for act in refused:
        with pytest.raises((TypeError, AttributeError)) as raised:
            act()
        assert value not in str(raised.value)
    assert secret.reveal() == value
    assert masking.hide(f"said {value}") == "said [hidden]"


def test_a_secret_is_revealed_in_these_places_only() -> None:
    """Each new one is a decision: change the list with it."""
    root = Path(masking.__file__).parent
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if getattr(node, "attr", "") == "reveal" or getattr(node, "id", "") == "revealed":
                found.append(str(path.relative_to(root)))
    assert found == ["cli/commands.py", "command.py", "masking.py", "targets/eks/registry.py"]


def test_an_environment_shows_no_secret_and_the_child_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment({"PLAIN": "plain"}, ("HF_TOKEN",))
    assert CANARIES["HF_TOKEN"] not in repr(given)
    assert "plain" in repr(given)
    script = "import os, sys; sys.exit(os.environ['HF_TOKEN'] != sys.stdin.read())"
    run(Command((sys.executable, "-c", script), why="", limit=10, stdin=CANARIES["HF_TOKEN"].encode()), env=given)
