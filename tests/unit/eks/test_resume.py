"""What is missing, for every state that an interrupted or failed creation leaves behind."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from gpurunbook.config import load_cluster
from gpurunbook.errors import RunbookError
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.targets.eks import facts, resume, tags
from gpurunbook.targets.eks.facts import ADDONS, Facts
from gpurunbook.targets.eks.stacks import Stack

CLUSTER = load_cluster(Path(__file__).resolve().parents[3] / "cluster.yaml", dt.date(2026, 11, 22))
CREATE = "eksctl create cluster --config-file=C --kubeconfig=K --install-nvidia-plugin=false"
DELETE = "eksctl delete cluster --name=gpu-cluster --region=eu-central-1 --wait --disable-nodegroup-eviction"


def stack(kind: str, status: str, group: str = "") -> Stack:
    name = f"eksctl-gpu-cluster-{kind}" + (f"-{group}" if group else "")
    return Stack(name, f"arn:{name}", kind, group, status, "", dt.datetime(2026, 11, 22, tzinfo=dt.UTC))


def whole(**change: object) -> Facts:
    """All of it there; `change` is what is otherwise."""
    good: dict[str, object] = {
        "status": "ACTIVE", "addons": ADDONS, "groups": {"cpu-workers": "ACTIVE"},
        "stacks": (stack("cluster", "CREATE_COMPLETE"), stack("nodegroup", "CREATE_COMPLETE", "gpu-workers"),
                   stack("nodegroup", "CREATE_COMPLETE", "cpu-workers"))}
    return Facts(**(good | change))  # type: ignore[arg-type]


def planned(found: Facts) -> list[str]:
    commands, reason = resume.missing(found, CLUSTER, Eksctl(), config=Path("C"), kubeconfig=Path("K"))
    assert reason
    return [command.short for command in commands]


def stacks_with(gpu: str, cpu: str = "CREATE_COMPLETE", control: str = "CREATE_COMPLETE") -> tuple[Stack, ...]:
    rows = (("cluster", control, ""), ("nodegroup", gpu, "gpu-workers"), ("nodegroup", cpu, "cpu-workers"))
    return tuple(stack(kind, status, group) for kind, status, group in rows if status)


SETTLE = "python -m gpurunbook.targets.eks.settle --stack-name eksctl-gpu-cluster-{} --region eu-central-1"
DELETE_STACK = "aws cloudformation delete-stack --stack-name eksctl-gpu-cluster-{} --region eu-central-1"
WAIT = "aws cloudformation wait {} --stack-name eksctl-gpu-cluster-{} --region eu-central-1"
REMAKE = ["eksctl delete nodegroup --cluster=gpu-cluster --name=gpu-workers --region=eu-central-1 --drain=false --wait",
          "eksctl create nodegroup --config-file=C --include=gpu-workers --install-nvidia-plugin=false"]


@pytest.mark.parametrize(("found", "commands"), [
    (Facts(), [CREATE]),
    (whole(), []),
    (whole(stacks=stacks_with("")), REMAKE[1:]),
    (whole(stacks=stacks_with("CREATE_FAILED")), REMAKE),
    (whole(stacks=stacks_with("ROLLBACK_COMPLETE")), REMAKE),
    (whole(stacks=stacks_with("ROLLBACK_FAILED")), REMAKE),
    (whole(stacks=stacks_with("DELETE_FAILED")), REMAKE),
    (whole(stacks=stacks_with("ROLLBACK_IN_PROGRESS")),
     [SETTLE.format("nodegroup-gpu-workers"), *REMAKE]),
    (whole(stacks=stacks_with("DELETE_IN_PROGRESS")),
     [WAIT.format("stack-delete-complete", "nodegroup-gpu-workers"), *REMAKE[1:]]),
    (whole(stacks=stacks_with("CREATE_IN_PROGRESS")), [WAIT.format("stack-create-complete", "nodegroup-gpu-workers")]),
    (whole(stacks=stacks_with("", "", "CREATE_IN_PROGRESS"), status="CREATING", groups={}, addons=()),
     [WAIT.format("stack-create-complete", "cluster"),
      *(f"eksctl create addon --name={name} --cluster=gpu-cluster --region=eu-central-1" for name in ADDONS),
      "eksctl create nodegroup --config-file=C --include=gpu-workers,cpu-workers --install-nvidia-plugin=false"]),
    (whole(addons=("vpc-cni", "coredns")), ["eksctl create addon --name=kube-proxy --cluster=gpu-cluster --region=eu-central-1"]),
    (whole(groups={"cpu-workers": "CREATE_FAILED"}),
     ["eksctl delete nodegroup --cluster=gpu-cluster --name=cpu-workers --region=eu-central-1 --drain=false --wait",
      "eksctl create nodegroup --config-file=C --include=cpu-workers --install-nvidia-plugin=false"]),
    (Facts(stacks=(stack("cluster", "ROLLBACK_COMPLETE"),)), [DELETE_STACK.format("cluster"), CREATE]),
    (Facts(stacks=(stack("cluster", "CREATE_FAILED"),)), [DELETE_STACK.format("cluster"), CREATE]),
    (Facts(status="DELETING", stacks=(stack("cluster", "DELETE_IN_PROGRESS"),)),
     [WAIT.format("stack-delete-complete", "cluster"), CREATE]),
    (Facts(stacks=(stack("cluster", "ROLLBACK_IN_PROGRESS"),)),
     [SETTLE.format("cluster"), DELETE_STACK.format("cluster"), CREATE]),
    (whole(status="FAILED"), [DELETE, CREATE]),
    (Facts(stacks=(stack("nodegroup", "CREATE_COMPLETE", "gpu-workers"),)),
     [DELETE_STACK.format("nodegroup-gpu-workers"), CREATE]),
])
def test_what_is_there_stays_and_what_is_missing_is_made(found: Facts, commands: list[str]) -> None:
    assert planned(found) == commands


def test_a_group_that_eksctl_calls_created_is_seen_to_have_failed() -> None:
    """eksctl#4977: exit code 0 on a second run, while the group is CREATE_FAILED."""
    parts = facts.parts(whole(stacks=stacks_with("CREATE_FAILED")), CLUSTER)
    assert {part.name: part.state for part in parts} == {
        "control plane": "running", "node group gpu-workers": "failed", "node group cpu-workers": "running"}


@pytest.mark.parametrize(("found", "words"), [
    (Facts(), ["absent", "absent", "absent"]),
    (whole(), ["running", "running", "running"]),
    (whole(groups={"cpu-workers": "DEGRADED"}), ["running", "running", "degraded"]),
    (whole(status="CREATING", stacks=stacks_with("", "", "CREATE_IN_PROGRESS"), groups={}), ["on its way", "absent", "absent"]),
    (whole(status="FAILED"), ["failed", "running", "running"])])
def test_parts_say_how_each_is(found: Facts, words: list[str]) -> None:
    assert [part.state for part in facts.parts(found, CLUSTER)] == words


def test_what_ails_a_group_is_its_evidence() -> None:
    found = whole(groups={"cpu-workers": "DEGRADED"}, health={"cpu-workers": ("NodeCreationFailure: no",)})
    assert facts.parts(found, CLUSTER)[2].evidence == "NodeCreationFailure: no"


@pytest.mark.parametrize(("found", "commands"), [
    (Facts(), []),
    (whole(), [DELETE]),
    (whole(status="DELETING", stacks=stacks_with("DELETE_IN_PROGRESS", "DELETE_IN_PROGRESS")),
     [*(WAIT.format("stack-delete-complete", f"nodegroup-{name}") for name in ("gpu-workers", "cpu-workers")), DELETE]),
    (whole(status="DELETING", stacks=stacks_with("", "", "DELETE_IN_PROGRESS")),
     [WAIT.format("stack-delete-complete", "cluster")]),
    (whole(status="CREATING", stacks=stacks_with("", "", "CREATE_IN_PROGRESS")), [DELETE_STACK.format("cluster")]),
    (whole(stacks=stacks_with("CREATE_FAILED")), [DELETE]),
    (Facts(stacks=stacks_with("CREATE_COMPLETE", "", "DELETE_FAILED")),
     [DELETE_STACK.format("nodegroup-gpu-workers"), DELETE_STACK.format("cluster")]),
])
def test_all_of_it_goes_by_whoever_can_delete_it(found: Facts, commands: list[str]) -> None:
    """The real eksctl refuses to delete a cluster that EKS does not have (tests/e2e/test_eksctl.py)."""
    assert [c.short for c in resume.remove(found, "gpu-cluster", "eu-central-1", Eksctl())] == commands


@pytest.mark.parametrize(("made_by", "owner", "ours", "refusal"), [
    ("otter", "ian", True, ""), ("otter", "eve", True, ""), ("otter", "ian", False, ""),
    ("otter", "eve", False, "with the same id"), ("fjord", "ian", True, "made by run fjord of ian"), ("", "", True, "no run of")])
def test_a_cluster_is_gone_on_with_by_its_run_and_by_no_other(made_by: str, owner: str, ours: bool, refusal: str) -> None:
    found = whole(tags={tags.RUN: made_by, tags.OWNER: owner} if made_by else {})
    if not refusal:
        facts.claim(found, "gpu-cluster", "otter", ours=ours, me=lambda: "ian")
        return
    with pytest.raises(RunbookError, match=refusal):
        facts.claim(found, "gpu-cluster", "otter", ours=ours, me=lambda: "ian")
