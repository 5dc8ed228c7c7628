"""What AWS asks for a thing, from the AWS Pricing API, kept for a week with the date it was read.

A price that cannot be had is None with a reason: never 0, and never a table of ours. AWS is asked with filters, and what
comes back is held against the same filters again, so that a price is only believed when one remains.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import queue
import re
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import platformdirs

from gpurunbook.targets.eks.account import Account, AwsError

PRICING_REGION = "us-east-1"
"""The Pricing API answers only here, in eu-central-1 and in ap-south-1, and for every region."""
FRESH_DAYS, SECONDS = 7, 8.0
HOURLY, MONTHLY = "hour", "GB-month"
UNITS = {"hrs": HOURLY, "hr": HOURLY, "hour": HOURLY, "hours": HOURLY, "gb-mo": MONTHLY, "gb-month": MONTHLY}
"""How AWS spells a unit, in small letters: EC2 says Hrs, EKS Hours, EBS GB-Mo."""
PREFIX = r"(?:EU-|[A-Z]{2,4}[0-9]+-)?"
"""A usage type's region: EUC1-, EU- for eu-west-1, often none for us-east-1. TS- (a trust store's hours) is no region."""
REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-[0-9]+")
VOLUME_TYPES = ("gp3", "gp2", "st1", "sc1")
"""Those billed by size alone, but for what a gp3 is given above its 3000 IOPS and 125 MiB/s."""
BALANCERS = {"application": "Load Balancer-Application", "network": "Load Balancer-Network",
             "gateway": "Load Balancer-Gateway", "classic": "Load Balancer"}


@dataclass(frozen=True, order=True)
class Item:
    """One thing that AWS bills. `type` only where the price depends on it: instance, volume and load balancer."""

    kind: str
    type: str = ""


CONTROL_PLANE = Item("control-plane")
EXTENDED_SUPPORT = Item("extended-support")
"""What extended support adds to the control plane's price; both are billed."""
NAT_GATEWAY, ADDRESS, IDLE_ADDRESS = Item("nat-gateway"), Item("address"), Item("idle-address")
LOG_STORAGE = Item("log-storage")


def instance(instance_type: str) -> Item:
    """An EC2 instance of this type: Linux, On-Demand, shared tenancy."""
    return Item("instance", instance_type)


def volume(volume_type: str) -> Item:
    """Storage in an EBS volume of this type, by GiB and month."""
    return Item("volume", volume_type)


def load_balancer(balancer_type: str) -> Item:
    """A load balancer: application, network, gateway or classic; without what it is charged by traffic."""
    return Item("load-balancer", balancer_type)


@dataclass(frozen=True)
class Price:
    """US dollars per `unit` (hour or GB-month) and the day they were read; or None and the reason."""

    usd: Decimal | None
    unit: str = ""
    read: dt.date | None = None
    reason: str = ""


@dataclass(frozen=True)
class Prices:
    """What was found of what was wanted, in one region.

    Attributes:
        found: item -> price, known or not.
        unkept: why the prices could not be written to the cache; they are as good without.
    """

    region: str
    today: dt.date
    found: Mapping[Item, Price]
    unkept: str = ""

    def price(self, item: Item) -> Price:
        return self.found.get(item, Price(None, reason="not looked up"))

    def usd(self, item: Item) -> Decimal | None:
        """US dollars per unit; None when unknown."""
        return self.price(item).usd

    @property
    def read(self) -> dt.date | None:
        """The day on which the oldest price was read; None when no price is known."""
        return min((price.read for price in self.found.values() if price.read), default=None)

    @property
    def note(self) -> str:
        """"prices of 2026-11-01, 21 days old" when any is older than a week, else empty."""
        if self.read is None or (age := (self.today - self.read).days) <= FRESH_DAYS:
            return ""
        return f"prices of {self.read}, {age} days old"


def look_up(account: Account, wanted: Sequence[Item], *, today: dt.date, cache: Path | None = None,
            seconds: float = SECONDS) -> Prices:
    """Prices in the account's region: from the cache when at most 7 days old, else from AWS, all at once.

    An older price is used only when AWS cannot be asked; `Prices.note` then says how old. Never raises for AWS's sake:
    what cannot be had within `seconds` is None with a reason. `cache` is a folder, in the user's cache when not given.
    """
    if not REGION.fullmatch(account.region):  # it becomes the name of a file
        return Prices(account.region, today, {item: Price(None, reason=f"{account.region!r} is no region") for item in wanted})
    file = (cache or _cache()) / f"{account.region}.json"
    kept = {item: price for item, price in _read(file, account.region).items() if price.read and price.read <= today}
    fresh = {item: price for item, price in kept.items() if (today - (price.read or today)).days <= FRESH_DAYS}
    answered, failed = _ask(account, [i for i in dict.fromkeys(wanted) if i not in fresh], today, seconds)
    known = {item: price for item, price in answered.items() if price.usd is not None}
    old = {item: kept[item] for item in failed if item in kept}
    found = {**{item: Price(None, reason=reason) for item, reason in failed.items()}, **answered, **old, **fresh}
    return Prices(account.region, today, {item: found[item] for item in wanted},
                  _write(file, account.region, known) if known else "")


def _ask(account: Account, items: Sequence[Item], today: dt.date, seconds: float) -> tuple[dict[Item, Price], dict[Item, str]]:
    """Ask for all at once. Returns what AWS answered, and for the others why AWS could not be asked."""
    answers: queue.SimpleQueue[tuple[Item, Price | Exception]] = queue.SimpleQueue()

    def ask(item: Item) -> None:
        try:
            answers.put((item, _one(account, item, today)))
        except Exception as error:  # handed to the thread that waits, which raises what is not AWS's
            answers.put((item, error))

    for item in items:  # daemons: one that AWS keeps waiting must not hold up the end of the program
        threading.Thread(target=ask, args=(item,), daemon=True, name=f"price of {item.kind}").start()
    answered: dict[Item, Price] = {}
    failed: dict[Item, str] = {}
    end = time.monotonic() + seconds
    while (waiting := [item for item in items if item not in answered and item not in failed]):
        try:
            item, answer = answers.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return answered, {**failed, **dict.fromkeys(waiting, f"no answer from AWS within {seconds:g} s")}
        if isinstance(answer, Price):
            answered[item] = answer
        elif isinstance(answer, AwsError):
            failed[item] = _why(answer)
        else:
            raise answer
    return answered, failed


def _why(error: AwsError) -> str:
    if error.denied:
        return "no permission pricing:GetProducts"
    return "the credentials are no longer good" if error.expired else f"pricing:GetProducts: {error.code}"


@dataclass(frozen=True)
class _Listing:
    """Where AWS lists a price: `usage` is the usage type without its region, `terms` are attribute -> value."""

    service: str
    usage: str
    unit: str
    terms: dict[str, str]


def _listing(item: Item) -> _Listing | None:
    """None for a kind or type that is not looked up.

    Sources: AWS's lists of usage types for EBS, Elastic Load Balancing and CloudWatch Logs; public answers of the Pricing
    API for EKS (also that extended support is listed as what it adds) and public IPv4 addresses, which have no family.
    """
    match item.kind:
        case "control-plane":
            return _Listing("AmazonEKS", "AmazonEKS-Hours:perCluster", HOURLY, {"operation": "CreateOperation"})
        case "extended-support":
            return _Listing("AmazonEKS", "AmazonEKS-Hours:extendedSupport", HOURLY, {"operation": "ExtendedSupport"})
        case "instance":
            return _Listing("AmazonEC2", f"BoxUsage:{item.type}", HOURLY, {
                "instanceType": item.type, "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA",
                "capacitystatus": "Used", "operation": "RunInstances"})
        case "volume" if item.type in VOLUME_TYPES:
            return _Listing("AmazonEC2", f"EBS:VolumeUsage.{item.type}", MONTHLY,
                            {"productFamily": "Storage", "volumeApiName": item.type})
        case "nat-gateway":
            return _Listing("AmazonEC2", "NatGateway-Hours", HOURLY, {"productFamily": "NAT Gateway"})
        case "address":
            return _Listing("AmazonVPC", "PublicIPv4:InUseAddress", HOURLY, {"group": "VPCPublicIPv4Address"})
        case "idle-address":
            return _Listing("AmazonVPC", "PublicIPv4:IdleAddress", HOURLY, {"group": "VPCPublicIPv4Address"})
        case "load-balancer" if item.type in BALANCERS:
            return _Listing("AWSELB", "LoadBalancerUsage", HOURLY, {"productFamily": BALANCERS[item.type]})
        case "log-storage":
            return _Listing("AmazonCloudWatch", "TimedStorage-ByteHrs", MONTHLY, {"productFamily": "Storage Snapshot"})
    return None


def _one(account: Account, item: Item, today: dt.date) -> Price:
    """Raises AwsError when AWS cannot be asked."""
    listing = _listing(item)
    if listing is None:
        return Price(None, reason=f"the price of {item.kind} {item.type}".rstrip() + " is not looked up")
    terms = {"regionCode": account.region, **listing.terms}
    products = account.pages("pricing", "get_products", "PriceList", region=PRICING_REGION, ServiceCode=listing.service,
                             FormatVersion="aws_v1",
                             Filters=[{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in terms.items()])
    return pick(products, item, account.region, today)


def pick(products: Iterable[str | Mapping[str, Any]], item: Item, region: str, today: dt.date) -> Price:
    """The one price among the products of GetProducts (JSON text, or read already); None with a reason otherwise."""
    listing = _listing(item)
    if listing is None:
        return Price(None, reason="not looked up")
    try:
        amounts = {usd for product in products for usd in _amounts(product, listing, region)}
    except (ValueError, TypeError, KeyError, AttributeError, InvalidOperation):
        return Price(None, reason="AWS's answer cannot be read")  # nor can it be known whether it matters
    if not amounts:
        return Price(None, reason=f"AWS lists no price for it in {region}")
    if len(amounts) > 1:
        return Price(None, reason=f"AWS lists {len(amounts)} prices for it")
    if (usd := amounts.pop()) == 0:
        return Price(None, reason="AWS lists it at 0, which it cannot cost")
    return Price(usd, listing.unit, today)


def _amounts(product: str | Mapping[str, Any], listing: _Listing, region: str) -> Iterable[Decimal]:
    document = json.loads(product) if isinstance(product, str) else product
    described = document["product"]
    facts = {"productFamily": described.get("productFamily", ""), **described["attributes"]}
    if not re.fullmatch(PREFIX + re.escape(listing.usage), facts.get("usagetype", "")):
        return
    if any(facts.get(field) != value for field, value in {"regionCode": region, **listing.terms}.items()):
        return
    if any(facts.get(field, value) != value for field, value in (("locationType", "AWS Region"), ("marketoption", "OnDemand"))):
        return
    for term in document["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            if "USD" in dimension["pricePerUnit"] and UNITS.get(dimension["unit"].lower()) == listing.unit:
                yield _decimal(dimension["pricePerUnit"]["USD"])


def _decimal(text: str) -> Decimal:
    """Raises ValueError or InvalidOperation for what is no amount of money."""
    amount = Decimal(text)
    if not amount.is_finite() or amount < 0:
        raise ValueError(text)
    return amount


def _cache() -> Path:
    """The user's; prices of an endpoint that is not AWS's own (a stand-in, a proxy) are kept apart from AWS's."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    kept = platformdirs.user_cache_path("gpurunbook") / "prices"
    return kept / hashlib.sha256(endpoint.encode()).hexdigest()[:8] if endpoint else kept


def _read(file: Path, region: str) -> dict[Item, Price]:
    """What the cache holds; nothing when it is absent or damaged, for then AWS is asked."""
    try:
        document = json.loads(file.read_bytes())
        if document["region"] != region:
            return {}
        read = {Item(row["kind"], row["type"]): Price(_decimal(row["usd"]), row["unit"], dt.date.fromisoformat(row["read"]))
                for row in document["prices"]}
    except (OSError, ValueError, TypeError, KeyError, InvalidOperation):
        return {}
    return {item: price for item, price in read.items() if price.usd and (at := _listing(item)) and price.unit == at.unit}


def _write(file: Path, region: str, new: Mapping[Item, Price]) -> str:
    """Add to the cache, whole or not at all, readable by the user only. Returns why it could not be written, or ""."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        rows = [{"kind": item.kind, "type": item.type, "usd": str(price.usd), "unit": price.unit, "read": str(price.read)}
                for item, price in sorted({**_read(file, region), **new}.items())]
        descriptor, name = tempfile.mkstemp(prefix=f".{region}-", dir=file.parent)  # 0600; a name of its own per writer
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as temporary:
                json.dump({"region": region, "prices": rows}, temporary, indent=1)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        return f"{file}: {error.strerror}"
    return ""
