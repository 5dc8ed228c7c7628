"""What must not reach a file of a run: secrets, tokens and account ids. Everything that writes passes text through here.

Secrets are known by value (variables whose names say so, and the credentials in use), by shape, and by the name before
them. An AWS account id keeps its last four digits, so that two accounts can be told apart; GPURUNBOOK_SHOW_ACCOUNT_IDS=1
leaves ids as they are. What is handed around is a `Secret`, which shows itself to nobody.
"""

from __future__ import annotations

import html
import json
import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, NoReturn
from urllib.parse import quote, quote_plus

HIDDEN = "[hidden]"
SHORTEST = 8
"""Characters below which a value is no secret worth the damage of hiding each of its occurrences."""
WORDS = frozenset(re.findall(
    r"\S+", "gpurunbook rehearsal existing preflight provision gpu_operator next_token teardown artifact evidence finished "
    "identity left_out modified notebook operator parameters traceback namespace namespaces pod_host workloads definitions "
    "cluster_file max_hours allow_modified account_check uninitialized_taint accept_unknown_prices kubeconfig precisions "
    "repetitions selector reference kubernetes cell_type markdown metadata output_type execution_count nbformat nbformat_minor "
    "kernelspec display_name language_info display_data execute_result text/plain text/html image/png image/svg+xml "
    "application/json papermill injected-parameters interrupted")) | {"left out"}
"""What stays though a variable such as DB_PASSWORD has it as its value: words of which our own files are made.

Hiding one would take a run's journal and notebooks apart. Only the bare word stays: after a name such as `password=`, in
base64, and as the value of a `Secret` it is hidden. `gpurunbook doctor` warns of such a variable (`spared`).
"""
PIECE = 12
"""Characters of a known secret by which a part of it is recognised, where it was cut in two."""
SECRET_NAME = re.compile(r"_PASS$|_PAT$|[A-Z]_PWD$|"
                         r"SECRET|TOKEN(?!I)|PASSW|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)
NOT_SECRET = re.compile(r"_(FILE|PATH|DIR|DIRECTORY|URI|URL|NAME|REGION|NAMESPACE|ARN|ROOT|HOME|HELPER|LIMIT|TYPE|STORE)$"
                        r"|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
"""Names of variables that say where a secret is, and not what it is."""
_BREAK = r"(?:\\{1,8}n|[\s\",])"  # between two lines of one text, in a list of a notebook's lines too
_PEM = r"(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_AFTER = r"(?:(?<![A-Za-z0-9+])|(?<=\\[nrt])|(?<=[0-9;\[]m))"  # no word; a line end as JSON writes it; a colour
_QUOTE = r"\\{0,8}(?:[\"']|&quot;|&#(?:x27|3[49]);)"
_OPEN = rf"(?:{_QUOTE}\s?:\s?|\s?=\s?|:\s(?=\S{{0,99}}[0-9=]))(?:{_QUOTE})?"  # in JSON, in a shell, in YAML; prose has no figure
_NAMED = (r"secret_?(?:access_?)?key|session_?token|X-Amz-(?:Signature|Security-Token)|client-key-data|client[_-]?secret|"
          r"(?:access|refresh|id|auth|identity)[_-]?token|api[_-]?key|passw(?:or)?d|passphrase")
SHAPES = tuple((marks.split(), re.compile(shape)) for marks, shape in (
    ("akia asia", rf"{_AFTER}(?:AKIA|ASIA)[A-Z0-9]{{16}}\b"),  # AWS access keys: of a user, of a session
    ("iqoj fwog fqog", rf"{_AFTER}(?:IQoJ|FwoG|FQoG)[A-Za-z0-9+/=]{{50,}}"),  # AWS session tokens
    ("k8s-aws-v1.", rf"{_AFTER}k8s-aws-v1\.[A-Za-z0-9_=-]{{16,}}"),  # what `aws eks get-token` prints
    ("eyj", rf"{_AFTER}eyJ[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]{{10,}}\.[A-Za-z0-9_-]*"),  # a JWT: service accounts, OIDC
    ("hf_ gho_ ghp_ ghr_ ghs_ ghu_", rf"{_AFTER}(?:hf|gh[pousr])_[A-Za-z0-9]{{20,}}"),  # the model hub's, GitHub's
    ("github_pat_ glpat- dckr_pat_ nvapi-", rf"{_AFTER}(?:github_pat_|glpat-|dckr_pat_|nvapi-)[\w-]{{20,}}"),
    ("npm_ pypi-age", rf"{_AFTER}(?:npm_[A-Za-z0-9]{{36}}|pypi-AgE[\w-]{{30,}})"),  # of registries
    ("xox", rf"{_AFTER}xox[abeoprs]-[A-Za-z0-9-]{{10,}}"),  # a chat's
    ("sk-",  # of models behind an API
     r"(?:(?<![\w-])|(?<=\\[nrt])|(?<=[0-9;\[]m))sk-(?=[\w-]{0,99}[0-9])(?=[\w-]{0,99}[A-Z])[\w-]{20,}"),
    ("bearer ", r"(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{16,}"),
    # Basic authentication: base64 of whole groups, with a figure or an end in it, which no English word has.
    ("basic ", r"(?<=uthorization: Basic )[A-Za-z0-9+/=]{4,}|(?<=[Bb]asic )(?=[A-Za-z+/]{0,99}[0-9=])"
               r"(?:[A-Za-z0-9+/]{4}){2,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(?![A-Za-z0-9+/=])"),
    # user:password in a URL; an image's tag before its digest is none.
    ("://", r"(?<=://)[^\s/@:\"'<>\\]{0,256}:[^\s/\"'<>\\]{1,512}(?=@(?!sha256:))"),
    # It decodes to who asked for what.
    ("authorization failure message", r"(?<=Encoded authorization failure message: )[A-Za-z0-9_-]{16,}"),
    ("-----begin", rf"-----BEGIN {_PEM}(?:(?:[\sA-Za-z0-9+/=\\\",:]|-(?!----)){{0,16384}}-----END {_PEM}"
                   rf"|(?:{_BREAK}{{0,24}}[A-Za-z0-9+/=]{{32,}})*)"),
    ("-----end", rf"(?<![A-Za-z0-9+/=])(?>(?:[A-Za-z0-9+/=]{{32,}}{_BREAK}{{1,24}}){{1,20}})"  # the end of what was cut
                 rf"(?:[A-Za-z0-9+/=]{{1,64}}{_BREAK}{{1,24}})?-----END {_PEM}"),
    # The same in base64, as kubeconfigs have it: BEGIN, then PRIVATE, RSA, EC, OPENSSH, ENCRYPTED or DSA.
    ("ls0tls1crudjti", r"LS0tLS1CRUdJTi(?:BQUklWQVRF|BSU0Eg|BFQyBQ|BPUEVOU1NI|BFTkNSWVBU|BEU0Eg)[A-Za-z0-9+/=]{20,}"),
    # Of no shape, by the name before it, which stays. A model's tokens have the name too.
    ("key token signature secret passw passphrase",
     rf"(?i)((?:{_NAMED}){_OPEN})[^\s\"'\\,;&<>\[\](){{}}$*][^\s\"'\\,;&<>]{{7,}}"),
    ("token", rf"(?i)(token{_OPEN})(?=[A-Z._~+/=-]{{0,99}}[0-9])(?=[0-9._~+/=-]{{0,99}}[A-Z])[A-Z0-9._~+/=-]{{20,}}"),
    ("secretaccesskey> sessiontoken>", r"(?i)((?:SecretAccessKey|SessionToken)>)[^<\s]{8,}"),  # as STS answers
    # A registry's user and password, in Docker's configuration.
    ("auth", rf"({_QUOTE}auth{_QUOTE}\s?:\s?{_QUOTE})(?=[A-Za-z+/]{{0,99}}[0-9=])[A-Za-z0-9+/]{{8,}}={{0,2}}"),
))
"""Marks in lower case, one of which is in every text that has the shape (looking for it is far quicker), and the shape.

What a shape's group matches stays.
"""
ACCOUNT = re.compile(r"(arn:aws[a-z-]*:[a-z0-9-]*:[a-z0-9-]*:|\b(?:[Aa]ccount|OwnerId)[\w \-]{0,8}[\"'=: \\]{1,5})(\d{12})(?!\d)"
                     r"|(?<!\d)(\d{12})(?=\.dkr\.ecr\.)")
_known: set[str] = set()
_always: set[str] = set()
"""Those of them that are hidden though they are WORDS."""
_accounts: set[str] = set()


class Secret:
    """A value that no operation of strings shows by itself, and that is hidden wherever text is written from here on.

    Not hidden in text: a value shorter than SHORTEST, and one of WORDS where it was found in the environment (`veiled`).

    Who looks into the object's insides finds it: this keeps accidents out, not adversaries.

    It is no str: it has no length, no parts and no bytes, cannot be joined, copied, pickled or made JSON (TypeError).
    `reveal` is the one way to the value, for the call that needs it.
    """

    __slots__ = ("_reveal",)

    def __init__(self, value: str, *, found: bool = False) -> None:
        know(value)
        if not found and len(value) >= SHORTEST:
            _always.add(value)
        self._reveal: Callable[[], str] = lambda: value  # no attribute holds it, so that no listing of attributes shows it

    def reveal(self) -> str:
        """The value; hand it on at once, and keep it nowhere."""
        return self._reveal()

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return HIDDEN

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is neither copied nor kept")


def veiled(variables: Mapping[str, str]) -> dict[str, str | Secret]:
    """An environment in which every variable whose name says so is a Secret."""
    return {name: Secret(value, found=True) if _says_secret(name) else value for name, value in variables.items()}


def revealed(variables: Mapping[str, str | Secret]) -> dict[str, str]:
    """The same for the process that is started with it, and for nobody else."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in variables.items()}


def know(*secrets: str, account: str = "") -> None:
    """From here on hide these values too, as those of the environment: one of WORDS stays where it stands alone."""
    _known.update(value for value in secrets if len(value) >= SHORTEST)
    if account:
        _accounts.add(account)


def spared() -> list[str]:
    """The environment's variables whose names say that they are secret, and whose values are hidden only in part."""
    return sorted(name for name, value in os.environ.items() if _says_secret(name) and value in WORDS)


def hide(text: str) -> str:
    """The text without secrets, tokens and account ids."""
    values = frozenset(value for name, value in os.environ.items() if _says_secret(name) and len(value) >= SHORTEST) | _known
    forms = _forms(values, frozenset(_always))
    if present := [form for form in forms if form in text]:
        text = re.sub("|".join(forms[form] for form in present), HIDDEN, text)
    text = _without_pieces(text, _pieces(values))
    lower = text.lower()
    for marks, shape in SHAPES:
        if any(mark in lower for mark in marks):
            text = shape.sub(lambda m: (m[1] if m.re.groups else "") + HIDDEN, text)
    if os.environ.get("GPURUNBOOK_SHOW_ACCOUNT_IDS") == "1":
        return text
    for account in _accounts:
        text = text.replace(account, short(account))
    return ACCOUNT.sub(lambda m: (m[1] or "") + short(m[2] or m[3]), text)


def without_keys() -> Callable[[str], str]:
    """For the lines of one text, one after the other: hides those of a private key, of which only the first says so."""
    inside = False

    def without_key(line: str) -> str:
        nonlocal inside
        if not inside and "PRIVATE KEY" not in line:
            return line
        within, ends = inside, bool(re.search(f"-----END {_PEM}", line))
        inside = (within or bool(re.search(f"-----BEGIN {_PEM}", line))) and not ends
        return HIDDEN if within and (ends or re.fullmatch(r"\s*[A-Za-z0-9+/=]+\s*", line)) else line

    return without_key


def hide_json(text: str, indent: int | None = None) -> str:
    """`hide` for a JSON document, which stays one: where a number or a brace would go, each text in it is hidden by itself."""
    hidden = hide(text)
    try:
        json.loads(hidden)
    except ValueError:
        with suppress(ValueError, RecursionError):
            return json.dumps(hide_in(json.loads(text)), indent=indent)
    return hidden


def hide_in(value: Any) -> Any:
    """The same for every text inside lists and mappings."""
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {hide(key) if isinstance(key, str) else key: hide_in(inner) for key, inner in value.items()}
    return [hide_in(inner) for inner in value] if isinstance(value, list | tuple) else value


def short(account: str) -> str:
    """An account id as it may be shown: ********9012."""
    return "*" * 8 + account[-4:]


@cache
def _says_secret(name: str) -> bool:
    return bool(SECRET_NAME.search(name) and not NOT_SECRET.search(name))


@cache
def _forms(values: frozenset[str], always: frozenset[str] = frozenset()) -> dict[str, str]:
    """How secrets may be spelled: as they are, inside JSON, HTML, a URL or base64, and one of several lines line by line.

    Text -> pattern, the longest first. None is one of WORDS, but for those that are hidden always.
    """
    spelled = {form: re.escape(form) for value in values for line in (value, *value.splitlines()) if len(line) >= SHORTEST
               for form in (line, json.dumps(line)[1:-1], html.escape(line), html.escape(line, quote=False).replace(
                   '"', "&#34;").replace("'", "&#39;"), line.replace("'", "'\"'\"'"), line.replace("/", "\\/"), quote(line),
                   quote(line, safe=""), quote_plus(line)) if form not in WORDS or form in always}
    encoded = {form: re.escape(form) + r"[\w+/-]{0,2}={0,2}" for value in values for form in _base64(value)}
    return dict(sorted((encoded | spelled).items(), key=lambda pair: len(pair[0]), reverse=True))


def _base64(value: str) -> set[str]:
    """What is the same of a value's base64 whatever stands before and after it: one text for each of the three phases."""
    data, forms = value.encode("utf-8", "surrogatepass"), set()
    for before in range(3):
        whole = b64encode(bytes(before) + data).decode()
        core = whole[(0, 2, 3)[before]:len(whole) - (0, 3, 2)[(before + len(data)) % 3]]
        forms |= {core, core.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= PIECE}


@cache
def _pieces(values: frozenset[str]) -> dict[str, tuple[str, int]]:
    """Pieces of the secrets, and where each stands in which. Not of places, which share their beginnings with others."""
    where: dict[str, tuple[str, int]] = {}
    for value in values:
        if len(value) < 2 * PIECE or value.startswith(("/", "~", ".")) or "://" in value:
            continue
        # Long ones begin with what all of their kind begin with.
        for at in (*range(PIECE if len(value) > 4 * PIECE else 0, len(value) - PIECE, PIECE), len(value) - PIECE):
            if len(set(piece := value[at:at + PIECE])) > PIECE // 2:
                where[piece] = value, at
    return where


def _without_pieces(text: str, where: Mapping[str, tuple[str, int]]) -> str:
    """The text without what is left of a secret that was written in two parts, each of them of nearly two pieces or more."""
    present = [re.escape(piece) for piece in where if piece in text]
    kept, done = [], 0
    for found in re.finditer("|".join(present), text) if present else ():
        (value, first), (begin, end) = where[found[0]], found.span()
        if begin < done:
            continue
        last = first + PIECE
        while begin > done and first and text[begin - 1] == value[first - 1]:
            begin, first = begin - 1, first - 1
        while end < len(text) and last < len(value) and text[end] == value[last]:
            end, last = end + 1, last + 1
        kept += [text[done:begin], HIDDEN]
        done = end
    return "".join(kept) + text[done:]
