"""The bill: every part with its price, a sum that never takes unknown for 0, and the budget."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpurunbook.config import ClusterConfig, NodeGroup
from gpurunbook.targets.eks import bill as bills
from gpurunbook.targets.eks import inventory, made, prices
from gpurunbook.targets.eks.bill import Bill, Cost, Part, allowed, dollars, estimate, leftover_price, so_far
from gpurunbook.targets.eks.prices import Item, Price, Prices

TODAY = dt.date(2026, 11, 22)
START = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
GPU, CPU = prices.instance("g4dn.xlarge"), prices.instance("m5.xlarge")
USD = {prices.CONTROL_PLANE: "0.10", prices.EXTENDED_SUPPORT: "0.50", GPU: "0.658", CPU: "0.23", prices.NAT_GATEWAY: "0.052",
       prices.ADDRESS: "0.005", prices.IDLE_ADDRESS: "0.0051", prices.volume("gp3"): "0.073", prices.volume("gp2"): "0.146",
       prices.load_balancer("network"): "0.027", prices.LOG_STORAGE: "0.0292"}
"""Invented; a volume's is a tenth of a thousandth of a dollar an hour for each GiB."""


def group(name: str, instance_type: str, desired: int, gib: int) -> NodeGroup:
    return NodeGroup(name=name, instance_type=instance_type, desired=desired, min=0, max=9, volume_gib=gib, ami="",
                     ami_family="Ubuntu2404", labels={}, taints=(), zones=(), managed=False)


def cluster(*groups: NodeGroup) -> ClusterConfig:
    return ClusterConfig(path=Path("/nowhere/cluster.yaml"), name="gpu-cluster", region="eu-central-1", version="1.36",
                         warnings=(), groups=groups or (
                             group("gpu-workers", "g4dn.xlarge", 1, 100), group("cpu-workers", "m5.xlarge", 2, 50)))


def listed(*without: Item, usd: Mapping[Item, str] = USD, read: dt.date = TODAY) -> Prices:
    found = {item: Price(Decimal(text), "hour", read) for item, text in usd.items()}
    return Prices("eu-central-1", TODAY, found | {i: Price(None, reason="no permission pricing:GetProducts") for i in without})


def bill(*without: Item, extended: bool = False, hours: float = 8, standard_for: float | None = None) -> Bill:
    return estimate(cluster(), listed(*without), extended=extended, hours=hours, standard_for=standard_for)


def part(name: str, of: Bill) -> Part:
    (found,) = (p for p in of.parts if p.name == name)
    return found


@pytest.mark.parametrize(("name", "count", "unit", "per_hour"), [
    ("control plane", 1, "cluster", "0.10"), ("gpu-workers", 1, "g4dn.xlarge", "0.658"), ("cpu-workers", 2, "m5.xlarge", "0.46"),
    ("gpu-workers volumes", 1, "100 GiB gp3", "0.01"), ("cpu-workers volumes", 2, "50 GiB gp3", "0.01"),
    ("NAT gateway", 1, "gateway", "0.052"), ("its Elastic IP", 1, "address", "0.005"),
    ("node addresses", 3, "public IPv4", "0.015")])
def test_each_part_has_its_price(name: str, count: int, unit: str, per_hour: str) -> None:
    found = part(name, bill())
    assert (found.count, found.unit) == (count, unit)
    assert found.per_hour is not None
    assert round(found.per_hour, 12) == Decimal(per_hour)


FILE = """
metadata: {name: gpu-cluster, region: eu-central-1}
nodeGroups:
- {name: gpu-workers, volumeType: gp2}
managedNodeGroups:
- {name: cpu-workers, privateNetworking: true}
"""


def from_file(tmp_path: Path, text: str) -> Bill:
    (tmp_path / "cluster.yaml").write_text(text)
    read = cluster().model_copy(update={"path": tmp_path / "cluster.yaml"})
    return estimate(read, Prices("eu-central-1", TODAY, {item: listed().price(item) for item in bills.items(read)}),
                    extended=False, hours=8)


def test_volume_types_and_private_nodes_are_read_from_the_file(tmp_path: Path) -> None:
    found = from_file(tmp_path, FILE)
    assert [part(f"{name} volumes", found).unit for name in ("gpu-workers", "cpu-workers")] == ["100 GiB gp2", "50 GiB gp3"]
    assert part("gpu-workers volumes", found).per_hour == 100 * Decimal("0.146") / 730
    assert part("node addresses", found).count == 1
    assert part("NAT gateway", found).count == 1
    assert found.unknown == ()


@pytest.mark.parametrize(("vpc", "count"), [("nat: {gateway: HighlyAvailable}", 3), ("nat: {gateway: Single}", 1),
                                            ("nat: {gateway: Disable}", 0), ("id: vpc-1", 0)])
def test_nat_gateways_are_those_that_the_file_asks_for(tmp_path: Path, vpc: str, count: int) -> None:
    found = from_file(tmp_path, f"{FILE}vpc: {{{vpc}}}\n")
    counts = {p.name: p.count for p in found.parts}
    assert (counts.get("NAT gateway", 0), counts.get("its Elastic IP", 0)) == (count, count)
    if count == 3:
        assert part("NAT gateway", found).note.startswith("one in each zone")
        assert part("NAT gateway", found).per_hour == 3 * Decimal("0.052")


def test_a_private_cluster_has_no_public_addresses(tmp_path: Path) -> None:
    assert {"NAT gateway", "node addresses"}.isdisjoint(
        p.name for p in from_file(tmp_path, f"{FILE}privateCluster: {{enabled: true}}\n").parts)


@pytest.mark.parametrize("volume", ["volumeType: io2, volumeIOPS: 4000", "volumeIOPS: 6000", "volumeThroughput: 500"])
def test_a_volume_that_size_alone_does_not_price_is_unknown(tmp_path: Path, volume: str) -> None:
    found = from_file(tmp_path, FILE.replace("volumeType: gp2", volume))
    assert found.unknown == ("gpu-workers volumes",)


def test_without_a_file_eksctls_defaults_hold() -> None:
    assert made.of(cluster()) == made.Made()


def test_the_parts_add_up() -> None:
    found = bill()
    assert len(found.parts) == 8
    assert found.unknown == ()
    assert round(found.per_hour, 12) == Decimal("1.31")
    assert round(found.total(8), 12) == Decimal("10.48")
    assert str(found.cost(8)) == "$10.48"
    assert found.sentence == "$1.31/h"


def test_extended_support_is_billed_on_top_and_both_rates_are_shown() -> None:
    found = bill(extended=True)
    assert found.per_hour - bill().per_hour == Decimal("0.50")
    assert bill(extended=True, standard_for=4) == found, "it is over already"
    assert part("extended support", found).note == "$0.60/h with the control plane; a version in standard support: $0.10/h"


def test_standard_support_that_ends_within_the_time_is_billed_from_then() -> None:
    found = bill(hours=48, standard_for=36)
    assert round(found.per_hour, 12) == Decimal("1.31")
    assert found.total(36) == bill(hours=48).total(36)
    assert found.total(48) - bill(hours=48).total(48) == Decimal("6.00")
    assert part("extended support", found).note == (
        "from hour 36 on, when standard support ends: $0.60/h with the control plane, until then $0.10/h")


@pytest.mark.parametrize("standard_for", [None, 8, 240])
def test_standard_support_that_ends_later_is_not_on_the_bill(standard_for: float | None) -> None:
    assert [p.name for p in bill(standard_for=standard_for).parts if p.name == "extended support"] == []


def test_a_group_of_none_costs_nothing_and_needs_no_price() -> None:
    found = estimate(cluster(group("gpu-workers", "g4dn.xlarge", 1, 100), group("later", "p5.48xlarge", 0, 500)), listed(),
                     extended=False, hours=1)
    assert [p.name for p in found.parts if p.name.startswith("later")] == []
    assert found.unknown == ()


def test_the_items_to_look_up_are_those_that_are_needed() -> None:
    everything = listed(usd={item: USD[item] for item in bills.items(cluster())})
    for extended in (False, True):
        assert estimate(cluster(), everything, extended=extended, hours=1).unknown == ()


@pytest.mark.parametrize(("without", "unknown"), [
    ([prices.CONTROL_PLANE], ("control plane",)), ([GPU], ("gpu-workers",)),
    ([prices.volume("gp3")], ("gpu-workers volumes", "cpu-workers volumes")), ([prices.NAT_GATEWAY], ("NAT gateway",)),
    ([prices.ADDRESS], ("its Elastic IP", "node addresses"))])
def test_an_unknown_price_is_named_and_never_nothing(without: list[Item], unknown: tuple[str, ...]) -> None:
    found = bill(*without)
    assert found.unknown == unknown
    assert all(part(name, found).per_hour is None for name in unknown)
    assert all(part(name, found).note == "no permission pricing:GetProducts" for name in unknown)
    assert str(found.cost(8)).startswith("at least $")
    assert found.sentence.startswith("at least $")
    assert found.total(8) < bill().total(8)


def test_the_extended_rate_may_be_unknown() -> None:
    found = bill(prices.EXTENDED_SUPPORT, extended=True)
    assert found.unknown == ("extended support",)
    assert found.sentence == "at least $1.31/h, price of extended support unknown"


@pytest.mark.parametrize(("without", "sentence"), [
    ([GPU], "at least $0.65/h, price of gpu-workers unknown"),
    ([GPU, CPU], "at least $0.19/h, price of gpu-workers and cpu-workers unknown"),
    ([GPU, CPU, prices.CONTROL_PLANE], "at least $0.092/h, price of control plane and 2 more unknown"),
    (list(USD), "price unknown (no permission pricing:GetProducts)")])
def test_the_sentence_says_what_is_unknown(without: list[Item], sentence: str) -> None:
    assert bill(*without).sentence == sentence


def test_old_prices_are_marked_wherever_money_is_said() -> None:
    old = estimate(cluster(), listed(read=dt.date(2026, 11, 1)), extended=False, hours=8)
    assert old.sentence == "$1.31/h (prices of 2026-11-01, 21 days old)"
    assert "prices of 2026-11-01, 21 days old" in old.table.caption
    assert [c.state for c in allowed(old, max_hours=8, budget=20)] == ["pass", "warn"]


def test_the_table_has_the_total_and_says_what_is_left_out() -> None:
    table = bill(GPU).table
    rows = {str(row[0]): row for row in table.rows[:-2]}
    assert rows["gpu-workers"] == ["gpu-workers", "1 × g4dn.xlarge", "unknown", "no permission pricing:GetProducts"]
    assert rows["cpu-workers"][2] == "$0.46"
    assert [row[:3] for row in table.rows[-2:]] == [["total", "an hour", "at least $0.65"], ["total", "8 h", "at least $5.22"]]
    for words in ("gpu-cluster in eu-central-1", "prices of 2026-11-22", "not included: data transfer", "images that are pulled"):
        assert words in table.caption
    assert [row[2] for row in bill().table.rows[-2:]] == ["$1.31", "$10.48"]
    assert "no price is known" in bill(*USD).table.caption


@pytest.mark.parametrize("found", [bill(), bill(GPU, prices.NAT_GATEWAY), bill(extended=True), bill(hours=48, standard_for=36.5),
                                   bill(*USD), replace(bill(), stale="prices of 2026-11-01, 21 days old")])
def test_a_bill_comes_back_from_a_journal_as_it_was(found: Bill) -> None:
    assert Bill.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_what_was_spent_counts_from_when_each_creation_began() -> None:
    found = bill()
    now, ready = START + dt.timedelta(hours=3), START + dt.timedelta(hours=1)
    everything = so_far(found, START, now)
    assert everything == Cost(found.total(3))
    later = so_far(found, START, now, began={"gpu-workers": ready})
    assert everything.usd - later.usd == Decimal("0.658")
    gone = so_far(found, START, now, began={"gpu-workers": ready}, ended={"cpu-workers": ready})
    assert later.usd - gone.usd == Decimal("0.92")


def test_what_was_spent_is_never_below_nothing() -> None:
    assert so_far(bill(), START, START - dt.timedelta(hours=1)) == Cost(Decimal(0))
    assert so_far(bill(), START, START, began={"gpu-workers": START + dt.timedelta(hours=1)}).usd == 0


def test_a_begun_hour_of_the_nat_gateway_counts_in_full() -> None:
    one = replace(bill(), parts=(part("NAT gateway", bill()),))
    assert so_far(one, START, START + dt.timedelta(seconds=1)).usd == Decimal("0.052")
    assert so_far(one, START, START + dt.timedelta(minutes=61)).usd == Decimal("0.104")


def test_what_was_spent_says_at_least_when_a_price_is_unknown() -> None:
    now = START + dt.timedelta(hours=2)
    assert str(so_far(bill(), START, now)) == "$2.62"
    assert str(so_far(bill(GPU), START, now)) == "at least $1.30"
    assert str(so_far(bill(*USD), START, now)) == "unknown"


def test_within_the_budget() -> None:
    (check,) = allowed(bill(), max_hours=8, budget=10.48)
    assert (check.name, check.state, check.fix) == ("budget", "pass", "")
    assert check.evidence == "$10.48 for 8 h ($1.31/h); the budget is $10.48"
    assert check.later == "$1.31/h, until someone sees it"


@pytest.mark.parametrize(("without", "hours", "total"), [
    ([], 8, "$10.48"), ([CPU], 8, "at least $6.80"), ([], 8.001, "$10.53"), ([], 8.999, "$11.79")])
def test_over_the_budget(without: list[Item], hours: float, total: str) -> None:
    (check,) = allowed(bill(*without), max_hours=hours, budget=6)
    assert check.state == "fail"
    assert check.evidence.startswith(f"{total} for ")
    dear = check.fix.split("--budget ")[1].split(",")[0]
    assert allowed(bill(*without), max_hours=hours, budget=float(dear))[0].state != "fail", "what the fix says mends it"


def test_a_total_that_cannot_be_known_is_no_pass() -> None:
    (check,) = allowed(bill(GPU), max_hours=8, budget=100)
    assert check.state == "unknown"
    assert "price of gpu-workers unknown" in check.evidence
    assert "the total cannot be known: no permission pricing:GetProducts" in check.evidence
    assert "pricing:GetProducts" in check.fix


@pytest.mark.parametrize(("max_hours", "budget", "name"), [
    (0, 10, "time limit"), (-1, 10, "time limit"), (float("nan"), 10, "time limit"), (float("inf"), 10, "time limit"),
    (8, 0, "budget"), (8, float("nan"), "budget"), (8, float("inf"), "budget")])
def test_a_limit_that_is_none_fails(max_hours: float, budget: float, name: str) -> None:
    (check,) = allowed(bill(), max_hours=max_hours, budget=budget)
    assert (check.name, check.state) == (name, "fail")


@pytest.mark.parametrize(("kind", "size", "type_", "usd"), [
    ("volume", 80, "gp3", "0.008"), ("volume", 80, "gp2", "0.016"), ("volume", 80, "", "0.008"), ("address", 0, "", "0.0051"),
    ("load-balancer", 0, "network", "0.027"), ("nat-gateway", 0, "", "0.052"), ("cluster", 0, "", "0.10"),
    ("cluster", 0, "standard", "0.10"), ("cluster", 0, "extended", "0.60"),
    ("log-group", 5 * 2**30, "", "0.0002"), ("log-group", 0, "", "0"),
    ("instance", 0, "g4dn.xlarge", "0.658"), *[(kind, 0, "", "0") for kind in sorted(bills.FREE)]])
def test_a_leftover_has_its_price(kind: str, size: float, type_: str, usd: str) -> None:
    found = leftover_price(kind, size, listed(), type=type_)
    assert found is not None
    assert round(found, 12) == Decimal(usd)


def test_every_kind_of_leftover_has_a_price_or_is_free() -> None:
    types = {"volume": "gp3", "load-balancer": "network", "instance": "g4dn.xlarge"}
    for kind in (*inventory.READERS, "cluster", "stack"):
        spelled = kind.removeprefix("classic ").replace(" ", "-").lower()
        assert leftover_price(spelled, 1, listed(), type=types.get(spelled, "")) is not None, kind


def test_a_cluster_of_an_unknown_rate_has_no_price() -> None:
    assert leftover_price("cluster", 0, listed(), type="unknown") is None


@pytest.mark.parametrize(("kind", "type_"), [
    ("volume", "gp3"), ("volume", "io2"), ("address", ""), ("load-balancer", "network"), ("load-balancer", ""), ("cluster", ""),
    ("cluster", "extended"), ("nat-gateway", ""), ("log-group", ""), ("instance", "g4dn.xlarge"), ("castle", "")])
def test_a_leftover_without_a_price_is_unknown(kind: str, type_: str) -> None:
    known = () if type_ == "extended" else (prices.EXTENDED_SUPPORT,)  # one of two prices is not enough
    usd = {item: USD[item] for item in (*known, *([prices.CONTROL_PLANE] if type_ == "extended" else []))}
    assert leftover_price(kind, 100, listed(usd=usd), type=type_) is None


def test_the_items_for_leftovers_have_every_price_but_that_of_instances() -> None:
    everything = listed(usd=dict.fromkeys(bills.LEFTOVER_ITEMS, "1"))
    for kind, type_ in (("volume", "gp3"), ("volume", "gp2"), ("address", ""), ("nat-gateway", ""), ("cluster", "extended"),
                        ("log-group", ""), *[("load-balancer", t) for t in ("network", "application", "classic")]):
        assert leftover_price(kind, 1, everything, type=type_) is not None


@pytest.mark.parametrize(("usd", "text"), [
    (None, "unknown"), ("0", "$0.00"), ("0.526", "$0.53"), ("0.1", "$0.10"), ("1024", "$1,024.00"), ("0.0053", "$0.0053"),
    ("0.052", "$0.052"), ("0.05", "$0.05"), ("0.09999", "$0.10"), ("0.0001", "$0.0001"), ("0.00000042", "under $0.0001"),
    ("12.345", "$12.35")])
def test_dollars(usd: str | None, text: str) -> None:
    assert dollars(None if usd is None else Decimal(usd)) == text


amounts = st.decimals(min_value="0.0001", max_value="100", places=4)
parts = st.builds(Part, name=st.sampled_from("abcdef"), count=st.integers(0, 9), unit=st.just("thing"),
                  per_hour=st.none() | amounts, after=st.decimals(min_value=0, max_value=99, places=2), whole_hours=st.booleans())
hours = st.decimals(min_value=0, max_value=1000, places=3)


@given(st.lists(parts, max_size=8), hours, hours)
def test_a_total_grows_with_time_and_is_never_less_than_any_part(some: list[Part], one: Decimal, more: Decimal) -> None:
    found = Bill("x", tuple(some), Decimal(1))
    assert found.total(one) <= found.total(one + more)
    for each in some:
        assert found.total(one) >= (each.cost(one) or 0)
        assert each.after or found.per_hour >= (each.per_hour or 0)
    start, now = START, START + dt.timedelta(hours=float(one))
    assert so_far(found, start, now).usd <= so_far(found, start, now + dt.timedelta(hours=float(more))).usd
    assert Bill.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(st.lists(parts, min_size=1, max_size=8), st.floats(0.01, 1000), st.floats(0.01, 1e6))
def test_the_budget_passes_only_what_is_known_and_within_it(some: list[Part], time: float, budget: float) -> None:
    found = Bill("x", tuple(some), Decimal(1))
    (check,) = allowed(found, max_hours=time, budget=budget)
    within = found.total(time) <= Decimal(str(budget))
    assert check.state == ("fail" if not within else "unknown" if found.unknown else "pass")
