"""EKS's Kubernetes versions: which are supported, and for how long. AWS is asked; nothing is known beforehand."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpurunbook.plan import Check
from gpurunbook.targets.eks.account import Account

SOON = 90
"""Days of support below which a new cluster is worth a warning."""
NAME = "EKS version"


@dataclass(frozen=True)
class Version:
    """One version. `status` is STANDARD_SUPPORT, EXTENDED_SUPPORT or UNSUPPORTED; a date AWS does not give is None."""

    number: str
    status: str
    standard_end: dt.date | None
    extended_end: dt.date | None
    default: bool


def describe(account: Account) -> list[Version]:
    """Every version that EKS lists, newest first. Raises AwsError."""
    found = account.pages("eks", "describe_cluster_versions", "clusterVersions", includeAll=True)
    return sorted(map(_version, found), key=lambda v: minor(v.number), reverse=True)


def _version(item: Mapping[str, Any]) -> Version:
    # `status` is the older spelling of `versionStatus`: standard-support for STANDARD_SUPPORT.
    status = item.get("versionStatus") or str(item.get("status", "")).upper().replace("-", "_")
    return Version(item["clusterVersion"], status, _date(item.get("endOfStandardSupportDate")),
                   _date(item.get("endOfExtendedSupportDate")), bool(item.get("defaultVersion")))


def _date(moment: Any) -> dt.date | None:
    if isinstance(moment, str):
        moment = dt.datetime.fromisoformat(moment.replace("Z", "+00:00"))
    if isinstance(moment, dt.datetime):
        return (moment.astimezone(dt.UTC) if moment.tzinfo else moment).date()
    return None


def minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def check(versions: Sequence[Version], wanted: str, today: dt.date, *, support: str = "") -> Check:
    """The state of the version that cluster.yaml names ("" when none). `support`: upgradePolicy.supportType."""
    good = [v.number for v in versions if v.status == "STANDARD_SUPPORT"]
    newest = f'set version: "{good[0]}" in cluster.yaml' if good else "see aws eks describe-cluster-versions"
    later = "about 1 min, then eksctl refuses"
    if not wanted:
        default = next((v.number for v in versions if v.default), "one of its own")
        return Check(NAME, "warn", f"cluster.yaml names none: eksctl would take {default}", newest,
                     "a version, and perhaps a rate, that you did not choose")
    found = next((v for v in versions if v.number == wanted), None)
    if found is None or found.status == "UNSUPPORTED":
        supported = [v.number for v in versions if v.status in ("STANDARD_SUPPORT", "EXTENDED_SUPPORT")]
        return Check(NAME, "fail", f"{wanted} is not supported; supported: {', '.join(supported) or 'none listed'}", newest,
                     later)
    if found.status == "EXTENDED_SUPPORT":
        return Check(NAME, "warn", f"{wanted} is in extended support {_until(found.extended_end, today)}", newest,
                     "the extended rate for each hour of the control plane (see the bill)")
    if found.status != "STANDARD_SUPPORT":
        return Check(NAME, "unknown", f"{wanted}: AWS calls its status {found.status!r}", newest, later)
    evidence = f"{wanted} is in standard support {_until(found.standard_end, today)}"
    if found.standard_end is None:
        return Check(NAME, "unknown", evidence, newest, later)
    ends = f"{found.standard_end.day} {found.standard_end:%b %Y}"
    after = (f"from {ends} on AWS upgrades the control plane by itself" if support == "STANDARD"
             else f"the extended rate from {ends} on (see the bill)")
    return Check(NAME, "warn" if (found.standard_end - today).days <= SOON else "pass", evidence, newest, after)


def _until(end: dt.date | None, today: dt.date) -> str:
    if end is None:
        return "until a date that AWS does not give"
    days = (end - today).days
    if days < 0:
        return f"until {end}, by its date over for {-days} days"
    return f"until {end}: {days} day{'s' * (days != 1)} left"
