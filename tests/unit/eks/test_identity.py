"""On EKS the cluster is also known by its ARN and its nodes' provider IDs."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from gpurunbook.command import Command
from gpurunbook.errors import RunbookError
from gpurunbook.programs.eksctl import Eksctl
from gpurunbook.stages.nodes import Node
from gpurunbook.targets.eks import identity
from gpurunbook.targets.eks.account import Account, AwsError
from gpurunbook.targets.eks.target import Eks
from tests.aws.answers import Answers

SERVER, ARN = "https://ABC.gr7.eu-central-1.eks.amazonaws.com", "arn:aws:eks:eu-central-1:123456789012:cluster/gpu-cluster"
NODE = Node(name="a", group="g", gpu=True, ready=True, gpus=0, instance_type="x", zone="eu-central-1a", taints=(), labels={},
            provider_id="aws:///eu-central-1a/i-1", version="v1.36.0")


def ask(account: Account, answers: Answers, *nodes: Node, server: str = SERVER, arn: str = ARN) -> dict[str, str]:
    answers["eks", "describe_cluster"] = {"cluster": {"name": "gpu-cluster", "arn": arn, "endpoint": SERVER}}
    return identity.same(account, "gpu-cluster", server, nodes)


def test_an_arn_is_known_by_its_hash_which_holds_no_account(account: Account, answers: Answers) -> None:
    found = ask(account, answers, NODE)
    assert found.keys() == {"arn_sha256"}
    assert "123456789012" not in str(found)
    assert found == ask(account, answers, server=SERVER.lower() + "/")
    assert found != ask(account, answers, arn=ARN.replace("123456789012", "210987654321"))


def test_a_kubeconfig_that_leads_elsewhere_is_refused(account: Account, answers: Answers) -> None:
    with pytest.raises(RunbookError, match="AWS's cluster gpu-cluster is another") as caught:
        ask(account, answers, NODE, server="https://127.0.0.1:6443")
    assert "eksctl utils write-kubeconfig --cluster gpu-cluster --region eu-central-1" in caught.value.next


@pytest.mark.parametrize("provider", ["kind://docker/kind/worker", "aws:///us-east-1a/i-1", "gce://p/z/n"])
def test_nodes_of_another_region_or_cloud_are_refused(account: Account, answers: Answers, provider: str) -> None:
    with pytest.raises(RunbookError, match=r"not EC2's in eu-central-1, by their provider IDs: b"):
        ask(account, answers, NODE, replace(NODE, name="b", provider_id=provider))


def test_a_node_that_has_no_provider_id_yet_says_nothing(account: Account, answers: Answers) -> None:
    assert ask(account, answers, replace(NODE, provider_id=""))


def test_a_cluster_that_aws_does_not_have_is_no_place_to_write(account: Account) -> None:
    with pytest.raises(AwsError):
        identity.same(account, "gpu-cluster", SERVER, ())


@pytest.mark.parametrize(("command", "asked"), [
    (Eksctl("/x/eksctl").delete_cluster("c", "r"), True),
    (Command((sys.executable, "-m", "gpurunbook.targets.eks.aws", "ec2", "delete-volume"), why="", limit=1), True),
    (Command(("rm", "-f", "x"), why="", limit=1), False)], ids=["eksctl", "aws", "rm"])
def test_the_account_is_checked_before_each_command_that_changes_something_in_it(command: Command, asked: bool,
                                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr(Eks, "_same_account", lambda self, run: checked.append(run))
    run: Any = SimpleNamespace()
    Eks().permit(run, command)
    assert bool(checked) is asked
