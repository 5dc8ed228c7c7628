"""Account: failures become an AwsError whose code says what a caller may do."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from moto import mock_aws

from gpurunbook.targets.eks import aws, settle
from gpurunbook.targets.eks.account import Account, AwsError
from tests.aws.answers import Answers, Refusal


def test_the_identity_has_a_short_name(account: Account) -> None:
    who = account.identity()
    assert who["account"] == "123456789012"
    assert who["name"]
    assert not set(":/") & set(who["name"])


def test_pages_are_followed_to_the_end(account: Account) -> None:
    for _ in range(7):
        account.call("ec2", "create_volume", AvailabilityZone="eu-central-1a", Size=1)
    found = account.pages("ec2", "describe_volumes", "Volumes", PaginationConfig={"PageSize": 5})
    assert len(found) == 7


@pytest.mark.parametrize(("code", "attribute"), [
    ("AccessDeniedException", "denied"), ("UnauthorizedOperation", "denied"), ("ExpiredToken", "expired"),
    ("ResourceNotFoundException", "absent"), ("InvalidVolume.NotFound", "absent")])
def test_a_refusal_says_of_what_kind_it_is(account: Account, answers: Answers, code: str, attribute: str) -> None:
    answers["eks", "describe_cluster"] = Refusal(code, "no")
    with pytest.raises(AwsError) as caught:
        account.call("eks", "describe_cluster", name="x")
    kinds = {kind: getattr(caught.value, kind) for kind in ("denied", "expired", "absent")}
    assert kinds == {kind: kind == attribute for kind in kinds}
    assert caught.value.where == "eks:DescribeCluster"


@pytest.mark.parametrize(("service", "operation", "params", "where"), [
    ("elbv2", "describe_load_balancers", {}, "elasticloadbalancing:DescribeLoadBalancers"),
    ("service-quotas", "get_service_quota", {"ServiceCode": "ec2", "QuotaCode": "L-1"}, "servicequotas:GetServiceQuota"),
    ("resourcegroupstaggingapi", "get_resources", {}, "tag:GetResources")])
def test_a_refusal_is_spelled_as_iam_spells_it(account: Account, answers: Answers, service: str, operation: str,
                                               params: dict[str, str], where: str) -> None:
    answers[service, operation] = Refusal("AccessDenied", "no")
    with pytest.raises(AwsError) as caught:
        account.call(service, operation, **params)
    assert caught.value.where == where
    assert caught.value.next.startswith(f"allow {where} ")


@pytest.mark.parametrize(("region", "host"), [("ap-east-1", "us-east-1"), ("us-gov-east-1", "us-gov-west-1"),
                                              ("cn-northwest-1", "cn-north-1")])
def test_who_we_are_is_asked_in_a_region_that_every_account_has(answers: Answers, region: str, host: str) -> None:
    with mock_aws():
        account = Account(region, answers.install(boto3.Session()))
        account.identity()
        assert [key for key in account._clients if key[0] == "sts"] == [("sts", host)]


ROLE = """[default]
role_arn = arn:aws:iam::123456789012:role/admin
source_profile = base
[profile base]
aws_access_key_id = AKIAEXAMPLE
aws_secret_access_key = example
"""


class Sts(BaseHTTPRequestHandler):
    """Refuses every role, as AWS does."""

    def do_POST(self) -> None:
        body = (b"<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>User is not authorized to perform: "
                b"sts:AssumeRole</Message></Error><RequestId>1</RequestId></ErrorResponse>")
        self.send_response(403)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_profile_whose_role_is_refused_is_a_matter_of_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(ROLE)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with ThreadingHTTPServer(("127.0.0.1", 0), Sts) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(AwsError) as caught:
            Account("eu-central-1").call("ec2", "describe_volumes")
        server.shutdown()
    assert caught.value.signed_out
    assert not caught.value.denied
    assert "sts:AssumeRole" in caught.value.what
    assert "role_arn" in caught.value.next


@pytest.mark.parametrize(("code", "status", "passing"), [
    ("ThrottlingException", 400, True), ("RequestLimitExceeded", 503, True), ("Whatever", 500, True),
    ("AccessDenied", 403, False), ("ExpiredToken", 403, False), ("ValidationError", 400, False)])
def test_what_may_pass_is_told_from_what_will_not(account: Account, answers: Answers, code: str, status: int,
                                                  passing: bool) -> None:
    answers["eks", "describe_cluster"] = Refusal(code, "no", status)
    with pytest.raises(AwsError) as caught:
        account.call("eks", "describe_cluster", name="x")
    assert caught.value.passing == passing


def test_throttling_is_tried_again_with_backoff(account: Account) -> None:
    sent: list[str] = []

    def throttled(request: AWSPreparedRequest, **_: object) -> AWSResponse | None:
        sent.append(request.url)
        if len(sent) > 2:
            return None  # moto answers
        body = io.BytesIO(b'{"message": "Rate exceeded"}')
        return AWSResponse(request.url, 429, {"x-amzn-errortype": "ThrottlingException"}, _Raw(body))

    account.client("eks").meta.events.register_first("before-send.eks.ListClusters", throttled)
    assert account.call("eks", "list_clusters")["clusters"] == []
    assert len(sent) == 3


class _Raw:
    """What botocore reads a body from."""

    def __init__(self, body: io.BytesIO) -> None:
        self.body = body

    def stream(self) -> Iterator[bytes]:
        yield self.body.read()


def test_a_profile_that_is_not_there_says_nothing_of_the_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                                capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AWS_PROFILE", "misspelt")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(AwsError) as caught:
        Account("eu-central-1").call("eks", "describe_cluster", name="x")
    assert not caught.value.absent
    assert caught.value.signed_out
    assert aws.main(["ec2", "delete-volume", "--volume-id", "vol-1", "--region", "eu-central-1"]) == 1
    assert settle.main(["--stack-name", "s", "--region", "eu-central-1"]) == 1
    assert "gone" not in capsys.readouterr().out
