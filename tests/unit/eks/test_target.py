"""The target's decisions: when it may spend, whose account it is, what it keeps in mind for the end."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gpurunbook.command import Command
from gpurunbook.config import load_cluster
from gpurunbook.errors import ConfigError, RunbookError
from gpurunbook.journal import Journal
from gpurunbook.plan import Plan
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.runbook import Run
from gpurunbook.targets import Wishes
from gpurunbook.targets.eks import agreement, ending, facts, leftovers, resume, tags
from gpurunbook.targets.eks.account import Account
from gpurunbook.targets.eks.agreement import Agreement
from gpurunbook.targets.eks.bill import Bill, Part
from gpurunbook.targets.eks.facts import ADDONS, EksState, Facts
from gpurunbook.targets.eks.stacks import Stack
from gpurunbook.targets.eks.target import Eks, _works_on_stacks
from tests.aws.answers import Answers, Refusal

REPOSITORY = Path(__file__).resolve().parents[3]
BILL = Bill("gpu-cluster in eu-central-1", (Part("all", 1, "cluster", Decimal("0.50"), ""),), Decimal(4))
NOTHING = EksState((), False, (), (), Facts())
AGREED = Wishes(max_hours=4, budget=10, confirm="gpu-cluster", accept_unknown_prices=True)
LEAVING = "gpurunbook teardown --run-id one"


@pytest.fixture
def run(tmp_path: Path, account: Account, answers: Answers) -> Run:
    """A run on eks in its second stage, before anything was agreed to. Its programs are never started."""
    answers["pricing", "get_products"] = Refusal("AccessDeniedException", "no")
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": []}
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    shutil.copy(REPOSITORY / "cluster.yaml", tmp_path)
    shutil.copy(REPOSITORY / "cluster.yaml", folder)
    journal = Journal(folder)
    journal.append("run", state="started", id="one", target="eks", cluster_file=str(tmp_path / "cluster.yaml"), named=False)
    for name in ("eksctl", "kubectl", "helm"):
        journal.append("program", name=name, path="/bin/true", version="0", found="")
    target = Eks()
    target._accounts["eu-central-1"] = account
    return Run(tmp_path, folder, target, load_cluster(tmp_path / "cluster.yaml"), "provision")


def agree(run: Run, *, hours: float = 3, began: bool = True) -> None:
    run.journal.append(agreement.KIND, owner="ian", budget=10.0, max_hours=4, bill=BILL.to_json(),
                       of_what=agreement.what(run.cluster),
                       expires=(dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)).isoformat())
    if began:
        run.journal.append("intent", id="1", stage="provision", argv=["eksctl", "create", "cluster"], changes=True, why="",
                           shown="eksctl create cluster --config-file=x", by={"pid": 1, "started": 1.0})
        run.journal.append("result", id="1", code=1, seconds=1, tail="")


def stack(kind: str, status: str, group: str = "") -> Stack:
    name = f"eksctl-gpu-cluster-{kind}" + (f"-{group}" if group else "")
    return Stack(name, f"arn:{name}", kind, group, status, "", dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
                 tags={tags.RUN: "one", tags.OWNER: "ian"})


def test_the_plan_has_the_bill_the_tags_and_the_difference(run: Run) -> None:
    plan = run.target.create(run, NOTHING, AGREED)
    assert [command.argv[1:3] for command in plan] == [("create", "cluster")]
    table, diff = plan.notes
    assert "total" in repr(table)
    added = [line for line in repr(diff).splitlines() if line.startswith("+ ")]
    assert [line.split(":")[0].strip("+ ") for line in added] == ["tags", tags.RUN, tags.OWNER, tags.EXPIRES]
    assert tags.RUN in plan.files[run.folder / "cluster.yaml"]


def test_without_an_agreement_there_is_no_plan(run: Run) -> None:
    with pytest.raises(ConfigError, match="nobody has agreed"):
        run.target.create(run, NOTHING, Wishes())


@pytest.mark.parametrize("hours", [-1, 0])
def test_what_has_expired_makes_nothing_more(run: Run, hours: float) -> None:
    agree(run, hours=hours)
    there = EksState((), False, (), (), Facts(stacks=(stack("cluster", "ROLLBACK_COMPLETE"),), tags={tags.RUN: "one"}))
    with pytest.raises(RunbookError, match="time left") as caught:
        run.target.create(run, there, Wishes())
    assert caught.value.next == LEAVING


def test_another_size_needs_another_agreement_and_another_cluster_another_run(run: Run) -> None:
    agree(run)
    there = EksState((), False, (), (), Facts(stacks=(stack("cluster", "CREATE_FAILED"),), tags={tags.RUN: "one"}))
    assert run.target.create(run, there, Wishes())
    text = run.cluster.path.read_text()
    run.cluster.path.write_text(text.replace("g4dn.xlarge", "g5.48xlarge"))
    run.cluster = load_cluster(run.cluster.path)
    with pytest.raises(ConfigError, match="nobody has agreed"):
        run.target.create(run, there, Wishes())
    run.cluster.path.write_text(text.replace("name: gpu-cluster", "name: other"))
    run.cluster = load_cluster(run.cluster.path)
    with pytest.raises(RunbookError, match="this run made gpu-cluster"):
        run.target.create(run, NOTHING, Wishes(max_hours=4, budget=10, confirm="other", accept_unknown_prices=True))


def test_a_cluster_that_is_there_whole_is_metered_from_its_birth(run: Run, account: Account) -> None:
    born = dt.datetime.now(dt.UTC) - dt.timedelta(hours=2)
    complete = (stack("cluster", "CREATE_COMPLETE"), stack("nodegroup", "CREATE_COMPLETE", "gpu-workers"),
                stack("nodegroup", "CREATE_COMPLETE", "cpu-workers"))
    found = Facts(status="ACTIVE", tags={tags.RUN: "one", tags.OWNER: account.identity()["name"]}, addons=ADDONS,
                  groups={"cpu-workers": "ACTIVE"}, detail={"createdAt": born}, stacks=complete)
    there = EksState((), True, (), (), found)
    with pytest.raises(ConfigError, match="nobody has agreed"):
        run.target.create(run, there, Wishes())
    assert not run.target.create(run, there, AGREED)
    agreed = Agreement.of(run.journal)
    assert agreed is not None
    assert agreed.began == born
    assert not run.target.create(run, there, Wishes())


def test_a_control_plane_that_is_made_anew_is_another_cluster(run: Run) -> None:
    agree(run)
    run.journal.append("identity", server="s", ca_sha256="c", uid="u")
    run.kubeconfig.write_text("{}")
    there = EksState((), False, (), (), Facts(stacks=(stack("cluster", "ROLLBACK_COMPLETE"),), tags={tags.RUN: "one"}))
    plan = run.target.create(run, there, Wishes())
    assert plan.commands[0].argv == ("rm", "-f", str(run.kubeconfig))
    known = run.journal.last("identity")
    assert known is not None
    assert known["void"]


def test_another_account_is_refused_and_not_taken_for_an_empty_one(run: Run, answers: Answers) -> None:
    run.target.observe(run)
    answers["sts", "get_caller_identity"] = {"Account": "222222222222", "Arn": "arn:aws:iam::222222222222:user/x", "UserId": "x"}
    for asked in (run.target.observe, run.target.sweep, run.target.left, run.target.admit):
        with pytest.raises(RunbookError, match=r"\*{8}9012, and the credentials are for \*{8}2222"):
            asked(run)


def kubeconfig(path: Path) -> None:
    """One whose server is not there."""
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:9"}}],
        "users": [{"name": "u", "user": {"token": "x"}}]}))


def test_a_teardown_needs_no_api_server(run: Run) -> None:
    agree(run)
    kubeconfig(run.kubeconfig)
    for answers in (False, True):  # it may stop answering between the look and the question
        there = EksState((), answers, (), (), Facts(tags={tags.RUN: "one"}, stacks=(stack("cluster", "DELETE_FAILED"),)))
        plan = run.target.delete(run, there)
        assert [command.argv[3:5] for command in plan] == [("cloudformation", "delete-stack")]
        assert all(command.otherwise for command in plan)


def test_a_node_group_s_stack_alone_is_still_ours(run: Run, account: Account, answers: Answers) -> None:
    answers["cloudformation", "describe_stacks"] = {"Stacks": [{
        "StackName": "eksctl-gpu-cluster-nodegroup-gpu-workers", "StackId": "arn:x", "StackStatus": "DELETE_FAILED",
        "CreationTime": dt.datetime(2026, 11, 22, tzinfo=dt.UTC), "Tags": [{"Key": tags.RUN, "Value": "one"}]}]}
    assert facts.read(account, "gpu-cluster").run_id == "one"


def test_what_was_seen_once_stays_known(run: Run, account: Account) -> None:
    old: dict[str, Any] = {
        "name": "gpu-cluster", "region": "eu-central-1", "run_id": "one", "owner": "ian", "cluster_arn": "arn:x",
        "created": "2026-11-22T00:00:00+00:00", "stacks": [],
        "recorded": [["log group", "/aws/eks/gpu-cluster/cluster"], ["volume", "vol-1"]]}
    run.journal.append("cluster", record=old)
    account.call("logs", "create_log_group", logGroupName="/aws/eks/gpu-cluster/cluster")
    for _ in range(2):
        assert [x.kind for x in leftovers.find(account, ending._mark(run, account)).leftovers] == ["log group"]
        ending.record(run, account, answers=False)
    assert ending._mark(run, account).created is not None


def test_an_account_check_that_was_killed_is_taken_away_too(run: Run, account: Account) -> None:
    run.journal.append("trial", name="cluster-1", state="planned")
    tagged = [{"Key": tags.RUN, "Value": "one"}, {"Key": "alpha.eksctl.io/cluster-name", "Value": "cluster-1"}]
    account.call("cloudformation", "create_stack", StackName="eksctl-cluster-1-cluster", Tags=tagged,
                 TemplateBody='{"Resources": {"Group": {"Type": "AWS::Logs::LogGroup"}}}')
    assert [c.argv[-3] for c in run.target.delete(run, NOTHING)] == ["eksctl-cluster-1-cluster"]
    left = {check.name: check.state for check in run.target.left(run)}
    assert left["the account check's cluster cluster-1 is gone"] == "fail"


def test_what_others_use_is_not_gone(run: Run) -> None:
    checks = run.target.left(run)
    assert {check.state for check in checks} == {"pass"}
    assert any(check.name == "left behind: volume" for check in checks)


def test_a_command_that_may_fail_may_reach_its_limit_too(run: Run) -> None:
    run.kubeconfig.unlink(missing_ok=True)
    slow = Command(("sleep", "30"), why="x", limit=0.2, otherwise="the cluster goes all the same")
    done = run.apply(Plan((slow, Command(("true",), why="y", limit=5)), "r"))
    assert [result.code == 0 for result in done] == [False, True]


def test_waits_and_deletions_of_stacks_are_followed_too() -> None:
    waiting = stack("cluster", "CREATE_IN_PROGRESS")
    assert _works_on_stacks(resume.wait(waiting, "eu-central-1"))
    assert all(map(_works_on_stacks, resume.remove(Facts(stacks=(waiting,)), "gpu-cluster", "eu-central-1", Eksctl())))
    assert not _works_on_stacks(Command(("kubectl", "create", "cluster"), why="", limit=1))


def test_an_empty_kubeconfig_has_the_usual_context(run: Run) -> None:
    run.kubeconfig.write_text("")
    assert run.target.context(run) == "gpu-cluster.eu-central-1.eksctl.io"


def test_an_owner_is_a_tag_that_aws_and_eksctl_take() -> None:
    assert tags.of_run("one", "john, x=y@example.org", dt.datetime.now(dt.UTC))[tags.OWNER] == "john--x-y@example.org"


def test_add_ons_that_the_file_switches_off_are_not_missed(run: Run) -> None:
    run.cluster.path.write_text(run.cluster.path.read_text() + "addonsConfig:\n  disableDefaultAddons: true\n")
    assert not load_cluster(run.cluster.path).default_addons
