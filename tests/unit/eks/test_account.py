"""Account: failures become an AwsError whose code says what a caller may do."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse

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
