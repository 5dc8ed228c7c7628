"""EKS versions: what AWS supports today, and for how many days."""

from __future__ import annotations

import datetime as dt

import pytest

from gpurunbook.targets.eks import versions
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.versions import Version
from tests.aws.answers import Answers
from tests.aws.preflight import recorded

TODAY = dt.date(2026, 11, 22)


@pytest.fixture
def known(account: Account, answers: Answers) -> list[Version]:
    answers["eks", "describe_cluster_versions"] = recorded("cluster_versions")
    return versions.describe(account)


def test_every_version_is_asked_for_and_the_newest_comes_first(known: list[Version], answers: Answers) -> None:
    assert [v.number for v in known] == ["1.36", "1.35", "1.34", "1.33", "1.31", "1.30"]
    assert ("eks", "describe_cluster_versions", {"includeAll": True}) in answers.calls
    assert [v.number for v in known if v.default] == ["1.35"]


def test_ten_days_before_the_end_of_standard_support_it_says_so(known: list[Version]) -> None:
    found = versions.check(known, "1.34", TODAY)
    assert (found.state, found.evidence) == ("warn", "1.34 is in standard support until 2026-12-02: 10 days left")
    assert found.fix == 'set version: "1.36" in cluster.yaml'
    assert found.later == "the extended rate from 2 Dec 2026 on (see the bill)"


def test_with_standard_support_only_aws_upgrades_instead(known: list[Version]) -> None:
    assert versions.check(known, "1.34", TODAY, support="STANDARD").later == (
        "from 2 Dec 2026 on AWS upgrades the control plane by itself")


@pytest.mark.parametrize(("wanted", "today", "state", "evidence"), [
    ("1.36", TODAY, "pass", "1.36 is in standard support until 2027-08-02: 253 days left"),
    ("1.34", dt.date(2026, 12, 1), "warn", "1.34 is in standard support until 2026-12-02: 1 day left"),
    ("1.34", dt.date(2026, 9, 3), "warn", "1.34 is in standard support until 2026-12-02: 90 days left"),
    ("1.34", dt.date(2026, 9, 2), "pass", "1.34 is in standard support until 2026-12-02: 91 days left"),
    ("1.34", dt.date(2026, 12, 5), "warn", "1.34 is in standard support until 2026-12-02, by its date over for 3 days"),
    ("1.33", TODAY, "warn", "1.33 is in extended support until 2027-07-29: 249 days left"),
    ("1.30", TODAY, "fail", "1.30 is not supported; supported: 1.36, 1.35, 1.34, 1.33, 1.31"),
    ("1.27", TODAY, "fail", "1.27 is not supported; supported: 1.36, 1.35, 1.34, 1.33, 1.31"),
    ("", TODAY, "warn", "cluster.yaml names none: eksctl would take 1.35")])
def test_the_state_of_a_version(known: list[Version], wanted: str, today: dt.date, state: str, evidence: str) -> None:
    found = versions.check(known, wanted, today)
    assert (found.state, found.evidence) == (state, evidence)
    assert found.later


@pytest.mark.parametrize("version", [
    Version("1.37", "PREVIEW", dt.date(2028, 1, 1), None, False), Version("1.37", "STANDARD_SUPPORT", None, None, False)])
def test_a_status_or_a_date_that_we_do_not_know_is_unknown(version: Version) -> None:
    assert versions.check([version], "1.37", TODAY).state == "unknown"


def test_a_date_is_read_as_the_day_in_utc(account: Account, answers: Answers) -> None:
    east = dt.timezone(dt.timedelta(hours=9))
    ends = dt.datetime(2027, 8, 2, 5, tzinfo=east)
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": [
        {"clusterVersion": "1.36", "status": "standard-support", "endOfStandardSupportDate": ends}]}
    [found] = versions.describe(account)
    assert (found.standard_end, found.status) == (dt.date(2027, 8, 1), "STANDARD_SUPPORT")
