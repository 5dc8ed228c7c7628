"""Prices: the one price among what AWS lists, or None and why; kept for a week; never later than the limit."""

from __future__ import annotations

import copy
import datetime as dt
import json
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.targets.eks import prices
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.prices import Item, Prices, look_up, pick
from tests.aws.answers import Answers, Refusal

DATA = Path(__file__).parents[2] / "data" / "aws" / "prices"
TODAY, REGION = dt.date(2026, 11, 22), "eu-central-1"
GPU = prices.instance("g4dn.xlarge")
LISTED: list[dict[str, Any]] = json.loads((DATA / "eu-central-1.json").read_text())["PriceList"]
EXPECTED = {
    prices.CONTROL_PLANE: "0.1", prices.EXTENDED_SUPPORT: "0.5", GPU: "0.658", prices.instance("m5.xlarge"): "0.23",
    prices.volume("gp3"): "0.0952", prices.volume("gp2"): "0.119", prices.NAT_GATEWAY: "0.052", prices.ADDRESS: "0.005",
    prices.IDLE_ADDRESS: "0.0051", prices.load_balancer("application"): "0.027", prices.load_balancer("network"): "0.0271",
    prices.load_balancer("classic"): "0.03", prices.LOG_STORAGE: "0.0324"}


def answer(products: list[dict[str, Any]]) -> dict[str, Any]:
    """As AWS answers: every product is a text of its own."""
    return {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in products]}


def changed(amount: str) -> list[dict[str, Any]]:
    """What AWS lists for the GPU instance alone, at this price."""
    product = copy.deepcopy(LISTED[0])
    assert product["product"]["attributes"]["usagetype"] == "EUC1-BoxUsage:g4dn.xlarge"
    (term,) = product["terms"]["OnDemand"].values()
    (dimension,) = term["priceDimensions"].values()
    dimension["pricePerUnit"]["USD"] = amount
    return [product]


def no_call(_: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("AWS was asked")


@pytest.mark.parametrize(("item", "usd"), EXPECTED.items(), ids=lambda value: " ".join(filter(None, (value.kind, value.type)))
                         if isinstance(value, Item) else value)
def test_the_one_price_is_found_among_all_that_aws_lists(item: Item, usd: str) -> None:
    price = pick(map(json.dumps, LISTED), item, REGION, TODAY)
    assert (price.usd, price.read, price.reason) == (Decimal(usd), TODAY, "")
    assert price.unit == ("GB-month" if item.kind in ("volume", "log-storage") else "hour")


def test_a_recorded_answer_is_read() -> None:
    recorded = json.loads((DATA / "recorded-eks.json").read_text())["PriceList"]
    assert pick(map(json.dumps, recorded), prices.CONTROL_PLANE, "ap-southeast-2", TODAY).usd == Decimal("0.1")
    assert pick(map(json.dumps, recorded), prices.CONTROL_PLANE, REGION, TODAY).usd is None


@pytest.mark.parametrize("prefix", ["", "EU-", "USE1-", "UGW1-", "APS10-"])
def test_a_usage_type_may_carry_its_region(prefix: str) -> None:
    product = changed("0.658")
    product[0]["product"]["attributes"]["usagetype"] = f"{prefix}BoxUsage:g4dn.xlarge"
    assert pick(product, GPU, REGION, TODAY).usd == Decimal("0.658")


@pytest.mark.parametrize("usage", ["TS-BoxUsage:g4dn.xlarge", "EUC1-HostBoxUsage:g4dn.xlarge", "EUC1-BoxUsage:g4dnxxlarge", ""])
def test_a_usage_type_that_only_looks_alike_is_none(usage: str) -> None:
    product = changed("0.658")
    product[0]["product"]["attributes"]["usagetype"] = usage
    assert pick(product, GPU, REGION, TODAY).reason == "AWS lists no price for it in eu-central-1"


@pytest.mark.parametrize(("products", "reason"), [
    ([], "AWS lists no price for it in eu-central-1"),
    (changed("0.658") + changed("0.7"), "AWS lists 2 prices for it"),
    (changed("0.0000000000"), "AWS lists it at 0, which it cannot cost"),
    (changed("-0.1"), "AWS's answer cannot be read"),
    (changed("NaN"), "AWS's answer cannot be read"),
    (changed("Infinity"), "AWS's answer cannot be read"),
    (changed("a lot"), "AWS's answer cannot be read"),
    ([*changed("0.658"), {"product": {}}], "AWS's answer cannot be read"),
    ([*changed("0.658"), "{"], "AWS's answer cannot be read"),
], ids=["none", "ambiguous", "zero", "negative", "not a number", "endless", "a word", "no attributes", "torn"])
def test_what_is_not_exactly_one_price_is_unknown(products: list[Any], reason: str) -> None:
    price = pick(products, GPU, REGION, TODAY)
    assert (price.usd, price.read, price.reason) == (None, None, reason)


def test_the_same_price_listed_twice_is_one_price() -> None:
    assert pick(changed("0.658") + changed("0.6580000000"), GPU, REGION, TODAY).usd == Decimal("0.658")


@pytest.mark.parametrize(("field", "value"), [("unit", "Quantity"), ("pricePerUnit", {"CNY": "4.2"})])
def test_only_dollars_for_the_unit_asked_for_count(field: str, value: object) -> None:
    product = changed("0.658")
    next(iter(next(iter(product[0]["terms"]["OnDemand"].values()))["priceDimensions"].values()))[field] = value
    assert pick(product, GPU, REGION, TODAY).usd is None


def test_what_is_only_sold_reserved_has_no_price() -> None:
    product = changed("0.658")
    product[0]["terms"] = {"Reserved": product[0]["terms"]["OnDemand"]}
    assert pick(product, GPU, REGION, TODAY).usd is None


def test_aws_is_asked_in_us_east_1_with_filters(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(LISTED)
    there: list[str] = []
    account.client("pricing", "us-east-1").meta.events.register_first("before-call", lambda model, **_: there.append(model.name))
    found = look_up(account, [GPU], today=TODAY, cache=tmp_path)
    assert found.usd(GPU) == Decimal("0.658")
    assert there == ["GetProducts"]
    ((service, operation, sent),) = answers.calls
    assert (service, operation, sent["ServiceCode"]) == ("pricing", "get_products", "AmazonEC2")
    assert {f["Type"] for f in sent["Filters"]} == {"TERM_MATCH"}
    assert {f["Field"]: f["Value"] for f in sent["Filters"]} == {
        "regionCode": REGION, "instanceType": "g4dn.xlarge", "operatingSystem": "Linux", "tenancy": "Shared",
        "preInstalledSw": "NA", "capacitystatus": "Used", "operation": "RunInstances"}


def test_each_price_is_asked_of_the_service_that_lists_it(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(LISTED)
    found = look_up(account, list(EXPECTED), today=TODAY, cache=tmp_path)
    assert {item: found.usd(item) for item in EXPECTED} == {item: Decimal(usd) for item, usd in EXPECTED.items()}
    services = {p["product"]["attributes"]["servicecode"] for p in LISTED}
    assert {params["ServiceCode"] for _, _, params in answers.calls} == services
    assert len(answers.calls) == len(EXPECTED)


def test_every_page_of_an_answer_is_read(account: Account, answers: Answers, tmp_path: Path) -> None:
    def pages(params: dict[str, Any]) -> dict[str, Any]:
        return answer(changed("0.7")) if params.get("NextToken") else {**answer(changed("0.658")), "NextToken": "more"}

    answers["pricing", "get_products"] = pages
    assert look_up(account, [GPU], today=TODAY, cache=tmp_path).price(GPU).reason == "AWS lists 2 prices for it"
    assert not list(tmp_path.iterdir()), "what is unknown is not kept"


def test_all_are_asked_at_once(account: Account, answers: Answers, tmp_path: Path) -> None:
    together = threading.Barrier(len(EXPECTED))

    def wait(_: dict[str, Any]) -> dict[str, Any]:
        assert threading.current_thread().daemon, "a call that hangs must not keep the program from ending"
        together.wait(timeout=20)  # passes only when every call is under way
        return answer(LISTED)

    answers["pricing", "get_products"] = wait
    assert None not in {look_up(account, list(EXPECTED), today=TODAY, cache=tmp_path, seconds=30).usd(i) for i in EXPECTED}


@pytest.mark.parametrize(("refusal", "reason"), [
    (Refusal("AccessDeniedException", "no"), "no permission pricing:GetProducts"),
    (Refusal("ExpiredTokenException", "old"), "the credentials are no longer good"),
    (Refusal("InternalErrorException", "oh"), "pricing:GetProducts: InternalErrorException")])
def test_a_refusal_leaves_prices_unknown(account: Account, answers: Answers, tmp_path: Path, refusal: Refusal,
                                         reason: str) -> None:
    answers["pricing", "get_products"] = refusal
    found = look_up(account, [GPU, prices.ADDRESS], today=TODAY, cache=tmp_path)
    for item in (GPU, prices.ADDRESS):
        assert (found.usd(item), found.price(item).reason) == (None, reason)
    assert found.read is None
    assert not list(tmp_path.iterdir()), "what is unknown is not kept"


def test_no_answer_in_time_is_unknown(account: Account, answers: Answers, tmp_path: Path) -> None:
    enough = threading.Event()

    def never(_: dict[str, Any]) -> dict[str, Any]:
        enough.wait(60)
        return answer(LISTED)

    answers["pricing", "get_products"] = never
    account.client("pricing", "us-east-1")  # so that the time below is that of the waiting
    began = time.monotonic()
    try:
        found = look_up(account, [GPU, prices.ADDRESS], today=TODAY, cache=tmp_path, seconds=0.3)
    finally:
        enough.set()
    assert time.monotonic() - began < 4
    assert [found.price(i).reason for i in (GPU, prices.ADDRESS)] == ["no answer from AWS within 0.3 s"] * 2


def test_a_defect_is_not_taken_for_an_unknown_price(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = no_call
    with pytest.raises(AssertionError, match="AWS was asked"):
        look_up(account, [GPU], today=TODAY, cache=tmp_path)


def test_a_kind_that_is_not_looked_up_says_so(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = no_call
    items = [prices.volume("io2"), prices.load_balancer("moat"), Item("castle")]
    found = look_up(account, items, today=TODAY, cache=tmp_path)
    assert [found.price(i).reason for i in items] == [
        "the price of volume io2 is not looked up", "the price of load-balancer moat is not looked up",
        "the price of castle is not looked up"]
    assert found.price(GPU).reason == "not looked up"


@pytest.mark.parametrize("region", ["../../etc", "eu-central-1/x", ""])
def test_a_region_that_is_none_is_no_file_name(tmp_path: Path, region: str) -> None:
    found = look_up(Account(region, session=object()), [GPU], today=TODAY, cache=tmp_path / "prices")
    assert found.price(GPU).reason == f"{region!r} is no region"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("days", [0, 7])
def test_a_price_is_kept_for_seven_days(account: Account, answers: Answers, tmp_path: Path, days: int) -> None:
    read = TODAY - dt.timedelta(days)
    answers["pricing", "get_products"] = answer(LISTED)
    look_up(account, [GPU], today=read, cache=tmp_path)
    answers["pricing", "get_products"] = no_call
    found = look_up(account, [GPU], today=TODAY, cache=tmp_path)
    assert (found.usd(GPU), found.price(GPU).unit, found.read, found.note) == (Decimal("0.658"), "hour", read, "")


def test_only_what_is_missing_is_asked_for_and_the_rest_stays(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(LISTED)
    look_up(account, [GPU], today=TODAY, cache=tmp_path)
    look_up(account, [GPU, prices.ADDRESS, prices.ADDRESS], today=TODAY, cache=tmp_path)
    assert [params["ServiceCode"] for _, _, params in answers.calls] == ["AmazonEC2", "AmazonVPC"]
    answers["pricing", "get_products"] = no_call
    assert look_up(account, [GPU, prices.ADDRESS], today=TODAY, cache=tmp_path).usd(prices.ADDRESS) == Decimal("0.005")


def test_after_eight_days_aws_is_asked_again(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(changed("0.5"))
    look_up(account, [GPU], today=TODAY - dt.timedelta(8), cache=tmp_path)
    answers["pricing", "get_products"] = answer(changed("0.6"))
    found = look_up(account, [GPU], today=TODAY, cache=tmp_path)
    assert (found.usd(GPU), found.read) == (Decimal("0.6"), TODAY)


@pytest.fixture
def three_weeks_old(account: Account, answers: Answers, tmp_path: Path) -> Path:
    answers["pricing", "get_products"] = answer(LISTED)
    look_up(account, [GPU], today=dt.date(2026, 11, 1), cache=tmp_path)
    return tmp_path


def test_an_old_price_is_marked_and_used_when_aws_cannot_be_asked(account: Account, answers: Answers,
                                                                  three_weeks_old: Path) -> None:
    answers["pricing", "get_products"] = Refusal("AccessDeniedException")
    found = look_up(account, [GPU, prices.ADDRESS], today=TODAY, cache=three_weeks_old)
    assert (found.usd(GPU), found.note) == (Decimal("0.658"), "prices of 2026-11-01, 21 days old")
    assert found.usd(prices.ADDRESS) is None


def test_an_old_price_is_not_used_when_aws_lists_none_any_more(account: Account, answers: Answers, three_weeks_old: Path) -> None:
    answers["pricing", "get_products"] = answer([])
    found = look_up(account, [GPU], today=TODAY, cache=three_weeks_old)
    assert (found.usd(GPU), found.note) == (None, "")


def test_a_price_read_tomorrow_is_not_believed(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(changed("0.5"))
    look_up(account, [GPU], today=TODAY + dt.timedelta(1), cache=tmp_path)
    answers["pricing", "get_products"] = Refusal("AccessDeniedException")
    assert look_up(account, [GPU], today=TODAY, cache=tmp_path).usd(GPU) is None


@pytest.mark.parametrize("text", [
    "", "{", "[]", json.dumps({"region": "us-east-1", "prices": [{"kind": "instance", "type": "g4dn.xlarge", "usd": "0.5",
                                                                  "unit": "hour", "read": "2026-11-22"}]}),
    '{"region": "eu-central-1", "prices": [{"kind": "instance"}]}',
    *[json.dumps({"region": REGION, "prices": [{"kind": "instance", "type": "g4dn.xlarge", "usd": usd, "unit": unit,
                                                "read": "2026-11-22"}]})
      for usd, unit in (("0", "hour"), ("-1", "hour"), ("NaN", "hour"), ("x", "hour"), (None, "hour"), ("0.5", "GB-month"))]])
def test_a_damaged_cache_is_as_good_as_none(account: Account, answers: Answers, tmp_path: Path, text: str) -> None:
    (tmp_path / f"{REGION}.json").write_text(text)
    answers["pricing", "get_products"] = answer(LISTED)
    assert look_up(account, [GPU], today=TODAY, cache=tmp_path).usd(GPU) == Decimal("0.658")
    answers["pricing", "get_products"] = no_call
    assert look_up(account, [GPU], today=TODAY, cache=tmp_path).usd(GPU) == Decimal("0.658"), "it was mended"


def test_the_cache_is_private(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(LISTED)
    look_up(account, [GPU], today=TODAY, cache=tmp_path / "prices")
    folder = tmp_path / "prices"
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / f"{REGION}.json")] == [0o700, 0o600]


def test_prices_are_as_good_when_they_cannot_be_kept(account: Account, answers: Answers, tmp_path: Path) -> None:
    (tmp_path / "prices").write_text("a file where the folder should be")
    answers["pricing", "get_products"] = answer(LISTED)
    found = look_up(account, [GPU], today=TODAY, cache=tmp_path / "prices")
    assert found.usd(GPU) == Decimal("0.658")
    assert found.unkept.startswith(str(tmp_path / "prices" / f"{REGION}.json"))


def test_many_writers_leave_a_whole_file(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = answer(LISTED)
    file, seen, stop = tmp_path / f"{REGION}.json", [], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if file.exists():
                seen.append(json.loads(file.read_text())["region"])  # raises when it is not whole

    def write(item: Item) -> Prices:
        return look_up(account, [item], today=TODAY, cache=tmp_path, seconds=60)

    with ThreadPoolExecutor(16) as pool:
        watcher = pool.submit(watch)
        try:
            found = list(pool.map(write, [item for item in EXPECTED for _ in range(4)]))
        finally:
            stop.set()
        watcher.result()
    assert len(found) == 4 * len(EXPECTED)
    assert not [p.unkept for p in found if p.unkept]
    assert set(seen) == {REGION}
    assert [p.name for p in tmp_path.iterdir()] == [file.name], "no temporary file is left"
