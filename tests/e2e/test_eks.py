"""The target `eks` from the command line, on an account that is none: moto behind a proxy, and a stand-in for eksctl.

What eksctl would make is played; the cluster behind the kubeconfig is a rehearsal that the run did not make. Preflight,
plans, prices, events, failures, resuming, tags, masking, teardown and sweep are the product's own, in processes of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gpurunbook.targets.eks.account import IAM
from tests.aws.fixtures import StandIn, aws, aws_server, install
from tests.aws.server import ACCOUNT, CANARIES, Aws
from tests.e2e.conftest import Checkout, make_checkout

__all__ = ["aws", "aws_server"]
REGION = "eu-central-1"
AGREED = ("--max-hours", "4", "--budget", "20", "-p", "confirm=gpu-cluster", "-p", "chart=manifests/rehearsal/gpu-operator")
ICE = ("We currently do not have sufficient g4dn.xlarge capacity in the Availability Zone you requested (eu-central-1a). Our "
       "system will be working on provisioning additional capacity. You can currently get g4dn.xlarge capacity by not specifying "
       "an Availability Zone in your request or choosing eu-central-1b, eu-central-1c.")


@pytest.fixture(scope="module")
def backing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a cluster that is there already, whose nodes are shaped by cluster.yaml."""
    made = make_checkout(tmp_path_factory.mktemp("backing"))
    made("run", "--run-id", "backing", "--until", "provision")
    yield made.folder("backing") / "kubeconfig"
    made("teardown", "--run-id", "backing")


@pytest.fixture
def eksctl(tmp_path: Path, backing: Path) -> StandIn:
    return install(tmp_path / "bin", kubeconfig=str(backing), seconds={"cluster": 0.6, "group": 0.4, "delete": 0.2})


@pytest.fixture
def eks(tmp_path: Path, aws: Aws, eksctl: StandIn) -> Checkout:
    """A checkout whose programs see the account and the stand-in."""
    made = make_checkout(tmp_path)
    shutil.copy(Path(__file__).parents[2] / "cluster.al2023.yaml", made.root)
    signs_in = eksctl.folder / "aws"
    signs_in.write_text("#!/bin/sh\necho called >> \"$0.log\"\nexit 1\n")
    signs_in.chmod(0o755)
    made.environment.update(aws.environment, PATH=f"{eksctl.folder}:{made.environment['PATH']}")
    return made


def provision(eks: Checkout, run_id: str = "one", *more: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Notebook 02. An option in `more` wins over the same in AGREED."""
    return eks("run", "--target", "eks", "--run-id", run_id, "--from", "provision", "--until", "provision", *AGREED[:6], *more,
               check=check)


def texts(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_text(errors="replace")


def stacks(aws: Aws) -> list[str]:
    found = aws.client("cloudformation").describe_stacks()["Stacks"]
    return sorted(stack["StackName"] for stack in found if stack["StackStatus"] != "DELETE_COMPLETE")


WHOLE = ["eksctl-gpu-cluster-cluster", "eksctl-gpu-cluster-nodegroup-cpu-workers", "eksctl-gpu-cluster-nodegroup-gpu-workers"]


def test_the_whole_walk_and_no_secret_in_any_file(eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    done = eks("run", "--target", "eks", "--run-id", "whole", *AGREED, "--json", timeout=280)
    assert len(json.loads(done.stdout)["top"]) == 10
    assert [argv[:2] for argv in eksctl.runs] == [["create", "cluster"], ["delete", "cluster"]]
    assert "--install-nvidia-plugin=false" in eksctl.runs[0]
    assert {"--wait", "--disable-nodegroup-eviction"} <= set(eksctl.runs[1])
    assert stacks(aws) == []
    assert aws.client("eks").list_clusters()["clusters"] == []
    folder = eks.folder("whole")
    document = yaml.safe_load((folder / "cluster.yaml").read_text())
    assert document["metadata"]["tags"]["gpurunbook/run"] == "whole"
    assert not (folder / "kubeconfig").exists()
    for path, text in texts(folder):
        for secret in (ACCOUNT, *CANARIES.values()):
            assert secret not in text, path
    report = (folder / "report.html").read_text()
    assert "What it cost" in report
    policy = json.loads((Path(__file__).parents[2] / "manifests" / "aws" / "reader.json").read_text())["Statement"][0]["Action"]
    asked = {f"{IAM.get(call.service, call.service)}:{call.operation}" for call in aws.calls if call.ours}
    assert asked - set(policy) == set()
    assert len(asked) > 30
    assert "CREATE_COMPLETE" in "".join(r["line"] for r in eks.records("whole") if r["kind"] == "event")
    assert not (eksctl.folder / "aws.log").exists()


@pytest.mark.parametrize(("missing", "args"), [
    ("confirm=gpu-cluster", ("--max-hours", "4", "--budget", "20")),
    ("--max-hours", ("--budget", "20", "-p", "confirm=gpu-cluster")),
    ("--budget", ("--max-hours", "4", "-p", "confirm=gpu-cluster")),
    ("confirm=gpu-cluster", ("--max-hours", "4", "--budget", "20", "-p", "confirm=gpu-cluster-2"))])
def test_nothing_begins_before_somebody_agreed(eks: Checkout, eksctl: StandIn, missing: str, args: tuple[str, ...]) -> None:
    done = eks("run", "--target", "eks", *args, check=False)
    assert done.returncode == 2
    assert missing in done.stderr
    assert not (eks.root / "runs").exists()
    assert eksctl.runs == []


def test_more_than_the_budget_is_not_begun(eks: Checkout, eksctl: StandIn) -> None:
    done = eks("run", "--target", "eks", "--from", "provision", "--until", "provision", "--max-hours", "4", "--budget", "1", "-p",
               "confirm=gpu-cluster", check=False)
    assert done.returncode == 1
    assert "the budget is $1.00" in done.stderr
    assert eksctl.runs == []


def kill_at(point: str, eks: Checkout, eksctl: StandIn, *args: str) -> None:
    """Start a walk, wait until eksctl hangs at a point, and kill walk, kernel and eksctl at once."""
    eksctl.set(hang=point)
    walk = subprocess.Popen(eks.argv(*args), cwd=eks.root, env=eks.environment, stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 90
    while not eksctl.hangs_at and time.monotonic() < deadline:
        assert walk.poll() is None, f"the walk ended before {point}"
        time.sleep(0.05)
    assert eksctl.hangs_at
    os.killpg(walk.pid, signal.SIGKILL)
    walk.wait()
    eksctl.set(hang=None)


@pytest.mark.parametrize("point", ["during-control-plane", "after-control-plane", "during-groups", "after-groups"])
def test_killed_during_create_it_finishes_what_is_there(point: str, eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    args = ("run", "--target", "eks", "--run-id", "killed", "--from", "provision", "--until", "provision", *AGREED[:6])
    kill_at(point, eks, eksctl, *args)
    before = stacks(aws)
    eks(*args)
    assert stacks(aws) == WHOLE
    made = [call.params["StackName"] for call in aws.calls if call.operation == "CreateStack"]
    assert sorted(set(made)) == sorted(made)
    assert sum(argv[:2] == ["create", "cluster"] for argv in eksctl.runs) == 1
    assert before
    # A third time nothing is missing.
    runs = len(eksctl.runs)
    eks(*args)
    assert len(eksctl.runs) == runs


@pytest.mark.parametrize("point", ["before-delete", "between-deletes"])
def test_killed_during_teardown_it_goes_on_to_an_empty_account(point: str, eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    provision(eks)
    kill_at(point, eks, eksctl, "teardown", "--run-id", "one")
    eks("teardown", "--run-id", "one")
    assert stacks(aws) == []
    assert aws.client("eks").list_clusters()["clusters"] == []
    assert not (eks.folder("one") / "kubeconfig").exists()
    eks("teardown", "--run-id", "one")


def test_where_aws_names_zones_with_capacity_the_group_is_made_there(eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    eksctl.set(fail={"gpu-workers": {"reason": ICE, "status": "CREATE_FAILED", "times": 1}})
    provision(eks)
    assert stacks(aws) == WHOLE
    assert [argv[:2] for argv in eksctl.runs if argv[0] != "utils"] == [
        ["create", "cluster"], ["delete", "nodegroup"], ["create", "nodegroup"]]
    groups = yaml.safe_load((eks.folder("one") / "cluster.yaml").read_text())["nodeGroups"]
    assert set(groups[0]["availabilityZones"]) <= {"eu-central-1b", "eu-central-1c"}
    failed = [r for r in eks.records("one") if r["kind"] == "event" and "FAILED" in r["status"]]
    assert failed


def test_without_retries_the_failure_is_named_and_only_that_group_is_made_again(eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    eksctl.set(fail={"gpu-workers": {"reason": "You have requested more vCPU capacity than your current vCPU limit of 0 allows "
                                     "for the instance bucket that the specified instance type belongs to.",
                                     "status": "ROLLBACK_COMPLETE", "times": 1}})
    done = provision(eks, check=False)
    assert done.returncode == 1
    assert "quota" in done.stderr
    assert "vCPU limit of 0" in done.stderr
    provision(eks)
    assert stacks(aws) == WHOLE
    assert sum(argv[:2] == ["create", "cluster"] for argv in eksctl.runs) == 1


def test_a_cluster_of_another_run_is_adopted_only_by_its_id(eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    provision(eks, "theirs")
    shutil.rmtree(eks.root / "runs")
    done = provision(eks, "mine", check=False)
    assert done.returncode == 1
    assert "--run-id theirs" in done.stderr
    assert len(eksctl.runs) == 1
    provision(eks, "theirs")
    assert [argv[:2] for argv in eksctl.runs] == [["create", "cluster"], ["utils", "write-kubeconfig"]]


def test_teardown_from_the_account_alone(eks: Checkout, aws: Aws) -> None:
    provision(eks)
    aws.client("ec2").create_volume(AvailabilityZone="eu-central-1a", Size=7, TagSpecifications=[
        {"ResourceType": "volume", "Tags": [{"Key": "kubernetes.io/cluster/gpu-cluster", "Value": "owned"}]}])
    aws.client("ec2").create_volume(AvailabilityZone="eu-central-1a", Size=8, TagSpecifications=[
        {"ResourceType": "volume", "Tags": [{"Key": "kubernetes.io/cluster/gpu-cluster-2", "Value": "owned"}]}])
    address = aws.client("ec2").allocate_address(Domain="vpc")["AllocationId"]
    shutil.rmtree(eks.root / "runs")
    eks("teardown", "--cluster", "gpu-cluster", "--region", REGION)
    assert stacks(aws) == []
    assert [volume["Size"] for volume in aws.client("ec2").describe_volumes()["Volumes"]] == [8]
    # moto makes a deleted stack's address anew when the stack is described, so there may be one more, without tags.
    assert address in [a["AllocationId"] for a in aws.client("ec2").describe_addresses()["Addresses"]]
    lost = eks("teardown", "--cluster", "nobodys", "--region", REGION, check=False)
    assert lost.returncode == 1
    assert "is not there" in lost.stderr


def test_what_cannot_be_looked_at_is_no_clean_account(eks: Checkout, aws: Aws) -> None:
    provision(eks)
    aws.deny("ec2", "DescribeVolumes")
    done = eks("teardown", "--run-id", "one", check=False)
    assert done.returncode == 1
    assert "volume" in done.stderr
    aws.mend()
    eks("teardown", "--run-id", "one")


def test_reap_lists_what_has_outlived_its_time_and_ends_it_when_confirmed(eks: Checkout, aws: Aws) -> None:
    reap = ("reap", "--region", REGION)
    provision(eks, "early", "--max-hours", "0.0005")  # two seconds
    shutil.rmtree(eks.root / "runs")
    listed = eks(*reap, check=False)
    assert listed.returncode == 1
    assert "early" in listed.stdout
    assert "gpu-cluster" in listed.stdout
    assert ACCOUNT not in listed.stdout + listed.stderr
    unsure = eks(*reap, "--run-id", "early", "--confirm", "gpu-cluster-2", check=False)
    assert unsure.returncode == 2
    assert stacks(aws) == WHOLE
    eks(*reap, "--run-id", "early", "--confirm", "gpu-cluster")
    assert stacks(aws) == []
    provision(eks, "late")
    kept = eks("reap")
    assert "late" in kept.stdout
    assert "regions" in kept.stdout
    assert eks(*reap, "--run-id", "late", "--confirm", "gpu-cluster", check=False).returncode == 1
    assert stacks(aws) == WHOLE


def test_a_run_whose_time_is_over_only_goes_on_to_its_end(eks: Checkout, aws: Aws) -> None:
    provision(eks, "short", "--max-hours", "0.0005")
    done = eks("run", "--target", "eks", "--run-id", "short", "--from", "nodes", "--until", "nodes", check=False)
    assert done.returncode == 1
    assert "gpurunbook teardown --run-id short" in done.stderr
    eks("teardown", "--run-id", "short")
    assert stacks(aws) == []


def test_preflight_and_ami_on_the_command_line(eks: Checkout, aws: Aws) -> None:
    began = time.monotonic()
    done = eks("preflight", "--target", "eks", "--json", check=False)
    took = time.monotonic() - began
    told = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in told["checks"]}
    assert took < 30  # two cores start Python, ask eight programs, and then AWS for at most 10 s
    assert done.returncode == int("fail" in states.values())
    assert states["AWS credentials"] == "pass"
    assert told["estimate"]["parts"]
    plain = eks("preflight", "--target", "eks", check=False)
    assert "later:" in plain.stdout
    assert "Warning" not in plain.stderr
    assert "US dollars an hour" in plain.stdout
    assert ACCOUNT not in plain.stdout
    image = eks("ami", "--region", REGION, "--kubernetes", "1.36", "--family", "Ubuntu2404")
    assert image.stdout.startswith("ami-")


def test_the_account_is_tried_only_when_asked_and_under_the_same_guards(eks: Checkout, aws: Aws, eksctl: StandIn) -> None:
    asked = ("run", "--target", "eks", "--run-id", "trial", "--until", "preflight", "-p", "account_check=cluster-1")
    refused = eks(*asked, check=False)
    assert refused.returncode != 0
    assert "--budget" in refused.stderr
    assert eksctl.runs == []
    eks(*asked, "--max-hours", "1", "--budget", "5", check=False)
    assert [argv[:2] for argv in eksctl.runs] == [["create", "cluster"], ["delete", "cluster"]]
    assert stacks(aws) == []
