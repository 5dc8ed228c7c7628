"""The real eksctl against an account on loopback, as far as that goes: schema, dry run, flags, refusals, deleting nothing.

An eksctl that is absent fails these tests, it never skips them. What it says is also what the stand-in says, which
plays the creates and deletes that moto cannot.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from gpurunbook import programs
from gpurunbook.command import Command
from gpurunbook.programs.eksctl import Eksctl, schema_problem
from tests.aws import fixtures
from tests.aws.fixtures import StandIn
from tests.aws.flags import VERBS, flags_of
from tests.aws.lacking import image
from tests.aws.server import Aws

aws_server, aws, stand_in = fixtures.aws_server, fixtures.aws, fixtures.stand_in
REPOSITORY = Path(__file__).parents[2]
FILES = [name for name in ("cluster.yaml", "cluster.al2023.yaml") if (REPOSITORY / name).exists()]
Done = subprocess.CompletedProcess[str]


@pytest.fixture
def real() -> str:
    found = programs.find("eksctl")
    assert found.fits, f"eksctl: {found.how}; needs {found.needed}; get it by `python3 tools/build.py --eksctl`"
    return found.path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "cluster.yaml"
    made.write_text((REPOSITORY / "cluster.yaml").read_text())
    return made


def call(aws: Aws, program: str | Path, *args: str | Path, home: Path) -> Done:
    """Run it with a home of its own: nothing of the user's is read or written."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **aws.environment}
    if "XDG_CACHE_HOME" in os.environ:
        environment["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME"]
    return subprocess.run([program, *args], env=environment, capture_output=True, text=True, timeout=60, check=False)


def dry_run(aws: Aws, real: str, file: Path, home: Path) -> dict[str, object]:
    """The ClusterConfig that eksctl understood."""
    done = call(aws, real, "create", "cluster", f"--config-file={file}", "--dry-run", home=home)
    assert done.returncode == 0, done.stderr
    understood: dict[str, object] = yaml.safe_load(done.stdout[done.stdout.index("accessConfig:"):])
    return understood


@pytest.mark.parametrize("name", FILES)
def test_our_cluster_files_pass_its_dry_run(aws: Aws, real: str, tmp_path: Path, name: str) -> None:
    written = yaml.safe_load((REPOSITORY / name).read_text())
    understood = dry_run(aws, real, REPOSITORY / name, tmp_path)
    for key in ("nodeGroups", "managedNodeGroups"):
        groups = understood.get(key) or []
        assert isinstance(groups, list)
        assert [{k: group[k] for k in wanted} for group, wanted in zip(groups, written.get(key) or [], strict=True)] == \
            (written.get(key) or [])
    assert not [c for c in aws.calls if c.operation.startswith(("Create", "Run", "Delete"))]


def test_the_posts_file_passes_with_its_version_and_image_replaced(aws: Aws, real: str, tmp_path: Path) -> None:
    post = (REPOSITORY / "tests" / "data" / "cluster.post.yaml").read_text()
    now = post.replace('version: "1.27"', 'version: "1.36"').replace("ami-0ff21ec7370b1f3fb", image("Ubuntu2404"))
    changed = [(old, new) for old, new in zip(post.splitlines(), now.splitlines(), strict=True) if old != new]
    assert [new.split() for _, new in changed] == [["version:", '"1.36"'], ["ami:", image("Ubuntu2404")]]
    (tmp_path / "post.yaml").write_text(now)
    assert schema_problem(yaml.safe_load(now)) is None
    understood = dry_run(aws, real, tmp_path / "post.yaml", tmp_path)
    groups = understood["nodeGroups"]
    assert isinstance(groups, list)
    assert [(g["name"], g.get("ami"), g["amiFamily"]) for g in groups] == [
        ("gpu-workers", image("Ubuntu2404"), "Ubuntu2004"), ("cpu-workers", None, "AmazonLinux2023")]


def test_the_posts_file_as_it_was_is_refused(aws: Aws, real: str, tmp_path: Path) -> None:
    done = call(aws, real, "create", "cluster", "-f", REPOSITORY / "tests" / "data" / "cluster.post.yaml", "--dry-run",
                home=tmp_path)
    assert done.returncode == 1
    assert "1.27 is no longer supported" in done.stderr


def test_only_a_create_looks_at_the_image(aws: Aws, real: str, tmp_path: Path) -> None:
    """So a dry run that passed proves nothing of the image: preflight asks DescribeImages."""
    aws.fail("cloudformation", "CreateStack", code="AccessDenied", message="as far as moto goes", status=403, times=None)
    post = (REPOSITORY / "tests" / "data" / "cluster.post.yaml").read_text().replace('"1.27"', '"1.36"')
    said = {}
    for ami in (image("Ubuntu2404"), "ami-0deadbeefdeadbeef"):
        file = tmp_path / f"{ami}.yaml"
        file.write_text(post.replace("ami-0ff21ec7370b1f3fb", ami))
        dry_run(aws, real, file, tmp_path)
        done = call(aws, real, "create", "cluster", f"--config-file={file}", "--install-nvidia-plugin=false",
                    f"--kubeconfig={tmp_path / 'k'}", home=tmp_path)
        assert done.returncode == 1
        said[ami] = done.stdout + done.stderr
    assert "AccessDenied: as far as moto goes" in said[image("Ubuntu2404")]
    assert 'unable to find image "ami-0deadbeefdeadbeef"' in said["ami-0deadbeefdeadbeef"]


def alike(text: str) -> str:
    """Without what differs from call to call."""
    text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", text, flags=re.MULTILINE)
    return re.sub(r"RequestID: [^,]*,", "RequestID: X,", re.sub(r"api error (?=\w+:)", "", text))


REFUSED: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "unknown flag": (("", ""), ("create", "cluster", "-f", "FILE", "--no-such-flag")),
    "unknown short flag": (("", ""), ("delete", "cluster", "-f", "FILE", "-x")),
    "flag of another verb": (("", ""), ("delete", "cluster", "-f", "FILE", "--disable-eviction")),
    "flag without its value": (("", ""), ("create", "cluster", "--config-file")),
    "no duration": (("", ""), ("delete", "cluster", "-f", "FILE", "--timeout=soon")),
    "unknown field": (("instanceType: g4dn", "instanceTpye: g4dn"), ("create", "cluster", "-f", "FILE", "--dry-run")),
    "unsupported version": (('"1.36"', '"1.27"'), ("create", "cluster", "-f", "FILE", "--dry-run")),
    "unheard-of version": (('"1.36"', '"1.99"'), ("create", "cluster", "-f", "FILE", "--dry-run")),
    "tags beside a file": (("", ""), ("create", "cluster", "-f", "FILE", "--tags=a=b")),
    "name beside a file": (("", ""), ("delete", "cluster", "-f", "FILE", "--name=gpu-cluster")),
    "region beside a file": (("", ""), ("delete", "cluster", "-f", "FILE", "--region=eu-central-1")),
    "NVIDIA's flag in a dry run": (("", ""), ("create", "cluster", "-f", "FILE", "--dry-run", "--install-nvidia-plugin=false")),
    "a kubeconfig in a dry run": (("", ""), ("create", "cluster", "-f", "FILE", "--dry-run", "--kubeconfig=k")),
    "approval without a file": (("", ""), ("delete", "nodegroup", "--cluster=c", "--name=n", "--approve")),
    "deleting what is not there": (("", ""), ("delete", "cluster", "--name=c", "--region=eu-central-1", "--wait",
                                              "--disable-nodegroup-eviction")),
    "deleting a file's cluster that is not there": (("", ""), ("delete", "cluster", "-f", "FILE", "--wait")),
    "deleting a group of nothing": (("", ""), ("delete", "nodegroup", "--cluster=c", "--name=n", "--region=eu-central-1")),
    "a group for nothing": (("", ""), ("create", "nodegroup", "-f", "FILE", "--include=gpu-workers")),
    "an add-on for nothing": (("", ""), ("create", "addon", "--name=coredns", "--cluster=c", "--region=eu-central-1")),
    "asking after nothing": (("", ""), ("get", "cluster", "--name=c", "--region=eu-central-1", "-o", "json")),
    "a kubeconfig of nothing": (("", ""), ("utils", "write-kubeconfig", "--cluster=c", "--region=eu-central-1",
                                           "--kubeconfig=k")),
    "no name": (("", ""), ("delete", "cluster", "--wait")),
    "no such file": (("", ""), ("delete", "cluster", "-f", "no-such.yaml")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_stand_in_refuses_as_the_real_one_does(
        aws: Aws, real: str, stand_in: StandIn, file: Path, tmp_path: Path, name: str) -> None:
    change, words = REFUSED[name]
    file.write_text(file.read_text().replace(*change, 1))
    args = [str(file) if word == "FILE" else word for word in words]
    true, played = (call(aws, program, *args, home=tmp_path) for program in (real, stand_in.program))
    assert true.returncode == 1
    assert played.returncode == 1
    said = [line for line in alike(true.stderr).splitlines() if line.startswith("Error: ")]
    assert said
    assert said == [line for line in alike(played.stderr).splitlines() if line.startswith("Error: ")]


@pytest.mark.parametrize("fault", ["stack is there", "expired"])
def test_what_aws_refuses_is_told_alike(
        aws: Aws, real: str, stand_in: StandIn, file: Path, tmp_path: Path, fault: str) -> None:
    args = ("create", "cluster", f"--config-file={file}", "--install-nvidia-plugin=false", f"--kubeconfig={tmp_path / 'k'}")
    if fault == "expired":
        aws.fail("sts", "GetCallerIdentity", code="ExpiredToken", message="it is expired", status=403, times=None)
        key = "ExpiredToken: it is expired"
    else:
        stand_in.set(hang="during-control-plane")
        environment = {**os.environ, **aws.environment}
        with subprocess.Popen([stand_in.program, *args], env=environment, stdout=subprocess.DEVNULL) as first:
            limit = time.monotonic() + 20
            while not stand_in.hangs_at and time.monotonic() < limit:
                time.sleep(0.02)
            first.kill()
        stand_in.set(hang=None)
        key = "Stack [eksctl-gpu-cluster-cluster] already exists"
        aws.fail("cloudformation", "CreateStack", code="AlreadyExistsException", message=key, times=None)
    true, played = (call(aws, program, *args, home=tmp_path) for program in (real, stand_in.program))
    assert (true.returncode, played.returncode) == (1, 1)
    assert alike(true.stderr).strip() == alike(played.stderr).strip()
    (said,) = [line for line in alike(true.stdout + true.stderr).splitlines() if key in line]
    assert said in alike(played.stdout + played.stderr)
    assert not (tmp_path / "k").exists()


def test_a_failed_control_plane_makes_it_panic(
        aws: Aws, real: str, stand_in: StandIn, file: Path, tmp_path: Path) -> None:
    """With a stack and no control plane it ends 1, and with --force it crashes: only CloudFormation can delete that stack."""
    stand_in.set(fail={"control-plane": {"reason": "limit exceeded"}})
    call(aws, stand_in.program, "create", "cluster", f"--config-file={file}", home=tmp_path)
    for extra, code, said in (((), 1, "No cluster found for name"), (("--force",), 2, "panic: runtime error")):
        for program in (real, stand_in.program):
            done = call(aws, program, "delete", "cluster", "--name=gpu-cluster", "--region=eu-central-1", "--wait", *extra,
                        home=tmp_path)
            assert done.returncode == code
            assert said in done.stderr


K = Path("k")
BUILT = [Eksctl().create_cluster(Path("FILE"), K), Eksctl().create_nodegroup(Path("FILE"), "gpu-workers", "cpu-workers"),
         Eksctl().create_addon("coredns", "c", "eu-central-1"), Eksctl().delete_nodegroup("g", "c", "eu-central-1"),
         Eksctl().delete_cluster("c", "eu-central-1"), Eksctl().try_account("c", "eu-central-1", "1.36", K, {"a/b": "c"}),
         Eksctl().write_kubeconfig("c", "eu-central-1", K)]


@pytest.mark.parametrize("command", BUILT, ids=lambda c: " ".join(c.argv[1:3]) + f"-{len(c.argv)}")
def test_it_accepts_every_flag_that_we_build(aws: Aws, real: str, file: Path, tmp_path: Path, command: Command) -> None:
    """A refused identity is what comes after the flags and the file were accepted."""
    aws.fail("sts", "GetCallerIdentity", code="ExpiredToken", times=None, status=403)
    done = call(aws, real, *(arg.replace("FILE", str(file)) for arg in command.argv[1:]), home=tmp_path)
    assert done.returncode == 1
    assert "checking AWS STS access" in done.stderr
    assert {c.name for c in aws.calls} == {"sts:GetCallerIdentity"}


@pytest.mark.parametrize("verb", VERBS)
def test_the_recorded_help_has_its_flags(aws: Aws, real: str, tmp_path: Path, verb: str) -> None:
    shown = call(aws, real, *verb.split(), "--help", home=tmp_path).stdout
    named = set(re.findall(r"^ +(?:-\w, )?--([\w-]+)", shown, re.MULTILINE))
    assert named == {name for name in flags_of(verb) if not name.startswith("-")}


def test_it_sees_a_cluster_that_the_stand_in_made(aws: Aws, real: str, stand_in: StandIn, file: Path, tmp_path: Path) -> None:
    made = call(aws, stand_in.program, "create", "cluster", f"--config-file={file}", home=tmp_path)
    assert made.returncode == 0, made.stderr
    args = ("get", "cluster", "--name=gpu-cluster", "--region=eu-central-1", "-o", "json")
    true, played = (yaml.safe_load(call(aws, program, *args, home=tmp_path).stdout)[0] for program in (real, stand_in.program))
    for key in ("Name", "Arn", "Status", "Version", "Tags", "Identity", "CertificateAuthority"):
        assert true[key] == played[key]
    assert true["Status"] == "ACTIVE"
    assert true["ResourcesVpcConfig"].items() >= played["ResourcesVpcConfig"].items()


def test_the_kubeconfig_has_the_real_ones_names(aws: Aws, real: str, stand_in: StandIn, file: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.yaml"
    given.write_text(yaml.safe_dump({"clusters": [{"name": "x", "cluster": {"server": "https://127.0.0.1:1"}}],
                                     "users": [{"name": "x", "user": {}}]}))
    stand_in.set(kubeconfig=given)
    call(aws, stand_in.program, "create", "cluster", f"--config-file={file}", f"--kubeconfig={tmp_path / 'ours'}", home=tmp_path)
    done = call(aws, real, "utils", "write-kubeconfig", "--cluster=gpu-cluster", "--region=eu-central-1",
                f"--kubeconfig={tmp_path / 'theirs'}", home=tmp_path)
    assert done.returncode == 0, done.stderr
    ours, theirs = (yaml.safe_load((tmp_path / name).read_text()) for name in ("ours", "theirs"))
    assert ours["contexts"] == theirs["contexts"]
    assert ours["current-context"] == theirs["current-context"]
    assert [one["name"] for one in ours["users"]] == [one["name"] for one in theirs["users"]]
