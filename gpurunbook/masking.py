"""What must not reach a file of a run: secrets, tokens and account ids. Everything that writes passes text through here.

Secrets are known by value (variables whose names say so, and the credentials in use) and by shape. An AWS account id
keeps its last four digits, so that two accounts can be told apart; GPURUNBOOK_SHOW_ACCOUNT_IDS=1 leaves ids as they are.
"""

from __future__ import annotations

import html
import json
import os
import re
from functools import cache
from typing import Any
from urllib.parse import quote

HIDDEN = "[hidden]"
SHORTEST = 8
"""Characters below which a value is no secret worth the damage of hiding each of its occurrences."""
SECRET_NAME = re.compile(r"SECRET|TOKEN(?!I)|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)
NOT_SECRET = re.compile(r"(_FILE|_PATH|_DIR|_URI|_URL)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
"""Names of variables that say where a secret is, and not what it is."""
SHAPES = re.compile("|".join((
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",  # AWS access keys: of a user, of a session
    r"\b(?:IQoJ|FwoG|FQoG)[A-Za-z0-9+/=]{50,}",  # AWS session tokens
    r"\bk8s-aws-v1\.[A-Za-z0-9_=-]{16,}",  # what `aws eks get-token` prints
    r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",  # a JWT: service accounts, OIDC
    r"\bhf_[A-Za-z0-9]{20,}", r"\bgh[pousr]_[A-Za-z0-9]{20,}",  # the model hub's and GitHub's
    r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}",
    r"(?<=Encoded authorization failure message: )[A-Za-z0-9_-]{16,}",  # decodes to who asked for what
)))
ACCOUNT = re.compile(r"(arn:aws[a-z-]*:[a-z0-9-]*:[a-z0-9-]*:|\b(?:[Aa]ccount|OwnerId)[\w \-]{0,8}[\"'=: \\]{1,5})(\d{12})(?!\d)"
                     r"|(?<!\d)(\d{12})(?=\.dkr\.ecr\.)")
_known: set[str] = set()
_accounts: set[str] = set()


def know(*secrets: str, account: str = "") -> None:
    """From here on hide these values too."""
    _known.update(value for value in secrets if len(value) >= SHORTEST)
    if account:
        _accounts.add(account)


def hide(text: str) -> str:
    """The text without secrets, tokens and account ids."""
    named = frozenset(value for name, value in os.environ.items() if SECRET_NAME.search(name) and not NOT_SECRET.search(name)
                      and len(value) >= SHORTEST)
    pattern = _values(named | _known)
    if pattern:
        text = pattern.sub(HIDDEN, text)
    text = SHAPES.sub(HIDDEN, text)
    if os.environ.get("GPURUNBOOK_SHOW_ACCOUNT_IDS") == "1":
        return text
    for account in _accounts:
        text = text.replace(account, short(account))
    return ACCOUNT.sub(lambda m: (m[1] or "") + short(m[2] or m[3]), text)


def hide_in(value: Any) -> Any:
    """The same for every text inside lists and mappings."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {key: hide_in(inner) for key, inner in value.items()}
    return [hide_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def short(account: str) -> str:
    """An account id as it may be shown: ********9012."""
    return "*" * 8 + account[-4:]


@cache
def _values(values: frozenset[str]) -> re.Pattern[str] | None:
    # A secret may come along as it is, inside JSON, HTML or a URL, and one of several lines comes line by line.
    spelled = {form for value in values for line in (value, *value.splitlines()) if len(line) >= SHORTEST
               for form in (line, json.dumps(line)[1:-1], html.escape(line), quote(line), quote(line, safe=""))}
    return re.compile("|".join(re.escape(form) for form in sorted(spelled, key=len, reverse=True))) if spelled else None
