"""Nothing that costs money happens before somebody agreed to it by name, hours and dollars; nor after that is used up."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pytest

from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.targets import Wishes
from gpurunbook.targets.eks import agreement, tags
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.agreement import Agreement
from gpurunbook.targets.eks.bill import Bill, Part
from tests.aws.answers import Answers, Refusal

CLUSTER = load_cluster(Path(__file__).resolve().parents[3] / "cluster.yaml", dt.date(2026, 11, 22))
NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
GOOD = Wishes(max_hours=4, budget=10, confirm="gpu-cluster")
DOLLAR = Bill("gpu-cluster in eu-central-1", (Part("all", 1, "cluster", Decimal("1.00"), ""),), Decimal(4))
UNKNOWN = Bill("x", (Part("gpu-workers", 1, "g4dn.xlarge", None, "no permission pricing:GetProducts"),), Decimal(4))


@pytest.mark.parametrize(("wishes", "missing"), [
    (Wishes(), ["-p confirm=gpu-cluster", "--max-hours", "--budget"]),
    (Wishes(max_hours=4, budget=10), ["-p confirm=gpu-cluster"]),
    (Wishes(max_hours=4, budget=10, confirm="gpu-cluster-2"), ["-p confirm=gpu-cluster (not 'gpu-cluster-2')"]),
    (Wishes(budget=10, confirm="gpu-cluster"), ["--max-hours"]),
    (Wishes(max_hours=4, confirm="gpu-cluster"), ["--budget"]),
    (Wishes(max_hours=-1, budget=-1, confirm="gpu-cluster"), ["--max-hours", "--budget"]),
    (Wishes(max_hours=float("nan"), budget=float("nan"), confirm="gpu-cluster"), ["--max-hours", "--budget"]),
    (Wishes(max_hours=1e9, budget=1, confirm="gpu-cluster"), ["--max-hours"])])
def test_what_is_missing_is_named(wishes: Wishes, missing: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        agreement.confirmed(CLUSTER, wishes)
    for option in ("-p confirm=gpu-cluster", "--max-hours", "--budget"):
        assert (option in caught.value.next) == any(option in one for one in missing)
    assert all(one in caught.value.next for one in missing)


def test_a_whole_agreement_passes() -> None:
    agreement.confirmed(CLUSTER, GOOD)


def test_more_than_the_budget_is_refused_before_anything_is_made() -> None:
    assert agreement.within(DOLLAR, GOOD)
    with pytest.raises(RunbookError, match="budget"):
        agreement.within(DOLLAR, Wishes(max_hours=4, budget=3.99, confirm="gpu-cluster"))


def test_an_unknown_price_is_no_zero() -> None:
    with pytest.raises(RunbookError, match="cannot be known") as caught:
        agreement.within(UNKNOWN, GOOD)
    assert "accept_unknown_prices=true" in caught.value.next
    assert agreement.within(UNKNOWN,
                            Wishes(max_hours=4, budget=10, confirm="gpu-cluster", accept_unknown_prices=True))


def agreed(journal: Journal, *, bill: Bill = DOLLAR, hours: float = 4, budget: float = 10) -> None:
    journal.append(agreement.KIND, owner="ian", budget=budget, max_hours=hours, bill=bill.to_json(),
                   expires=(NOW + dt.timedelta(hours=hours)).isoformat())


def test_the_meter_runs_from_the_first_thing_that_was_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert Agreement.of(journal) is None
    agreed(journal)
    before = Agreement.of(journal)
    assert before is not None
    assert (before.began, before.cost(NOW + dt.timedelta(hours=3)).usd) == (None, 0)
    journal.append("intent", id="1", shown="eksctl utils write-kubeconfig", changes=False)
    journal.append("intent", id="2", shown="eksctl create cluster --config-file=x", changes=True)
    found = Agreement.of(journal)
    assert found is not None
    assert found.began is not None
    assert found.cost(found.began + dt.timedelta(hours=2)).usd == Decimal("2.00")


@pytest.mark.parametrize(("hours", "time", "money"), [
    (1, "pass", "pass"), (3.6, "warn", "pass"), (4.1, "fail", "pass"), (8.5, "fail", "warn"), (10.1, "fail", "fail")])
def test_time_and_money_run_out(hours: float, time: str, money: str) -> None:
    found = Agreement("ian", 10.0, NOW + dt.timedelta(hours=4), DOLLAR, NOW)
    assert [c.state for c in agreement.checks(found, NOW + dt.timedelta(hours=hours))] == [time, money]


def test_the_tags_say_run_owner_and_end(tmp_path: Path) -> None:
    found = Agreement("ian", 10.0, NOW + dt.timedelta(hours=4), DOLLAR)
    assert found.tags("20261122-otter") == {tags.RUN: "20261122-otter", tags.OWNER: "ian", tags.EXPIRES: "2026-11-22T16:00:00Z"}
    assert tags.expiry(found.tags("x")) == found.expires


def test_agreeing_writes_down_the_bill_without_an_account_id(account: Account, answers: Answers, tmp_path: Path) -> None:
    answers["pricing", "get_products"] = Refusal("AccessDeniedException", "no")
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": []}
    wishes = Wishes(max_hours=4, budget=10, confirm="gpu-cluster", accept_unknown_prices=True)
    journal = Journal(tmp_path)
    agreement.agree(journal, account, CLUSTER, wishes, NOW)
    found = Agreement.of(journal)
    assert found is not None
    assert (found.budget, found.expires) == (10, NOW + dt.timedelta(hours=4))
    assert found.bill.unknown
    assert "123456789012" not in (tmp_path / "journal.jsonl").read_text()
    assert json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[0])["owner"] == found.owner


def test_a_version_in_extended_support_is_billed_as_such(account: Account, answers: Answers) -> None:
    answers["pricing", "get_products"] = {"PriceList": []}
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": [
        {"clusterVersion": "1.36", "versionStatus": "EXTENDED_SUPPORT"}]}
    names = [part.name for part in agreement.estimate(account, CLUSTER, hours=4, today=NOW.date()).parts]
    assert "extended support" in names
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": [
        {"clusterVersion": "1.36", "versionStatus": "STANDARD_SUPPORT", "endOfStandardSupportDate": NOW + dt.timedelta(hours=2)}]}
    assert "extended support" not in [p.name for p in agreement.estimate(account, CLUSTER, hours=4, today=NOW.date()).parts]
    later = CLUSTER.model_copy(update={"support": "EXTENDED"})
    assert "extended support" in [p.name for p in agreement.estimate(account, later, hours=40, today=NOW.date()).parts]
