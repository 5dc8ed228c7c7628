"""What has outlived its time: the rule with values, and the reading on moto. All data is invented."""

from __future__ import annotations

import datetime as dt

from gpurunbook.targets.eks import reap, tags
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.reap import Lease, Tagged
from tests.aws.answers import Answers, Refusal
from tests.unit.eks.conftest import REGION
from tests.unit.eks.test_leftovers import Town, make_stack

NOW = dt.datetime(2026, 11, 22, 20, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
ARN = f"arn:aws:ec2:{REGION}:123456789012:volume/vol-"


def tagged(id: str, run: str, expires: dt.datetime, owner: str = "ann") -> Tagged:
    return Tagged(ARN + id, tags.of_run(run, owner, expires))


def test_runs_are_sorted_by_when_they_expire() -> None:
    expired, running = reap.sort([tagged("1", "late", NOW - HOUR), tagged("2", "later", NOW - 3 * HOUR),
                                  tagged("3", "soon", NOW + HOUR), tagged("4", "now", NOW), tagged("5", "then", NOW + 2 * HOUR)],
                                 now=NOW)
    assert [one.run_id for one in expired] == ["later", "late", "now"]
    assert [one.run_id for one in running] == ["soon", "then"]


def test_a_run_that_was_given_more_time_has_it() -> None:
    expired, [lease] = reap.sort([tagged("1", "r", NOW - HOUR), tagged("2", "r", NOW + HOUR)], now=NOW)
    assert expired == []
    assert lease.until == NOW + HOUR
    assert lease.resources == (ARN + "1", ARN + "2")


def test_without_expiry_or_run_nothing_is_listed() -> None:
    bare = Tagged(ARN + "1", {tags.RUN: "r"})
    odd = Tagged(ARN + "2", {tags.RUN: "r", tags.EXPIRES: "tomorrow"})
    nobodys = Tagged(ARN + "3", {tags.EXPIRES: "2020-01-01T00:00:00Z"})
    assert reap.sort([bare, odd, nobodys], now=NOW) == ([], [])


def test_the_cluster_is_known_by_its_arn_or_eksctls_tag() -> None:
    cluster = Tagged(f"arn:aws:eks:{REGION}:123456789012:cluster/gpu-cluster", tags.of_run("a", "ann", NOW))
    stack = Tagged("arn:stack", tags.of_run("b", "ann", NOW) | {"alpha.eksctl.io/cluster-name": "other"})
    expired, _ = reap.sort([cluster, stack, tagged("1", "c", NOW)], now=NOW)
    assert {one.run_id: one.cluster for one in expired} == {"a": "gpu-cluster", "b": "other", "c": ""}


def test_the_table_says_how_long_and_hides_the_account() -> None:
    leases = [Lease("r-1", "ann", "gpu-cluster", NOW - 26 * HOUR, tuple(f"{ARN}{i}" for i in range(5))),
              Lease("r-2", "", "", NOW + dt.timedelta(minutes=90), (ARN + "9",))]
    table = reap.table(leases, now=NOW)
    assert [row[3] for row in table.rows] == ["1 d 2 h ago", "in 1 h 30 min"]
    assert table.rows[1][1:3] == ["unknown", "unknown"]
    assert [row[4] for row in table.rows] == [5, 1]
    assert table.rows[0][5].endswith("volume/vol-2, and 2 more")
    assert "123456789012" not in repr(table)
    assert "************" in repr(table)


def test_only_whole_account_ids_are_hidden() -> None:
    assert reap.masked("a:123456789012:b 1234567890123 20261122") == "a:************:b 1234567890123 20261122"


def test_it_finds_what_each_way_of_asking_knows(account: Account) -> None:
    town = Town(account)
    expired = tags.of_run("r-1", "ann", NOW - HOUR)
    town.cluster(**expired)
    town.interface(*expired.items())
    town.volume(("a", "b"))
    make_stack(account, "eksctl-b-cluster", "b", **tags.of_run("r-2", "bob", NOW + HOUR))
    gone = make_stack(account, "eksctl-c-cluster", "c", **tags.of_run("r-3", "bob", NOW - HOUR))
    account.client("cloudformation").delete_stack(StackName=gone)
    leases = reap.find(account, now=NOW)
    assert [(one.run_id, one.owner, one.cluster) for one in leases.expired] == [("r-1", "ann", "gpu-cluster")]
    assert {one.split(":")[2] for one in leases.expired[0].resources} == {"eks", "ec2"}
    assert [(one.run_id, one.cluster, one.until) for one in leases.running] == [("r-2", "b", NOW + HOUR)]
    assert [check.state for check in leases.checks] == ["pass"] * 3


def test_a_list_that_is_denied_is_unknown_and_the_others_are_read(account: Account, answers: Answers) -> None:
    town = Town(account)
    town.cluster(**tags.of_run("r-1", "ann", NOW - HOUR))
    answers["resourcegroupstaggingapi", "get_resources"] = Refusal("AccessDeniedException", "no")
    answers["cloudformation", "describe_stacks"] = Refusal("AccessDenied", "no")
    leases = reap.find(account, now=NOW)
    assert [one.run_id for one in leases.expired] == ["r-1"]
    assert [check.state for check in leases.checks] == ["pass", "unknown", "unknown"]
    assert "GetResources" in leases.checks[2].fix


def test_the_tag_set_anew_on_the_cluster_is_believed_before_an_old_listing(account: Account, answers: Answers) -> None:
    town = Town(account)
    town.cluster(**tags.of_run("r-1", "ann", NOW + HOUR))
    arn = account.call("eks", "describe_cluster", name="gpu-cluster")["cluster"]["arn"]
    answers["resourcegroupstaggingapi", "get_resources"] = {"ResourceTagMappingList": [{
        "ResourceARN": arn, "Tags": [{"Key": k, "Value": v} for k, v in tags.of_run("r-1", "ann", NOW + 9 * HOUR).items()]}]}
    assert [one.until for one in reap.find(account, now=NOW).running] == [NOW + HOUR]
