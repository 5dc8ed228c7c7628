"""AWS's HTTP: which service, operation and parameters a request means, and how an error is written in its protocol."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.loaders import Loader

SCOPE = re.compile(r"Credential=[^/]*/\d*/([^/]*)/([^/]*)/")
BOTO3 = {"tagging": "resourcegroupstaggingapi", "servicequotas": "service-quotas", "monitoring": "cloudwatch"}
"""Signing names that are not boto3's names of the services."""


@dataclass(frozen=True)
class Request:
    """A call. `service` is boto3's name, `operation` AWS's own, as in ("ec2", "DescribeVolumes"). `region` may be empty.

    `spoken` is the protocol: ec2, query, json, rest-json or cbor.
    `params` are as they came: query fields (ec2, iam, cloudformation), or what JSON said with the path's and query's names.
    """

    service: str
    operation: str
    params: dict[str, Any]
    region: str
    agent: str
    spoken: str = ""


def read(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Request | None:
    """What was asked; None for what is no call of a service."""
    scope = SCOPE.search(headers.get("Authorization", ""))
    if scope is None:
        return None
    region, signed = scope.groups()
    parts = urlsplit(url)
    query: dict[str, Any] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query[name] = f"{query[name]},{value}" if name in query else value  # lists come as repeated names
    service, agent = BOTO3.get(signed, signed), headers.get("User-Agent", "")
    kind = headers.get("Content-Type", "")
    if target := headers.get("X-Amz-Target"):
        return Request(service, target.rpartition(".")[2], _json(body), region, agent, "json")
    if rpc := re.fullmatch(r"/service/[^/]+/operation/(\w+)", parts.path):
        return Request(service, rpc[1], {}, region, agent, "cbor")
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)) if "form" in kind else query
    if "Action" in form:
        if service == "elasticloadbalancing":
            service = "elbv2" if form.get("Version", "").startswith("2015") else "elb"
        return Request(service, form["Action"], form, region, agent, "ec2" if service == "ec2" else "query")
    for operation, verb, pattern in _paths(service):
        if verb == method and (found := pattern.fullmatch(parts.path.rstrip("/") or "/")):
            named = {name: unquote(value) for name, value in found.groupdict().items()}
            return Request(service, operation, {**query, **_json(body), **named}, region, agent, "rest-json")
    return Request(service, "", {}, region, agent, "rest-json")


def error(request: Request, code: str, message: str, status: int) -> tuple[int, str, bytes, dict[str, str]]:
    """An error as AWS writes it: status, content type, body, headers."""
    spoken, known = request.spoken, uuid.uuid4()
    if spoken == "ec2":
        body = (f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
                f"<RequestID>{known}</RequestID></Response>")
    elif spoken == "query":
        body = (f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
                f"<RequestId>{known}</RequestId></ErrorResponse>")
    elif spoken == "cbor":
        pairs = b"".join(_cbor(text) for text in ("__type", code, "message", message))
        return status, "application/cbor", b"\xa2" + pairs, {"smithy-protocol": "rpc-v2-cbor"}
    else:
        return (status, "application/json", json.dumps({"__type": code, "message": message}).encode(),
                {"x-amzn-errortype": code, "x-amzn-RequestId": str(known)})
    return status, "text/xml", body.encode(), {}


def _cbor(text: str) -> bytes:
    raw = text.encode()
    return b"\x79" + len(raw).to_bytes(2, "big") + raw


@cache
def _model(service: str) -> dict[str, Any]:
    model: dict[str, Any] = Loader().load_service_model(service, "service-2")
    return model


@cache
def _paths(service: str) -> list[tuple[str, str, re.Pattern[str]]]:
    """Operation, method and path of a service with paths; those with the fewest names in them first."""
    found = []
    for name, operation in _model(service)["operations"].items():
        path = operation["http"]["requestUri"].partition("?")[0].rstrip("/") or "/"
        parts = re.split(r"\{(\w+)\+?\}", path)
        pattern = "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>[^/]+)" for i, part in enumerate(parts))
        found.append((len(parts), name, operation["http"]["method"], re.compile(pattern)))
    return [(name, method, pattern) for _, name, method, pattern in sorted(found, key=lambda f: f[0])]


def _json(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}
