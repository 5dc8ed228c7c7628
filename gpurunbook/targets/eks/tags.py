"""How what a run made is told from everything else in an account: three tags on all of it, and the cluster's own."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Any

RUN, OWNER, EXPIRES = "gpurunbook/run", "gpurunbook/owner", "gpurunbook/expires-at"
"""Tag keys: run id; who started it; when it should be gone (UTC, ISO 8601, `2026-11-22T21:00:00Z`)."""


def value(text: str) -> str:
    """Text as a tag's value may be: at most 256 characters, and none that AWS, or eksctl's --tags, would refuse."""
    return re.sub(r"[^\w.:/@+-]", "-", text, flags=re.ASCII)[:256]


def of_run(run_id: str, owner: str, expires: dt.datetime) -> dict[str, str]:
    """The tags of everything that a run makes."""
    return {RUN: run_id, OWNER: value(owner), EXPIRES: expires.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}


def flat(tags: Iterable[Mapping[str, Any]] | Mapping[str, str] | None) -> dict[str, str]:
    """Tags in any of AWS's spellings ([{Key, Value}], [{key, value}], {key: value}) as a mapping."""
    if isinstance(tags, Mapping):
        return dict(tags)
    return {t.get("Key", t.get("key", "")): t.get("Value", t.get("value", "")) for t in tags or ()}


def expiry(tags: Mapping[str, str]) -> dt.datetime | None:
    """When it should be gone; None when the tag is absent or no time."""
    try:
        moment = dt.datetime.fromisoformat(tags.get(EXPIRES, "").replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
