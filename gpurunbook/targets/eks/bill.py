"""What a cluster costs: by part and hour, for the planned time, so far, and what a leftover goes on costing. No AWS here.

An unknown price is None and is never taken for 0: a sum that lacks one reads "at least".
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Any

from gpurunbook import show
from gpurunbook.config import ClusterConfig
from gpurunbook.plan import Check
from gpurunbook.targets.eks import made
from gpurunbook.targets.eks import prices as listed
from gpurunbook.targets.eks.prices import Item, Prices

MONTH_HOURS = Decimal(730)
"""AWS's own figure for what is billed by the month."""
LEFT_OUT = ("not included: data transfer, what passes through the NAT gateway (such as images that are pulled) and what "
            "load balancers charge by traffic")
FREE = {"security-group", "stack", "oidc-provider", "key-pair", "target-group", "network-interface", "launch-template",
        "auto-scaling-group", "node-group"}
"""Kinds of leftover for which AWS asks nothing, by its own documentation."""
LEFTOVER_ITEMS = (listed.CONTROL_PLANE, listed.EXTENDED_SUPPORT, listed.NAT_GATEWAY, listed.IDLE_ADDRESS, listed.LOG_STORAGE,
                  *map(listed.volume, ("gp3", "gp2")), *map(listed.load_balancer, ("network", "application", "classic")))
"""What `leftover_price` may need, for `prices.look_up`; instance types come on top."""
ASK = "allow pricing:GetProducts (manifests/aws/reader.json), then: gpurunbook preflight"


@dataclass(frozen=True)
class Part:
    """One line of a bill.

    Attributes:
        count, unit: how many of what, such as 2 and "m5.xlarge".
        per_hour: US dollars an hour for all of them; None when the price is unknown.
        note: an assumption, or why the price is unknown.
        after: hours from the start until it is billed.
        whole_hours: AWS bills a begun hour in full.
    """

    name: str
    count: int
    unit: str
    per_hour: Decimal | None
    note: str = ""
    after: Decimal = Decimal(0)
    whole_hours: bool = False

    def cost(self, hours: Decimal) -> Decimal | None:
        """US dollars `hours` after the start."""
        if self.per_hour is None:
            return None
        billed = max(Decimal(0), hours - self.after)
        return self.per_hour * (billed.to_integral_value(ROUND_CEILING) if self.whole_hours else billed)


@dataclass(frozen=True)
class Cost:
    """US dollars of what is known, and the names of the parts whose price is not."""

    usd: Decimal
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not self.unknown:
            return dollars(self.usd)
        return f"at least {dollars(self.usd)}" if self.usd else "unknown"


@dataclass(frozen=True)
class Bill:
    """What a cluster costs.

    Attributes:
        title: which cluster, and where.
        hours: the planned time.
        stale: "prices of 2026-11-01, 21 days old" when they are, else empty.
        read: the day of the oldest price; None when none is known.
    """

    title: str
    parts: tuple[Part, ...]
    hours: Decimal
    stale: str = ""
    read: dt.date | None = None

    @property
    def per_hour(self) -> Decimal:
        """US dollars an hour, from the start, of what is known."""
        return sum((p.per_hour for p in self.parts if p.per_hour is not None and not p.after), Decimal(0))

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of the parts without a price."""
        return tuple(p.name for p in self.parts if p.per_hour is None)

    @property
    def why_unknown(self) -> str:
        """The reasons, each once."""
        return "; ".join(dict.fromkeys(p.note for p in self.parts if p.per_hour is None))

    def total(self, hours: float | Decimal) -> Decimal:
        """US dollars, of what is known, when everything runs for so long."""
        return sum((p.cost(_decimal(hours)) or Decimal(0) for p in self.parts), Decimal(0))

    def cost(self, hours: float | Decimal) -> Cost:
        """`total`, with what it lacks."""
        return Cost(self.total(hours), self.unknown)

    @property
    def sentence(self) -> str:
        """For a status line: "$1.02/h" or "at least $0.63/h, price of gpu-workers unknown"."""
        names, text = self.unknown, f"{dollars(self.per_hour)}/h"
        if names:
            said = " and ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"
            text = f"at least {text}, price of {said} unknown" if self.per_hour else f"price unknown ({self.why_unknown})"
        return f"{text} ({self.stale})" if self.stale else text

    @property
    def table(self) -> show.Table:
        rows = [[p.name, f"{p.count} × {p.unit}", dollars(p.per_hour), p.note] for p in self.parts]
        rows += [["total", "an hour", str(Cost(self.per_hour, self.unknown)), ""],
                 ["total", _hours(self.hours), str(self.cost(self.hours)), ""]]
        dated = self.stale or (f"prices of {self.read}" if self.read else "no price is known")
        return show.Table(["part", "how many", "US dollars an hour", "note"], rows,
                          f"{self.title}, On-Demand, {dated}; {LEFT_OUT}")

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "hours": str(self.hours), "stale": self.stale, "read": str(self.read or ""),
                "parts": [{"name": p.name, "count": p.count, "unit": p.unit, "note": p.note, "after": str(p.after),
                           "per_hour": None if p.per_hour is None else str(p.per_hour), "whole_hours": p.whole_hours}
                          for p in self.parts]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Bill:
        """The bill that `to_json` wrote. Raises KeyError, TypeError or ArithmeticError for anything else."""
        parts = tuple(Part(p["name"], p["count"], p["unit"], None if p["per_hour"] is None else Decimal(p["per_hour"]),
                           p["note"], Decimal(p["after"]), p["whole_hours"]) for p in data["parts"])
        return cls(data["title"], parts, Decimal(data["hours"]), data["stale"],
                   dt.date.fromisoformat(data["read"]) if data["read"] else None)


def items(cluster: ClusterConfig) -> tuple[Item, ...]:
    """What `estimate` needs prices of, for `prices.look_up`."""
    has = made.of(cluster)
    return (listed.CONTROL_PLANE, listed.EXTENDED_SUPPORT, listed.NAT_GATEWAY, listed.ADDRESS,
            *dict.fromkeys(listed.volume(has.volume(group.name)) for group in cluster.groups),
            *dict.fromkeys(listed.instance(group.instance_type) for group in cluster.groups))


def estimate(cluster: ClusterConfig, prices: Prices, *, extended: bool, hours: float, standard_for: float | None = None) -> Bill:
    """What the cluster costs when all of it runs, at the desired size.

    Args:
        extended: its Kubernetes version is in extended support, which AWS bills on top.
        hours: the planned time.
        standard_for: hours until the version leaves standard support, where supportType is EXTENDED; from then on, if
            that is within the planned time, extended support is billed.
    """
    has = made.of(cluster)
    control = _part("control plane", 1, "cluster", listed.CONTROL_PLANE, prices, "standard rate")
    parts = [control]
    leaves = not extended and standard_for is not None and standard_for < hours
    if extended or leaves:
        after = _decimal(max(0.0, standard_for or 0)) if leaves else Decimal(0)
        part = _part("extended support", 1, "cluster", listed.EXTENDED_SUPPORT, prices, after=after)
        if part.per_hour is not None and control.per_hour is not None:
            rate = f"{dollars(control.per_hour + part.per_hour)}/h with the control plane"
            standard = f"{dollars(control.per_hour)}/h"
            part = replace(part, note=f"from hour {_number(after)} on, when standard support ends: {rate}, until then {standard}"
                           if leaves else f"{rate}; a version in standard support: {standard}")
        parts.append(part)
    groups = [group for group in cluster.groups if group.desired]
    for group in groups:
        parts.append(_part(group.name, group.desired, group.instance_type, listed.instance(group.instance_type), prices))
    for group in groups:
        volume = has.volume(group.name)
        parts.append(_part(f"{group.name} volumes", group.desired, f"{group.volume_gib} GiB {volume}", listed.volume(volume),
                           prices, scale=group.volume_gib / MONTH_HOURS))
    if has.nats:
        which = "eksctl's default, one for all zones" if has.nats == 1 else "one in each zone, as cluster.yaml says"
        parts.append(_part("NAT gateway", has.nats, "gateway", listed.NAT_GATEWAY, prices,
                           f"{which}; a begun hour counts in full", whole_hours=True))
        parts.append(_part("its Elastic IP", has.nats, "address", listed.ADDRESS, prices))
    if public := sum(group.desired for group in groups if group.name not in has.private):
        parts.append(_part("node addresses", public, "public IPv4", listed.ADDRESS, prices,
                           "eksctl's default; none with privateNetworking"))
    return Bill(f"{cluster.name} in {cluster.region}", tuple(parts), _decimal(hours), prices.note, prices.read)


def _part(name: str, count: int, unit: str, item: Item, prices: Prices, note: str = "", *, scale: Decimal = Decimal(1),
          after: Decimal = Decimal(0), whole_hours: bool = False) -> Part:
    price = prices.price(item)
    if price.usd is None:
        return Part(name, count, unit, None, price.reason, after, whole_hours)
    return Part(name, count, unit, price.usd * scale * count, note, after, whole_hours)


def so_far(bill: Bill, started: dt.datetime, now: dt.datetime, *, began: Mapping[str, dt.datetime] | None = None,
           ended: Mapping[str, dt.datetime] | None = None) -> Cost:
    """What has been spent, rather too much than too little: a part counts from when its creation began.

    Args:
        started: when the creation of the cluster began; what `began` does not name counts from here.
        began, ended: part's name -> when its creation began, and when it was seen to be gone.
    """
    usd = Decimal(0)
    for part in bill.parts:
        seconds = ((ended or {}).get(part.name, now) - (began or {}).get(part.name, started)).total_seconds()
        usd += part.cost(_decimal(seconds) / 3600) or Decimal(0)
    return Cost(usd, bill.unknown)


def allowed(bill: Bill, *, max_hours: float, budget: float) -> list[Check]:
    """Whether the longest allowed time stays within the budget. Unknown when a price is, unless the rest is too much."""
    for name, option, value in (("time limit", "--max-hours", max_hours), ("budget", "--budget", budget)):
        if not (math.isfinite(value) and value > 0):
            return [Check(name, "fail", f"{option} is {value:g}", f"give a number above 0, such as {option} 4",
                          "a cluster that is forgotten is billed until someone sees it")]
    limit, cost, time = _decimal(budget), bill.cost(max_hours), _hours(_decimal(max_hours))
    found = f"{cost} for {time} ({bill.sentence}); the budget is {dollars(limit)}"
    later = f"{bill.sentence}, until someone sees it"
    checks = []
    if cost.usd > limit:
        dear = cost.usd.quantize(Decimal("0.01"), ROUND_CEILING)
        fix = f"raise it to --budget {dear}, or lower --max-hours, or choose smaller groups in cluster.yaml"
        checks.append(Check("budget", "fail", found, fix, later))
    elif cost.unknown:
        found += f"; the total cannot be known: {bill.why_unknown}"
        checks.append(Check("budget", "unknown", found, ASK, later))
    else:
        checks.append(Check("budget", "pass", found, "", later))
    if bill.stale:
        checks.append(Check("age of the prices", "warn", bill.stale, ASK, "a total that is off by what AWS has changed since"))
    return checks


def leftover_price(kind: str, size: float, prices: Prices, *, type: str = "") -> Decimal | None:
    """US dollars an hour of something left over; None when unknown, 0 only for what AWS does not charge.

    Args:
        kind: volume, address (one that nothing uses), load-balancer, nat-gateway, cluster, log-group, instance, or a free
            kind (`FREE`).
        size: GiB of a volume, stored bytes of a log group; else not looked at.
        type: of a volume (gp3), load balancer (network, application, gateway, classic), instance; of a cluster "extended"
            in extended support, "unknown" where nobody knows.
    """
    if kind in FREE:
        return Decimal(0)
    if (kind, type) == ("cluster", "unknown"):
        return None
    wanted: dict[str, tuple[tuple[Item, ...], Decimal]] = {
        "volume": ((listed.volume(type or made.VOLUME_TYPE),), _decimal(size) / MONTH_HOURS),
        "address": ((listed.IDLE_ADDRESS,), Decimal(1)),
        "load-balancer": ((listed.load_balancer(type),), Decimal(1)),
        "nat-gateway": ((listed.NAT_GATEWAY,), Decimal(1)),
        "cluster": ((listed.CONTROL_PLANE, *[listed.EXTENDED_SUPPORT] * (type == "extended")), Decimal(1)),
        "log-group": ((listed.LOG_STORAGE,), _decimal(size) / 2**30 / MONTH_HOURS),
        "instance": ((listed.instance(type),), Decimal(1))}
    needed, scale = wanted.get(kind, ((), Decimal(1)))
    found = [prices.usd(item) for item in needed]
    known = [usd for usd in found if usd is not None]
    return sum(known, Decimal(0)) * scale if known and len(known) == len(found) else None


def dollars(usd: Decimal | None) -> str:
    """"$0.53", "$1,024.00", "$0.0053" below ten cents, "under $0.0001", "unknown"."""
    if usd is None:
        return "unknown"
    if usd >= Decimal("0.1") or usd == 0:
        return f"${usd.quantize(Decimal('0.01'), ROUND_HALF_UP):,}"
    if usd < Decimal("0.0001"):
        return "under $0.0001"
    whole, _, rest = str(usd.quantize(Decimal("0.0001"), ROUND_HALF_UP)).partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"


def _hours(hours: Decimal) -> str:
    return f"{_number(hours)} h"


def _number(value: Decimal) -> str:
    return f"{round(value, 2).normalize():f}"


def _decimal(value: float | Decimal) -> Decimal:
    """Through text: 0.1 is a tenth."""
    return value if isinstance(value, Decimal) else Decimal(str(value))
