"""Secrets of many kinds, made up, each to be looked for wherever a run leaves something."""

from __future__ import annotations

import json
import random
import string
from base64 import b64encode
from dataclasses import dataclass

LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Canary:
    """One secret.

    Attributes:
        name: of its kind.
        variable: the variable that holds `text`.
        text: as people and programs write it.
        needles: what may stand nowhere.
        known: the variable's name says that it is one; the others are known by their shape alone.
    """

    name: str
    variable: str
    text: str
    needles: tuple[str, ...]
    known: bool = False


def made(seed: int) -> list[Canary]:
    """The same for the same seed; each has a figure and both cases in it, as such secrets have."""
    dice = random.Random(seed)

    def some(count: int, of: str = LETTERS) -> str:
        return "aB3" + "".join(dice.choice(of) for _ in range(count - 3))

    def encoded(text: str) -> str:
        return b64encode(text.encode()).decode()

    found = []

    def add(name: str, variable: str, secret: str, text: str = "{}", known: bool = False) -> None:
        found.append(Canary(name, variable, text.replace("{}", secret), (secret,), known))

    upper = string.ascii_uppercase + string.digits
    add("AWS access key", "AWS_ACCESS_KEY_ID", "AKIA" + some(19, upper)[3:], known=True)
    add("AWS session's access key", "CANARY_ROLE", "ASIA" + some(19, upper)[3:])
    secret = some(40, LETTERS + "+/")
    add("AWS secret key", "AWS_SECRET_ACCESS_KEY", secret, known=True)
    add("STS session token", "AWS_SESSION_TOKEN", "IQoJ" + some(300, LETTERS + "+/"), known=True)
    add("bearer token", "CANARY_HEADER", some(40), "Authorization: Bearer {}")
    add("EKS token", "CANARY_EKS", "k8s-aws-v1." + some(80))
    body = [some(64, LETTERS + "+/") for _ in range(12)]
    pem = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *body, "-----END RSA PRIVATE KEY-----"])
    found.append(Canary("private key", "CANARY_PEM", pem, tuple(body)))
    add("model hub's token", "HF_TOKEN", "hf_" + some(34), known=True)
    add("GitHub token", "CANARY_GIT", "ghp_" + some(36))
    add("GitHub's fine-grained token", "CANARY_GIT_FINE", "github_pat_" + some(60))
    add("JWT", "CANARY_JWT", f"eyJhbGciOiJSUzI1NiJ9.eyJ{some(60)}.{some(80)}")
    add("password in a URL", "CANARY_ADDRESS", some(14), "https://deploy:{}@git.internal/x.git")
    add("database's password", "CANARY_DSN", some(16), "postgres://admin:{}@db.internal:5432/prod?x=1")
    add("basic authentication", "CANARY_BASIC", encoded("deploy:" + some(13) + "7"), "Authorization: Basic {}")
    add("registry's login", "CANARY_DOCKER", encoded("robot:" + some(17) + "9"),
        '{"auths": {"registry.internal": {"auth": "{}"}}}')
    add("npm token", "CANARY_NPM", "npm_" + some(36))
    add("Python index's token", "CANARY_INDEX", "pypi-AgE" + some(90))
    add("kubeconfig's token", "CANARY_KUBECONFIG", some(48), "users:\n- name: x\n  user:\n    token: {}")
    add("kubeconfig's key", "CANARY_KEY_DATA", encoded(pem), "    client-key-data: {}")
    add("model API's key", "CANARY_MODEL", "sk-proj-" + some(48))
    add("chat's token", "CANARY_CHAT", "xoxb-" + some(40))
    add("GPU catalogue's key", "CANARY_NGC", "nvapi-" + some(60))
    add("password by its variable's name", "CANARY_PASSWORD", some(26, LETTERS + "#%&'\"<>"), known=True)
    add("base64 of a known secret", "CANARY_ENCODED", encoded(f"user:{secret}"), "blob {} end")
    return found


def leaks(canaries: list[Canary], text: str | bytes) -> list[str]:
    """The names of those that stand in a text, as they are or as JSON writes them."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return [canary.name for canary in canaries
            if any(form.encode() in data for needle in canary.needles for form in (needle, json.dumps(needle)[1:-1]))]
