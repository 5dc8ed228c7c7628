"""The whole table: every rule at once, none in another's way, within its time, and without an account id."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import boto3
import pytest

from gpurunbook.config import ClusterConfig, load_cluster
from gpurunbook.errors import RunbookError
from gpurunbook.plan import Check
from gpurunbook.targets.eks import preflight, registry
from gpurunbook.targets.eks.account import Account, AwsError
from tests.aws.answers import Answers, Refusal
from tests.aws.preflight import healthy
from tests.unit.eks.test_registry import Registry, manifest

ROOT = Path(__file__).resolve().parents[3]
TODAY = dt.date(2026, 11, 22)
SIZE = 10_400_000_000


@pytest.fixture
def server() -> Iterator[Registry]:
    with Registry() as made:
        made.answers["irbull/dolly", "0.2"] = 200, manifest(SIZE)
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def cluster() -> ClusterConfig:
    return load_cluster(ROOT / "cluster.yaml", TODAY)


def other(tmp_path: Path, *changes: tuple[str, str]) -> ClusterConfig:
    """cluster.yaml with some of its text replaced."""
    text = (ROOT / "cluster.yaml").read_text()
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "cluster.yaml").write_text(text)
    return load_cluster(tmp_path / "cluster.yaml", TODAY)


def table(account: Account, cluster: ClusterConfig, server: Registry, **given: Any) -> dict[str, Check]:
    found = preflight.checks(account, cluster, today=TODAY, image=f"{server.host}/irbull/dolly:0.2",
                             **{"which": lambda name: f"/usr/bin/{name}", "limit": 30, **given})
    assert len({check.name for check in found}) == len(found)
    assert all(check.later for check in found)
    assert all(check.fix or check.evidence == "no credentials" for check in found if check.state != "pass")
    return {check.name: check for check in found}


def states(found: dict[str, Check]) -> dict[str, str]:
    """Those that are no pass."""
    return {name: check.state for name, check in found.items() if check.state != "pass"}


def test_a_healthy_account_passes_every_rule(account: Account, answers: Answers, cluster: ClusterConfig,
                                             server: Registry) -> None:
    healthy(answers)
    found = table(account, cluster, server)
    assert states(found) == {}, found
    assert list(found) == [
        "AWS credentials", "kubectl can sign in to the cluster", "region", "the cluster's name is free",
        "IAM allows what eksctl does", "EKS version",
        "gpu-workers: instance type", "gpu-workers: g4dn.xlarge is offered", "gpu-workers: image", "gpu-workers: disk",
        "cpu-workers: instance type", "cpu-workers: m5.xlarge is offered", "cpu-workers: image",
        "two zones for the cluster", "quota: G and VT vCPUs", "quota: Standard (A, C, D, H, I, M, R, T, Z) vCPUs",
        "quota: Elastic IP addresses", "quota: VPCs in the region", "quota: internet gateways in the region",
        "quota: NAT gateways in a zone", "quota: EKS clusters in the region", "the model's image is in its registry"]
    assert found["AWS credentials"].evidence == "account ********9012, as ada"
    assert found["quota: G and VT vCPUs"].evidence == "4 needed, 0 of 64 vCPUs used, 64 free"
    assert found["quota: Standard (A, C, D, H, I, M, R, T, Z) vCPUs"].evidence == "8 needed, 0 of 64 vCPUs used, 64 free"
    assert found["EKS version"].evidence.endswith("253 days left")
    assert found["gpu-workers: image"].evidence.startswith("Ubuntu2404 ami-0a11ce0000000ub24 ubuntu-eks/k8s_1.36/")
    assert not any(check.fix for check in found.values())


def test_a_new_accounts_gpu_quota_of_zero_fails(account: Account, answers: Answers, cluster: ClusterConfig,
                                                server: Registry) -> None:
    healthy(answers)
    answers["service-quotas", "get_service_quota"] = {"Quota": {"Value": 0.0}}
    found = table(account, cluster, server)["quota: G and VT vCPUs"]
    assert (found.state, found.evidence) == ("fail", "4 needed, 0 of 0 vCPUs used, 0 free")


def test_types_that_run_and_the_cluster_lacks_are_looked_up(account: Account, answers: Answers, cluster: ClusterConfig,
                                                             server: Registry) -> None:
    healthy(answers)
    answers["ec2", "describe_instances"] = {"Reservations": [{"Instances": [
        {"InstanceType": "g5.12xlarge"}, {"InstanceType": "m5.large"},
        {"InstanceType": "g4dn.xlarge", "InstanceLifecycle": "spot"}]}]}
    found = table(account, cluster, server)
    assert found["quota: G and VT vCPUs"].evidence == "4 needed, 48 of 64 vCPUs used, 16 free"
    assert found["quota: Standard (A, C, D, H, I, M, R, T, Z) vCPUs"].evidence == "8 needed, 2 of 64 vCPUs used, 62 free"


def test_a_spot_group_is_compared_with_the_spot_quota(account: Account, answers: Answers, tmp_path: Path,
                                                      server: Registry) -> None:
    healthy(answers)
    answers["ec2", "describe_instances"] = {"Reservations": [{"Instances": [
        {"InstanceType": "m5.large", "InstanceLifecycle": "spot"}, {"InstanceType": "m5.xlarge"}]}]}
    spot = other(tmp_path, ("    instanceType: m5.xlarge\n", "    instanceType: m5.xlarge\n    spot: true\n"))
    found = table(account, spot, server)
    assert found["quota: Standard (A, C, D, H, I, M, R, T, Z) vCPUs, spot"].evidence == "8 needed, 2 of 64 vCPUs used, 62 free"
    assert "quota: Standard (A, C, D, H, I, M, R, T, Z) vCPUs" not in found
    codes = {p["QuotaCode"] for _, name, p in answers.calls if name == "get_service_quota"}
    assert {"L-34B43A08", "L-DB2E81BA"} < codes
    assert "L-1216C47A" not in codes


@pytest.mark.parametrize(("distribution", "expected"), [
    ({"onDemandBaseCapacity": 0, "onDemandPercentageAboveBaseCapacity": 0}, {"gpu-workers"}),
    ({"onDemandBaseCapacity": 1, "onDemandPercentageAboveBaseCapacity": 0}, set()),
    ({"onDemandPercentageAboveBaseCapacity": 50}, set()), ({}, set())])
def test_a_self_managed_group_is_spot_when_nothing_in_it_is_on_demand(distribution: dict[str, int], expected: set[str]) -> None:
    assert preflight._spot({"nodeGroups": [{"name": "gpu-workers", "instancesDistribution": distribution}]}) == expected


def test_the_posts_version_and_image_fail_and_the_rest_does_not(account: Account, answers: Answers, server: Registry) -> None:
    healthy(answers)
    found = table(account, load_cluster(ROOT / "tests" / "data" / "cluster.post.yaml", TODAY), server)
    assert found["EKS version"].evidence == "1.27 is not supported; supported: 1.36, 1.35, 1.34, 1.33, 1.31"
    assert found["gpu-workers: image"].evidence.startswith("ami-0ff21ec7370b1f3fb is not to be seen in eu-central-1")
    assert states(found) == {"EKS version": "fail", "gpu-workers: image": "fail", "cpu-workers: image": "fail"}


def test_ten_days_are_left_of_1_34(account: Account, answers: Answers, tmp_path: Path, server: Registry) -> None:
    healthy(answers)
    found = table(account, other(tmp_path, ('version: "1.36"', 'version: "1.34"')), server)["EKS version"]
    assert (found.state, found.evidence) == ("warn", "1.34 is in standard support until 2026-12-02: 10 days left")
    assert found.later == "from 2 Dec 2026 on AWS upgrades the control plane by itself"  # cluster.yaml says STANDARD


def test_a_vpc_of_ones_own_needs_no_room(account: Account, answers: Answers, tmp_path: Path, server: Registry) -> None:
    healthy(answers)
    answers["service-quotas", "get_service_quota"] = {"Quota": {"Value": 1.0}}  # taken by moto's default VPC
    full = table(account, other(tmp_path), server)
    assert full["quota: VPCs in the region"].state == "fail"
    subnets = "{private: {eu-central-1a: {id: subnet-1}, eu-central-1b: {id: subnet-2}}}"
    own = table(account, other(tmp_path, ("upgradePolicy:", f"vpc: {{id: vpc-1, subnets: {subnets}}}\nupgradePolicy:")), server)
    assert own["quota: VPCs in the region"].evidence == "0 needed, 1 of 1 VPCs used, 0 free"
    assert own["quota: VPCs in the region"].state == "pass"
    assert own["quota: Elastic IP addresses"].evidence.startswith("0 needed")


def test_g7_on_amazon_linux_fails(account: Account, answers: Answers, tmp_path: Path, server: Registry) -> None:
    healthy(answers)
    g7 = other(tmp_path, ("instanceType: g4dn.xlarge", "instanceType: g7.xlarge"),
               ("amiFamily: Ubuntu2404", "amiFamily: AmazonLinux2023"))
    found = table(account, g7, server)
    assert found["gpu-workers: the driver knows the GPU"].state == "fail"
    assert found["gpu-workers: instance type"].state == "fail"  # moto's region has no G7 yet
    assert found["quota: G and VT vCPUs"].state == "unknown"
    assert "no instance type g7.xlarge" in found["quota: G and VT vCPUs"].evidence


def test_a_refusal_is_unknown_and_names_the_permission(account: Account, answers: Answers, cluster: ClusterConfig,
                                                       server: Registry) -> None:
    healthy(answers)
    answers["service-quotas", "get_service_quota"] = Refusal("AccessDeniedException", "User is not authorized")
    answers["iam", "simulate_principal_policy"] = Refusal("AccessDenied")
    found = table(account, cluster, server)
    assert set(states(found).values()) == {"unknown"}
    assert set(states(found)) == {"IAM allows what eksctl does", *(name for name in found if name.startswith("quota: "))}
    assert found["quota: G and VT vCPUs"].evidence == "not allowed: servicequotas:GetServiceQuota"
    assert found["quota: G and VT vCPUs"].fix.startswith("allow servicequotas:GetServiceQuota (manifests/aws/reader.json)")
    assert found["IAM allows what eksctl does"].evidence == "not allowed: iam:SimulatePrincipalPolicy"


def test_a_rule_that_breaks_is_unknown_and_stops_no_other(account: Account, answers: Answers, cluster: ClusterConfig,
                                                          server: Registry) -> None:
    healthy(answers)
    answers["eks", "describe_cluster_versions"] = {"clusterVersions": [{"unexpected": 1}]}
    found = table(account, cluster, server)
    assert states(found) == {"EKS version": "unknown"}
    assert found["EKS version"].evidence == "KeyError: 'clusterVersion'"


def test_without_credentials_one_check_fails_and_the_others_say_why_in_two_words(
        account: Account, answers: Answers, cluster: ClusterConfig, server: Registry) -> None:
    healthy(answers)
    refusal = Refusal("ExpiredToken", "The security token included in the request is expired")
    # Each call is refused, as on AWS: what moto would answer meanwhile may come before the identity's refusal, or after it.
    answers.given = dict.fromkeys({*answers.given, ("sts", "get_caller_identity"), ("ec2", "describe_regions")}, refusal)
    found = table(account, cluster, server)
    assert found["AWS credentials"].state == "fail"
    assert found["AWS credentials"].fix.startswith("sign in again: aws sso login")
    passed = {"kubectl can sign in to the cluster", "the model's image is in its registry", "gpu-workers: disk"}
    assert {name for name, check in found.items() if check.state == "pass"} == passed
    assert {check.evidence for name, check in found.items() if name not in {*passed, "AWS credentials"}} == {"no credentials"}


def test_a_region_that_is_not_enabled_says_so(account: Account, answers: Answers, tmp_path: Path, server: Registry) -> None:
    """There, good credentials are invalid ones; at home they are good."""
    healthy(answers)
    off = other(tmp_path, ("region: eu-central-1", "region: ap-east-1"))
    answers["eks", "list_clusters"] = Refusal("UnrecognizedClientException", "The security token is invalid")
    answers["ec2", "describe_regions"] = {"Regions": [{"RegionName": "ap-east-1", "OptInStatus": "not-opted-in"}]}
    session = answers.install(boto3.Session())
    session.events.register("before-call.sts", _invalid_away_from("us-east-1"))
    found = table(Account("ap-east-1", session), off, server)
    assert (found["region"].state, found["region"].evidence) == ("fail", "ap-east-1 is not enabled in this account")
    assert found["AWS credentials"].state == "pass"
    clusters = found["quota: EKS clusters in the region"]
    assert (clusters.state, clusters.evidence) == (
        "unknown", "eks:ListClusters does not take these credentials: UnrecognizedClientException")


def _invalid_away_from(home: str) -> Callable[..., None]:
    def refuse(context: dict[str, Any], **_: Any) -> None:
        if context["client_region"] != home:
            raise AssertionError(f"STS was asked in {context['client_region']}")
    return refuse


def test_what_is_known_without_credentials_is_kept() -> None:
    answer: Future[Check] = Future()
    answer.set_result(Check("region", "fail", "not enabled in this account", "x"))
    assert preflight.outcome(preflight.Rule("region", "x", answer), 10, signed_out=True).state == "fail"
    assert preflight.outcome(preflight.Rule("region", "x", Future()), 10, signed_out=True).evidence == "no credentials"


def test_with_no_credentials_at_all_the_table_comes_at_once(cluster: ClusterConfig, server: Registry,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_CONFIG_FILE", "/nowhere"),
                        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")):
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    found = table(Account("eu-central-1", boto3.Session()), cluster, server)
    assert time.monotonic() - began < 5
    assert (found["AWS credentials"].state, found["region"].evidence) == ("fail", "no credentials")
    assert "no AWS credentials were found" in found["AWS credentials"].evidence


def test_root_is_warned_of(account: Account, answers: Answers, cluster: ClusterConfig, server: Registry) -> None:
    healthy(answers)
    answers["sts", "get_caller_identity"] = {"Account": "123456789012", "Arn": "arn:aws:iam::123456789012:root"}
    assert states(table(account, cluster, server)) == {"AWS credentials": "warn", "IAM allows what eksctl does": "unknown"}


def test_who_we_are_is_unknown_when_sts_does_not_answer() -> None:
    who: Future[dict[str, str]] = Future()
    assert preflight.credentials(who, 10).evidence == "no answer within 10 s"
    who.set_exception(AwsError("no route", "EndpointConnectionError", where="sts:GetCallerIdentity", next="x"))
    assert (preflight.credentials(who, 10).state, preflight.credentials(who, 10).fix) == ("unknown", "x")


@pytest.mark.parametrize(("on_path", "state"), [({"aws"}, "pass"), ({"aws-iam-authenticator"}, "pass"), ({"kubectl"}, "fail")])
def test_the_kubeconfig_needs_a_program_that_signs_in(on_path: set[str], state: str) -> None:
    found = preflight.authenticator(lambda name: f"/usr/bin/{name}" if name in on_path else None)
    assert found.state == state
    assert bool(on_path & {found.evidence.split()[0]}) == (state == "pass")


def test_an_image_that_is_not_there_fails_and_leaves_the_disk_unknown(account: Account, answers: Answers, cluster: ClusterConfig,
                                                                     server: Registry) -> None:
    healthy(answers)
    server.answers.clear()
    found = table(account, cluster, server)
    assert states(found) == {"the model's image is in its registry": "fail", "gpu-workers: disk": "unknown"}


@pytest.mark.parametrize("error", [
    registry.NoAnswer("no network", next="x"), AwsError("no", "Throttling", where="ecr:BatchGetImage", next="x")])
def test_an_image_that_could_not_be_asked_for_is_unknown(error: RunbookError) -> None:
    found: Future[registry.Found] = Future()
    found.set_exception(error)
    with pytest.raises(type(error)):
        preflight._pulled(found)
    rule = preflight.Rule(registry.NAME, registry.LATER, found)
    assert (preflight.outcome(rule, 10).state, preflight.outcome(rule, 10).fix) == ("unknown", "x")


def test_weights_that_are_baked_in_need_no_room_of_their_own(account: Account, answers: Answers, cluster: ClusterConfig,
                                                             server: Registry) -> None:
    healthy(answers)
    assert "+ 5.7 GB weights" in table(account, cluster, server)["gpu-workers: disk"].evidence
    assert "weights" not in table(account, cluster, server, model_gb=0)["gpu-workers: disk"].evidence


def test_no_check_shows_the_account(account: Account, answers: Answers, cluster: ClusterConfig, server: Registry) -> None:
    healthy(answers)
    denied = "User: arn:aws:iam::123456789012:user/ada is not authorized to use account 123456789012"
    for call in (("eks", "describe_cluster_versions"), ("ec2", "describe_addresses"), ("eks", "list_clusters")):
        answers[call] = Refusal("InternalFailure", denied)
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/irbull/dolly:0.2"
    account.call("ecr", "create_repository", repositoryName="irbull/dolly")
    text = json.dumps(manifest(5))
    account.call("ecr", "put_image", repositoryName="irbull/dolly", imageManifest=text, imageTag="0.2")
    found = preflight.checks(account, cluster, today=TODAY, image=image, limit=30)
    assert [c for c in found if c.state == "unknown" and "user/ada" in c.evidence]
    assert [c for c in found if c.name == registry.NAME and c.state == "pass"]
    assert not [c for c in found if "123456789012" in repr(c)]


def test_ten_seconds_are_enough_for_slow_answers_and_one_that_hangs(account: Account, answers: Answers, cluster: ClusterConfig,
                                                                    server: Registry) -> None:
    healthy(answers)
    turn, release, before = itertools.count(), threading.Event(), set(threading.enumerate())
    answers["eks", "describe_cluster"] = Refusal("ResourceNotFoundException")
    answers["cloudformation", "describe_stacks"] = Refusal("ValidationError", "Stack does not exist")
    for call, given in {  # what moto answers at once elsewhere
            ("ec2", "describe_regions"): {"Regions": [{"RegionName": "eu-central-1"}]},
            ("ec2", "describe_instances"): {"Reservations": [{"Instances": [{"InstanceType": "g5.xlarge"}]}]},
            ("ec2", "describe_availability_zones"): {"AvailabilityZones": [{"ZoneName": f"eu-central-1{z}"} for z in "abc"]},
            ("ec2", "describe_instance_type_offerings"): {"InstanceTypeOfferings": [
                {"InstanceType": t, "Location": f"eu-central-1{z}"} for t in ("g4dn.xlarge", "m5.xlarge") for z in "abc"]},
            ("ec2", "describe_instance_types"): {"InstanceTypes": [
                {"InstanceType": t, "VCpuInfo": {"DefaultVCpus": 4}, "MemoryInfo": {"SizeInMiB": 16384},
                 "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
                 "GpuInfo": {"Gpus": [{"Count": 1, "Manufacturer": "NVIDIA"}]}}
                for t in ("g4dn.xlarge", "g5.xlarge", "m5.xlarge")]},
            ("ec2", "describe_addresses"): {"Addresses": []}, ("ec2", "describe_vpcs"): {"Vpcs": []},
            ("ec2", "describe_internet_gateways"): {"InternetGateways": []},
            ("ec2", "describe_nat_gateways"): {"NatGateways": []},
            ("eks", "list_clusters"): {"clusters": []}}.items():
        answers[call] = given

    def slow(given: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
        def answer(params: dict[str, Any]) -> dict[str, Any]:
            time.sleep(1 + next(turn) % 5 / 4)  # 1 to 2 s
            if isinstance(given, Exception):
                raise given
            result: dict[str, Any] = given(params) if callable(given) else given
            return result
        return answer

    for call in list(answers.given):
        answers[call] = slow(answers.given[call])

    def hang(params: dict[str, Any]) -> dict[str, Any]:
        assert release.wait(60)
        return {}

    answers["ec2", "describe_addresses"] = hang
    began = time.monotonic()
    found = table(account, cluster, server, limit=10.0)
    took = time.monotonic() - began
    hanging = [thread for thread in threading.enumerate() if thread.name == "preflight" and thread not in before]
    release.set()
    assert took < 10.5
    assert states(found) == {"quota: Elastic IP addresses": "unknown"}, states(found)
    assert found["quota: Elastic IP addresses"].evidence == "no answer within 10 s"
    assert hanging
    assert all(thread.daemon for thread in hanging)  # so that the program can end
    for thread in hanging:
        thread.join(10)


def test_groups_that_start_without_nodes_need_no_quota(account: Account, answers: Answers, tmp_path: Path,
                                                       server: Registry) -> None:
    healthy(answers)
    none = other(tmp_path, ("minSize: 1\n    desiredCapacity: 2", "minSize: 0\n    desiredCapacity: 0"))
    assert not [name for name in table(account, none, server) if "Standard" in name or "cpu-workers" in name]

