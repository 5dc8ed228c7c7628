"""The account for other processes, and the stand-in eksctl: what they promise to the tests that lean on them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.exceptions import ClientError

from gpurunbook import programs
from gpurunbook.programs import locate
from gpurunbook.programs.eksctl import Eksctl
from tests.aws import eksctl, fixtures
from tests.aws.fixtures import StandIn
from tests.aws.lacking import image
from tests.aws.server import Aws

aws_server, aws, stand_in = fixtures.aws_server, fixtures.aws, fixtures.stand_in
RECORDED = Path(__file__).parents[2] / "data" / "eksctl"
CLUSTER = Path(__file__).parents[3] / "cluster.yaml"
RUN = {"gpurunbook/run": "1122-otter"}
REASON = "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have <enough> & so on"
CONTROL, GPU, CPU = "eksctl-gpu-cluster-cluster", "eksctl-gpu-cluster-nodegroup-gpu-workers", \
    "eksctl-gpu-cluster-nodegroup-cpu-workers"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """cluster.yaml with a run's tag."""
    config = yaml.safe_load(CLUSTER.read_text())
    config["metadata"]["tags"] = RUN
    made = tmp_path / "cluster.yaml"
    made.write_text(yaml.safe_dump(config))
    return made


@pytest.fixture
def given(tmp_path: Path, stand_in: StandIn) -> Path:
    """The kubeconfig that a create copies."""
    made = tmp_path / "given.yaml"
    made.write_text(yaml.safe_dump({
        "clusters": [{"name": "kwok", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": "QUJD"}}],
        "users": [{"name": "kwok", "user": {"client-key": "pki/key"}}], "contexts": [], "current-context": ""}))
    stand_in.set(kubeconfig=made)
    return made


def call(aws: Aws, stand_in: StandIn, *args: str | Path, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([stand_in.program, *args], env=environment(aws) | extra, capture_output=True, text=True, timeout=30)


def start(aws: Aws, stand_in: StandIn, *args: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([stand_in.program, *args], env=environment(aws), stdout=subprocess.DEVNULL,
                            stderr=subprocess.DEVNULL)


def environment(aws: Aws) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "LANG": "C.UTF-8", **aws.environment}


def until(true: Callable[[], Any], limit: float = 20) -> Any:
    began = time.monotonic()
    while not (found := true()):
        assert time.monotonic() - began < limit
        time.sleep(0.02)
    return found


def create(aws: Aws, stand_in: StandIn, file: Path) -> subprocess.CompletedProcess[str]:
    command = Eksctl(str(stand_in.program)).create_cluster(file, file.with_name("kubeconfig"))
    return call(aws, stand_in, *command.argv[1:])


def stacks(aws: Aws) -> dict[str, str]:
    return {s["StackName"]: s["StackStatus"] for s in aws.seen("cloudformation").describe_stacks()["Stacks"]}


def instances(aws: Aws) -> list[dict[str, Any]]:
    found = aws.seen("ec2").describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running", "pending"]}])
    return [one for reservation in found["Reservations"] for one in reservation["Instances"]]


def tags(of: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in of["Tags"]}


def test_a_create_makes_what_eksctl_makes(aws: Aws, stand_in: StandIn, file: Path, given: Path) -> None:
    done = create(aws, stand_in, file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# invented")
    assert stacks(aws) == dict.fromkeys((CONTROL, GPU, CPU), "CREATE_COMPLETE")
    for stack in aws.seen("cloudformation").describe_stacks()["Stacks"]:
        assert tags(stack)["alpha.eksctl.io/cluster-name"] == "gpu-cluster"
        assert tags(stack).items() >= RUN.items()
    cluster = aws.seen("eks").describe_cluster(name="gpu-cluster")["cluster"]
    assert (cluster["status"], cluster["version"], cluster["endpoint"]) == ("ACTIVE", "1.36", "https://127.0.0.1:6443")
    assert cluster["tags"].items() >= RUN.items()
    assert {"vpcId", "clusterSecurityGroupId"} <= set(cluster["resourcesVpcConfig"])
    group = aws.seen("eks").describe_nodegroup(clusterName="gpu-cluster", nodegroupName="cpu-workers")["nodegroup"]
    assert (group["status"], group["scalingConfig"]["desiredSize"]) == ("ACTIVE", 2)
    found = instances(aws)
    assert sorted(i["InstanceType"] for i in found) == ["g4dn.xlarge", "m5.xlarge", "m5.xlarge"]
    assert all(tags(i).items() >= (RUN | {"kubernetes.io/cluster/gpu-cluster": "owned"}).items() for i in found)
    assert next(i["ImageId"] for i in found if i["InstanceType"] == "g4dn.xlarge") == image("Ubuntu2404")
    assert all(tags(v).items() >= RUN.items() for v in aws.seen("ec2").describe_volumes()["Volumes"])
    (address,) = aws.seen("ec2").describe_addresses()["Addresses"]
    assert tags(address).items() >= RUN.items()


def test_the_kubeconfig_is_added_to_what_is_there(aws: Aws, stand_in: StandIn, file: Path, given: Path) -> None:
    target = file.with_name("kubeconfig")
    target.write_text(yaml.safe_dump({"clusters": [{"name": "old", "cluster": {}}], "current-context": "old"}))
    create(aws, stand_in, file)
    written = yaml.safe_load(target.read_text())
    assert [c["name"] for c in written["clusters"]] == ["old", "gpu-cluster.eu-central-1.eksctl.io"]
    assert written["current-context"] == "moto@gpu-cluster.eu-central-1.eksctl.io"
    assert written["users"][0]["user"]["client-key"] == str(given.parent / "pki" / "key")


def test_a_fresh_kubeconfig_is_private(aws: Aws, stand_in: StandIn, file: Path, given: Path) -> None:
    create(aws, stand_in, file)
    assert file.with_name("kubeconfig").stat().st_mode & 0o077 == 0


def test_a_failed_group_is_told_in_aws_words_and_can_be_remade(
        aws: Aws, stand_in: StandIn, file: Path, given: Path) -> None:
    stand_in.set(fail={"gpu-workers": {"reason": REASON, "times": 1}})
    done = create(aws, stand_in, file)
    assert done.returncode == 1
    assert done.stderr == 'Error: failed to create cluster "gpu-cluster"\n'
    assert not file.with_name("kubeconfig").exists()
    until(lambda: stacks(aws)[GPU] == "ROLLBACK_COMPLETE", 2)
    assert stacks(aws)[CPU] == "CREATE_COMPLETE"
    events = aws.seen("cloudformation").describe_stack_events(StackName=GPU)["StackEvents"]
    (failure,) = [e for e in events if e["ResourceStatus"] == "CREATE_FAILED"]
    assert failure["ResourceStatusReason"] == REASON
    assert events[0]["ResourceStatus"] == "ROLLBACK_COMPLETE"  # the newest first
    assert [i["InstanceType"] for i in instances(aws)] == ["m5.xlarge", "m5.xlarge"]

    again = create(aws, stand_in, file)
    assert again.returncode == 1
    assert f"AlreadyExistsException: Stack [{CONTROL}] already exists" in again.stdout
    remake = ("create", "nodegroup", f"--config-file={file}", "--include=gpu-workers", "--install-nvidia-plugin=false")
    believed = call(aws, stand_in, *remake)
    assert believed.returncode == 0  # eksctl#4977
    assert "existing nodegroup(s) (cpu-workers,gpu-workers) will be excluded" in believed.stdout
    assert stacks(aws)[GPU] == "ROLLBACK_COMPLETE"

    call(aws, stand_in, "delete", "nodegroup", "--cluster=gpu-cluster", "--name=gpu-workers", "--region=eu-central-1",
         "--wait", "--disable-eviction")
    assert set(stacks(aws)) == {CONTROL, CPU}
    assert call(aws, stand_in, *remake).returncode == 0
    assert stacks(aws)[GPU] == "CREATE_COMPLETE"
    assert len(instances(aws)) == 3


def test_a_starved_group_is_complete_and_has_no_nodes(aws: Aws, stand_in: StandIn, file: Path, given: Path) -> None:
    stand_in.set(starve={"gpu-workers": REASON})
    done = create(aws, stand_in, file)
    assert done.returncode == 1
    assert "timed out waiting" in done.stderr
    assert stacks(aws)[GPU] == "CREATE_COMPLETE"
    assert [i["InstanceType"] for i in instances(aws)] == ["m5.xlarge", "m5.xlarge"]
    made = aws.seen("cloudformation").describe_stack_resource(StackName=GPU, LogicalResourceId="NodeGroup")
    name = made["StackResourceDetail"]["PhysicalResourceId"]
    (activity,) = aws.seen("autoscaling").describe_scaling_activities(AutoScalingGroupName=name)["Activities"]
    assert (activity["StatusCode"], activity["StatusMessage"]) == ("Failed", REASON)
    assert aws.seen("autoscaling").describe_scaling_activities(AutoScalingGroupName="other")["Activities"] == []


def test_deleting_by_file_waits_for_approval(aws: Aws, stand_in: StandIn, file: Path) -> None:
    create(aws, stand_in, file)
    line = ("delete", "nodegroup", f"--config-file={file}", "--include=gpu-*", "--wait")
    assert "'--approve'" in call(aws, stand_in, *line).stdout
    assert GPU in stacks(aws)
    call(aws, stand_in, *line, "--approve")
    assert set(stacks(aws)) == {CONTROL, CPU}


@pytest.mark.parametrize(("point", "there"), [
    ("before-control-plane", set()), ("during-control-plane", {CONTROL}), ("after-control-plane", {CONTROL}),
    ("during-groups", {CONTROL, GPU, CPU}), ("after-groups", {CONTROL, GPU, CPU})])
def test_the_account_goes_on_when_a_create_is_killed(
        aws: Aws, stand_in: StandIn, file: Path, point: str, there: set[str]) -> None:
    stand_in.set(hang=point)
    process = start(aws, stand_in, "create", "cluster", f"--config-file={file}", f"--kubeconfig={file}.k")
    until(lambda: stand_in.hangs_at == point)
    process.send_signal(signal.SIGKILL)
    process.wait(5)
    assert set(stacks(aws)) == there
    until(lambda: set(stacks(aws).values()) <= {"CREATE_COMPLETE"}, 3)
    assert not Path(f"{file}.k").exists()


def test_progress_can_be_watched(aws: Aws, stand_in: StandIn, file: Path) -> None:
    stand_in.set(hang="during-control-plane", seconds={"cluster": 4})
    process = start(aws, stand_in, "create", "cluster", f"--config-file={file}", f"--kubeconfig={file}.k")
    until(lambda: stand_in.hangs_at)
    process.kill()
    process.wait(5)
    assert stacks(aws)[CONTROL] == "CREATE_IN_PROGRESS"
    assert aws.seen("eks").describe_cluster(name="gpu-cluster")["cluster"]["status"] == "CREATING"
    listed = aws.seen("cloudformation").list_stacks(StackStatusFilter=["CREATE_IN_PROGRESS"])["StackSummaries"]
    assert [s["StackName"] for s in listed] == [CONTROL]
    before = aws.seen("cloudformation").describe_stack_events(StackName=listed[0]["StackId"])["StackEvents"]
    assert {e["ResourceStatus"] for e in before} == {"CREATE_IN_PROGRESS"}
    assert {e["StackId"] for e in before} == {listed[0]["StackId"]}
    until(lambda: stacks(aws)[CONTROL] == "CREATE_COMPLETE", 8)
    after = aws.seen("cloudformation").describe_stack_events(StackName=CONTROL)["StackEvents"]
    assert {e["EventId"] for e in before} < {e["EventId"] for e in after}
    assert aws.seen("eks").describe_cluster(name="gpu-cluster")["cluster"]["status"] == "ACTIVE"


def test_a_delete_leaves_the_log_group_only(aws: Aws, stand_in: StandIn, file: Path) -> None:
    stand_in.set(log_group=True)
    empty = everything(aws)
    create(aws, stand_in, file)
    command = Eksctl(str(stand_in.program)).delete_cluster("gpu-cluster", "eu-central-1")
    done = call(aws, stand_in, *command.argv[1:])
    assert done.returncode == 0, done.stderr
    assert everything(aws) == empty | {"log group /aws/eks/gpu-cluster/cluster"}
    assert call(aws, stand_in, *command.argv[1:]).returncode == 1


def test_a_killed_delete_is_finished_by_a_second(aws: Aws, stand_in: StandIn, file: Path) -> None:
    create(aws, stand_in, file)
    stand_in.set(hang="between-deletes")
    line = ("delete", "cluster", "--name=gpu-cluster", "--region=eu-central-1", "--wait", "--disable-nodegroup-eviction")
    process = start(aws, stand_in, *line)
    until(lambda: stand_in.hangs_at)
    process.kill()
    process.wait(5)
    assert set(stacks(aws)) == {CONTROL}
    stand_in.set(hang=None)
    assert call(aws, stand_in, *line).returncode == 0
    assert stacks(aws) == {}


def test_a_delete_can_fail(aws: Aws, stand_in: StandIn, file: Path) -> None:
    create(aws, stand_in, file)
    stand_in.set(fail_delete={"cluster": {"reason": "The vpc has dependencies and cannot be deleted."}})
    line = ("delete", "cluster", "--name=gpu-cluster", "--region=eu-central-1", "--wait")
    assert call(aws, stand_in, *line).returncode == 1
    assert stacks(aws) == {CONTROL: "DELETE_FAILED"}
    assert call(aws, stand_in, *line).returncode == 0


def test_a_failed_control_plane_goes_with_its_stack_only(aws: Aws, stand_in: StandIn, file: Path) -> None:
    stand_in.set(fail={"control-plane": {"reason": "limit exceeded"}})
    assert create(aws, stand_in, file).returncode == 1
    until(lambda: stacks(aws) == {CONTROL: "ROLLBACK_COMPLETE"}, 2)
    line = ("delete", "cluster", "--name=gpu-cluster", "--wait")
    assert call(aws, stand_in, *line).returncode == 1
    assert call(aws, stand_in, *line, "--force").returncode == 2
    aws.seen("cloudformation").delete_stack(StackName=CONTROL)
    assert stacks(aws) == {}


def test_deleting_a_stack_without_eksctl_takes_what_is_in_it(aws: Aws, stand_in: StandIn, file: Path) -> None:
    create(aws, stand_in, file)
    aws.seen("cloudformation").delete_stack(StackName=GPU)
    assert set(stacks(aws)) == {CONTROL, CPU}
    assert len(instances(aws)) == 2


def everything(aws: Aws) -> set[str]:
    """What is there, and costs or clutters."""
    ec2, found = aws.client("ec2"), set(stacks(aws))
    found |= {i["InstanceId"] for i in instances(aws)} | set(aws.client("eks").list_clusters()["clusters"])
    for kind, name in (("Volumes", "VolumeId"), ("Vpcs", "VpcId"), ("SecurityGroups", "GroupId"), ("Addresses", "AllocationId"),
                       ("Subnets", "SubnetId"), ("InternetGateways", "InternetGatewayId")):
        operation = "describe_" + re.sub(r"(?<!^)([A-Z])", r"_\1", kind).lower()
        found |= {one[name] for one in getattr(ec2, operation)()[kind]}
    found |= {one["NatGatewayId"] for one in ec2.describe_nat_gateways()["NatGateways"] if one["State"] != "deleted"}
    found |= {role["RoleName"] for role in aws.client("iam").list_roles()["Roles"]}
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    found |= {one["AutoScalingGroupName"] for one in groups}
    found |= {one["LaunchTemplateId"] for one in ec2.describe_launch_templates()["LaunchTemplates"]}
    return found | {f"log group {group['logGroupName']}" for group in aws.client("logs").describe_log_groups()["logGroups"]}


def recorded(name: str) -> tuple[int, str]:
    """Exit code and standard error of a recorded run."""
    text = (RECORDED / f"{name}.txt").read_text()
    code = re.search(r"^# exit (\d+)$", text, re.MULTILINE)
    assert code
    return int(code[1]), text.partition("# stderr\n")[2]


def masked(text: str) -> str:
    """Without what differs: request ids, where the file is, and which versions AWS supports."""
    text = re.sub(r"RequestID: \S+", "RequestID: X,", text)
    text = re.sub(r"(api error )?\w+(Error|Exception): No cluster", "No cluster", text)
    return re.sub(r'supported values: [\d., ]+|(?<=config file ")[^"]*', "", text)


@pytest.mark.parametrize(("name", "change", "args"), [
    ("create-unknown-field", ("instanceType: g4dn", "instanceTpye: g4dn"), ("create", "cluster", "-f", "FILE", "--dry-run")),
    ("create-unsupported-version", ('"1.36"', '"1.27"'), ("create", "cluster", "-f", "FILE", "--dry-run")),
    ("dry-run-rejects-nvidia-flag", ("", ""),
     ("create", "cluster", "-f", "FILE", "--dry-run", "--install-nvidia-plugin=false")),
    ("delete-absent", ("", ""), ("delete", "cluster", "--name", "gpu-cluster", "--region", "eu-central-1", "--wait")),
    ("get-cluster-absent", ("", ""), ("get", "cluster", "--name", "gpu-cluster", "-o", "json")),
    ("get-nodegroup-absent", ("", ""), ("get", "nodegroup", "--cluster", "gpu-cluster", "-o", "json")),
])
def test_refusals_are_the_recorded_ones(aws: Aws, stand_in: StandIn, tmp_path: Path, name: str, change: tuple[str, str],
                                        args: tuple[str, ...]) -> None:
    file = tmp_path / "changed.yaml"
    file.write_text(CLUSTER.read_text().replace(*change, 1))
    done = call(aws, stand_in, *(str(file) if arg == "FILE" else arg for arg in args))
    code, said = recorded(name)
    assert done.returncode == code
    assert masked(done.stderr.replace(eksctl.INVENTED + "\n", "")) == masked(said)


def test_without_credentials_it_does_nothing(aws: Aws, stand_in: StandIn, file: Path) -> None:
    done = call(aws, stand_in, "create", "cluster", f"--config-file={file}", AWS_ACCESS_KEY_ID="")
    assert done.returncode == recorded("create-no-credentials")[0]
    assert recorded("create-no-credentials")[1].startswith(done.stderr.strip())
    assert stacks(aws) == {}


def test_credentials_that_expired_stop_it(aws: Aws, stand_in: StandIn, file: Path) -> None:
    aws.fail("sts", "GetCallerIdentity", code="ExpiredToken", message="it is expired", status=403)
    done = create(aws, stand_in, file)
    assert done.returncode == 1
    assert "StatusCode: 403, RequestID: 0, ExpiredToken: it is expired" in done.stderr


def test_addons_are_eksctls_own_work(aws: Aws, stand_in: StandIn, file: Path) -> None:
    stand_in.set(hang="after-control-plane")
    process = start(aws, stand_in, "create", "cluster", f"--config-file={file}")
    until(lambda: stand_in.hangs_at)
    process.kill()
    process.wait(5)
    assert aws.seen("eks").list_addons(clusterName="gpu-cluster")["addons"] == []
    for name in eksctl.ADDONS:
        assert call(aws, stand_in, *Eksctl().create_addon(name, "gpu-cluster", "eu-central-1").argv[1:]).returncode == 0
    assert aws.seen("eks").list_addons(clusterName="gpu-cluster")["addons"] == list(eksctl.ADDONS)
    assert aws.seen("eks").describe_addon(clusterName="gpu-cluster", addonName="coredns")["addon"]["status"] == "ACTIVE"
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        aws.seen("eks").list_addons(clusterName="another")


def test_a_cluster_without_a_file(aws: Aws, stand_in: StandIn, given: Path, tmp_path: Path) -> None:
    command = Eksctl().try_account("cluster-1", "eu-central-1", "1.36", tmp_path / "kubeconfig", RUN)
    done = call(aws, stand_in, *command.argv[1:])
    assert done.returncode == 0, done.stderr
    assert set(stacks(aws)) == {"eksctl-cluster-1-cluster", "eksctl-cluster-1-nodegroup-ng-5eed5eed"}
    assert len(instances(aws)) == 2
    assert tags(instances(aws)[0]).items() >= RUN.items()
    assert (tmp_path / "kubeconfig").exists()


def test_its_version_fits(aws: Aws, stand_in: StandIn) -> None:
    program = programs.table()["eksctl"]
    version, _ = locate.probe(program, stand_in.program)
    assert version
    assert program.accepts(version)
    assert stand_in.runs == []


def test_what_was_run_is_kept(aws: Aws, stand_in: StandIn) -> None:
    call(aws, stand_in, "get", "cluster")
    assert stand_in.runs == [["get", "cluster"]]


CALLS = [("ec2", "DescribeVolumes", {}), ("cloudformation", "ListStacks", {}), ("eks", "DescribeCluster", {"name": "x"}),
         ("ssm", "DescribeParameters", {}), ("resourcegroupstaggingapi", "GetResources", {}), ("iam", "ListRoles", {}),
         ("elbv2", "DescribeLoadBalancers", {}), ("elb", "DescribeLoadBalancers", {}), ("sts", "GetCallerIdentity", {}),
         ("service-quotas", "ListServiceQuotas", {"ServiceCode": "ec2"}), ("cloudwatch", "ListMetrics", {})]


@pytest.mark.parametrize(("service", "operation", "params"), CALLS, ids=lambda value: str(value))
def test_every_protocol_can_fail_and_is_noted(aws: Aws, service: str, operation: str, params: dict[str, str]) -> None:
    aws.fail(service, operation, code="Throttling", message="Rate <exceeded>", status=429, times=2)
    client = aws.seen(service)
    method = getattr(client, re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            method(**params)
        assert caught.value.response["Error"]["Code"] == "Throttling"
        assert caught.value.response["Error"]["Message"] == "Rate <exceeded>"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    if service != "eks":
        method(**params)
        assert [c.name for c in aws.calls] == [f"{service}:{operation}"] * 3


def test_denying_is_for_good_and_the_simulator_knows(aws: Aws) -> None:
    aws.deny("ec2", "DescribeVolumes")
    for _ in range(3):
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            aws.seen("ec2").describe_volumes()
    found = aws.seen("iam").simulate_principal_policy(
        PolicySourceArn="arn:aws:iam::123456789012:user/x", ActionNames=["ec2:DescribeVolumes", "ec2:RunInstances"])
    assert [r["EvalDecision"] for r in found["EvaluationResults"]] == ["implicitDeny", "allowed"]
    aws.mend()
    aws.seen("ec2").describe_volumes()


def test_a_slow_answer_is_slow(aws: Aws) -> None:
    aws.slow("ec2", "DescribeVolumes", 0.5, times=1)
    took = []
    for _ in range(4):
        began = time.monotonic()
        aws.seen("ec2").describe_volumes()
        took.append(time.monotonic() - began)
    assert took[0] >= 0.5
    assert min(took[1:]) < 0.4


def test_what_moto_lacks_is_answered(aws: Aws) -> None:
    versions = aws.seen("eks").describe_cluster_versions()["clusterVersions"]
    ends = {v["clusterVersion"]: v["endOfStandardSupportDate"].date().isoformat() for v in versions}
    assert ends["1.34"] == "2026-12-02"
    states = {v["clusterVersion"]: v["versionStatus"] for v in versions}
    assert (states["1.36"], states["1.33"]) == ("STANDARD_SUPPORT", "EXTENDED_SUPPORT")
    few = aws.seen("eks").describe_cluster_versions(clusterVersions=["1.35", "1.36"])["clusterVersions"]
    assert {v["clusterVersion"] for v in few} == {"1.35", "1.36"}
    for name in ("canonical/ubuntu/eks/24.04/1.36/stable/current/amd64/hvm/ebs-gp3/ami-id",
                 "eks/optimized-ami/1.36/amazon-linux-2023/x86_64/nvidia/recommended/image_id"):
        known = aws.seen("ssm").get_parameter(Name=f"/aws/service/{name}")["Parameter"]["Value"]
        assert aws.seen("ec2").describe_images(ImageIds=[known])["Images"][0]["State"] == "available"
    with pytest.raises(ClientError, match="ParameterNotFound"):
        aws.seen("ssm").get_parameter(Name="/aws/service/canonical/ubuntu/eks/20.04/1.36/x")
    quota = aws.seen("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode="L-DB2E81BA")["Quota"]
    assert quota["Value"] == 8.0
    prices = aws.seen("pricing", "us-east-1").get_products(ServiceCode="AmazonEC2", Filters=[
        {"Type": "TERM_MATCH", "Field": "instanceType", "Value": "g4dn.xlarge"},
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-central-1"}])["PriceList"]
    assert len(prices) == 1


def test_a_reset_empties_the_account(aws: Aws) -> None:
    aws.client("ec2").create_volume(AvailabilityZone="eu-central-1a", Size=1)
    aws.facts.quotas["ec2", "L-DB2E81BA"] = ("G", 0.0)
    aws.fail("ec2", "*", code="Throttling", times=None)
    aws.reset()
    assert aws.seen("ec2").describe_volumes()["Volumes"] == []
    assert aws.facts.quotas["ec2", "L-DB2E81BA"][1] == 8.0
    assert len(aws.calls) == 1
